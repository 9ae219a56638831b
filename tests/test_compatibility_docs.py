"""`docs/compatibility.md` is what the tests show: a row for each of them, and none without one."""

import ast
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[1]
#: Every test of these has a row.
FILES: Final = ("test_clients.py", "test_compatibility.py", "test_compatibility_app.py")


class Row(NamedTuple):
    """One line of the table, as it is written."""

    program: str
    version: str
    way: str
    works: str
    tests: str


def rows(text: str) -> list[Row]:
    """The lines of the table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [Row(*(cell.strip() for cell in line.strip("|").split(" | "))) for line in lines[2:]]


def named_in(name: str) -> set[str]:
    """The tests of one file, as pytest would call them."""
    tree = ast.parse((ROOT / "tests" / name).read_text("utf-8"))
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        f"{name}::{each.name}" for each in tree.body if isinstance(each, found) and each.name.startswith("test_")
    }


def floors() -> Mapping[str, str]:
    """The oldest version of each program that the tests install, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    python = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(wanted), re.MULTILINE))
    npm = json.loads((ROOT / "tests" / "npm" / "package.json").read_text("utf-8"))["dependencies"]
    return {**python, **npm}


def numbers(version: str) -> tuple[int, ...]:
    """A version as it is compared."""
    return tuple(map(int, version.split(".")))


TABLE: Final = rows((ROOT / "docs" / "compatibility.md").read_text("utf-8"))


def test_every_row_names_tests_and_every_test_has_a_row() -> None:
    """By the file and the name of the test, and the one of its cases that is the row's."""
    named = {row.program: re.findall(r"`([\w.]+::\w+)(?:\[(\w+)\])?`", row.tests) for row in TABLE}
    assert [program for program, found in named.items() if not found] == []
    assert len(named) == len(TABLE)
    every = {test for found in named.values() for test, _ in found}
    cases = {(test.partition("::")[0], case) for found in named.values() for test, case in found if case}
    assert cases
    assert [case for file, case in cases if f'"{case}"' not in (ROOT / "tests" / file).read_text("utf-8")] == []
    there = {test for file in {each.partition("::")[0] for each in every} for test in named_in(file)}
    assert every - there == set()
    assert {test for file in FILES for test in named_in(file)} - every == set()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.program)
def test_a_row_says_with_which_version_how_and_what(row: Row) -> None:
    """The version is none that the tests would not take."""
    assert re.fullmatch(r"\d+(\.\d+)*", row.version)
    assert row.way
    assert row.works
    assert numbers(row.version) >= numbers(floors().get(row.program.lower(), "0"))


def test_a_wrong_row_would_be_noticed() -> None:
    """The parts of the above know one thing from another."""
    assert rows("| a | b |\n|---|---|\n| x | 1.0 | by | all | `f::t` |") == [Row("x", "1.0", "by", "all", "`f::t`")]
    assert "test_clients.py::test_wget" in named_in("test_clients.py")
    assert {"httpie", "axios", "verdaccio", "aiohttp"} <= set(floors())
    assert numbers("3.2") > numbers("2.34")
