"""Presets: what is known of a vendor's API, as data files, and the ordinary credentials they stand for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from proxy.config.problems import did_you_mean
from proxy.config.template import Expansion, Parameter, expand
from proxy.patterns import Pattern

#: Every start reads all presets; with libyaml, where PyYAML has it, that takes a tenth of the time.
_Loader: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that the preset relies on; `mark` V: read in the source, I: inferred."""

    what: str
    source: str
    mark: str


@dataclass(frozen=True, slots=True)
class Preset:
    """One vendor's API.

    `upstream` is an example of one, `route` holds defaults of routes that use it, `redact` says what its tokens
    look like.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    upstream: str
    parameters: tuple[Parameter, ...]
    route: Mapping[str, Any]
    credential: Mapping[str, Any]
    redact: tuple[Pattern, ...]
    facts: tuple[Fact, ...]

    def expand(self, given: Mapping[str, Any]) -> Expansion:
        """The ordinary credential that this preset stands for with the keys of `given`."""
        return expand(self.credential, self.parameters, given)


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in alphabetical order."""
    found = [_load(file.read_text("utf-8")) for file in files("proxy").joinpath("presets").iterdir()]
    return {preset.name: preset for preset in sorted(found, key=lambda each: each.name)}


def _load(text: str) -> Preset:
    data = _tuples(yaml.load(text, Loader=_Loader))  # noqa: S506  a safe one, see above
    data["parameters"] = tuple(Parameter(**each) for each in data["parameters"])
    data["facts"] = tuple(Fact(**each) for each in data["facts"])
    data["redact"] = tuple(
        Pattern(re.compile(each["pattern"]), frozenset(each["hints"])) for each in data["redact"]
    )
    return Preset(**data)


def _tuples(value: Any) -> Any:  # noqa: ANN401  plain data
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def named(name: str) -> Preset | None:
    """The preset of this name or alias."""
    known = presets()
    return known.get(name) or next((each for each in known.values() if name in each.aliases), None)


def unknown(name: str) -> str:
    """The sentence for a preset that does not exist."""
    words = [word for preset in presets().values() for word in (preset.name, *preset.aliases)]
    return f"there is no such preset{did_you_mean(name, words) or ': `bearer-proxy presets` lists them'}"
