"""What the package depends on: little, and nothing older than the last known hole in it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

PROJECT: Final[dict[str, Any]] = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]
#: The versions that mend what is known (aiohttp: its list of changes, 3.14.4).
MENDED: Final = {"aiohttp": (3, 14, 4)}
#: All that may be needed to serve: a further one is a decision.
NEEDED: Final = {"aiohttp", "click", "cryptography", "pydantic", "PyJWT", "PyYAML", "uvloop"}


def floors(requirements: list[str]) -> dict[str, tuple[int, ...]]:
    """The lowest version that each requirement takes; ValueError where one has none."""
    found = {}
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?>=([0-9.]+)", requirement)
        if match is None:
            raise ValueError(requirement)
        found[match[1]] = numbers(match[2])
    return found


def numbers(text: str) -> tuple[int, ...]:
    """A version to compare."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


@pytest.mark.threat(130)
def test_every_dependency_has_a_floor_above_what_is_known_of_it() -> None:
    """Who installs beside old packages does not get these."""
    optional = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    found = floors([*PROJECT["dependencies"], *optional])
    assert {name for name, mended in MENDED.items() if found[name] < mended} == set()


@pytest.mark.threat(130)
def test_dependencies_are_few() -> None:
    """Each is code of others that sees tokens."""
    assert set(floors(PROJECT["dependencies"])) == NEEDED


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_what_is_tested_is_what_may_be_installed(name: str) -> None:
    """The floors are not above what runs here."""
    assert numbers(version(name)) >= floors(PROJECT["dependencies"])[name]
