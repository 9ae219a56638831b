"""Fills in the template of a preset, and says what is wrong with its parameters.

A template is a credential with `<parameter>` where a value belongs. `{when: CONDITION, value: X, else: Y}` keeps
X where a parameter is set (`when: NAME`) or equal (`when: {NAME: VALUE}`); what comes to nothing is left out.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.config.problems import KeyPath, unknown_key
from proxy.config.secrets import FORMS, LiteralSecret
from proxy.config.values import header_name

#: What every preset credential takes besides its parameters: the common keys of credentials.
COMMON: Final = frozenset({"place", "headers", "margin", "origins", "expired", "insecure_http", "tls"})

_WORD: Final = re.compile(r"[A-Za-z0-9_.@-]+")
_PARAMETER: Final = re.compile(r"<([a-z_.]+)>")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a preset takes; `kind` says what it may be, `choices` (if any) the words.

    `needs` is a parameter without which this one has no effect, `unless` one without which this one is required.
    """

    name: str
    kind: str
    help: str
    required: bool = False
    default: object = None
    choices: tuple[str, ...] = ()
    needs: str | None = None
    unless: str | None = None

    @property
    def secret(self) -> bool:
        """Is it masked, and given by reference?"""
        return self.kind == "secret"

    @property
    def state(self) -> str:
        """Whether it must be given, for people."""
        if self.required:
            return "required"
        if self.unless is not None:
            return f"required without {self.unless}"
        return f"default {str(self.default).lower()}" if self.default else "optional"


@dataclass(slots=True)
class Expansion:
    """A preset with its parameters filled in.

    `credential` is the ordinary credential, `moved` the written key of each part that came from a parameter,
    `problems` what is wrong with the parameters, all relative to the credential.
    """

    credential: dict[str, Any] = field(default_factory=dict)
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)


def expand(template: Mapping[str, Any], parameters: Iterable[Parameter], given: Mapping[str, Any]) -> Expansion:
    """The ordinary credential that a template stands for with the keys of `given`."""
    found = Expansion()
    known = {parameter.name: parameter for parameter in parameters}
    for key, value in given.items():
        if key not in known and key not in COMMON and key != "preset":
            found.problems.append(unknown_key(key, value, {*known, *COMMON}))
    # null is as good as absent.
    filled: dict[str, Any] = {
        name: parameter.default if given.get(name) is None else given[name] for name, parameter in known.items()
    }
    for name, parameter in known.items():
        sentence = _wrong(parameter, filled, given)
        if sentence:
            found.problems.append(((name,), sentence))
        elif parameter.secret and isinstance(filled[name], str):
            filled[name] = LiteralSecret(filled[name])
        elif parameter.kind == "url" and filled[name] is not None:
            filled[name] = str(filled[name]).rstrip("/")
    if not found.problems:
        found.credential = _fill(template, filled, (), found.moved)
        found.credential |= {key: given[key] for key in COMMON if key in given}
        # What replaced a part of the template stands where it was written.
        found.moved = {path: to for path, to in found.moved.items() if path[0] not in COMMON & given.keys()}
    return found


def _wrong(parameter: Parameter, filled: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of a parameter, or None."""
    value = filled[parameter.name]
    if value is None:
        needed = parameter.required or (parameter.unless is not None and filled[parameter.unless] is None)
        return f"this key is missing: add it ({parameter.help})" if needed else None
    if parameter.needs is not None and filled[parameter.needs] is None:
        return f"this has no effect without {parameter.needs}: add that key, or remove this one"
    if parameter.choices and value not in parameter.choices:
        return f"write one of {', '.join(parameter.choices)}"
    if parameter.kind in _KINDS and given.get(parameter.name) is not None:
        fits, sentence = _KINDS[parameter.kind]
        return None if fits(value) else sentence
    return None


def _is_header(value: object) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"header"} or not isinstance(value["header"], str):
        return False
    try:
        header_name(value["header"])
    except ValueError:
        return False
    return True


_KINDS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "flag": (lambda value: isinstance(value, bool), "write true or false"),
    "url": (lambda value: isinstance(value, str), "write a URL, such as https://api.example.com"),
    "text": (lambda value: isinstance(value, str) and bool(value), "write text"),
    "word": (
        lambda value: isinstance(value, str) and _WORD.fullmatch(value) is not None,
        "write one word of letters, digits, '.', '_' and '-'",
    ),
    "file": (lambda value: isinstance(value, str) and bool(value), "write the path of a file"),
    "list": (
        lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
        "write a list of texts, such as [a, b]",
    ),
    "path": (
        lambda value: isinstance(value, str) and value.startswith("/"),
        "write a path that begins with '/'",
    ),
    "body_or_header": (
        lambda value: value == "body" or _is_header(value),
        "write body or {header: NAME}",
    ),
    "secret": (
        lambda value: isinstance(value, str | Mapping | LiteralSecret),
        f"write a reference to a secret: {FORMS}",
    ),
}


def _fill(value: Any, filled: Mapping[str, Any], path: KeyPath, moved: dict[KeyPath, KeyPath]) -> Any:  # noqa: ANN401  plain data
    """A template with its parameters filled in; None is left out of mappings and lists."""
    if isinstance(value, Mapping):
        if "when" in value:
            branch = "value" if _holds(value["when"], filled) else "else"
            return _fill(value[branch], filled, path, moved) if branch in value else None
        found = {}
        for key, each in value.items():
            name = _text(key, filled, path, moved)
            inner = None if name is None else _fill(each, filled, (*path, name), moved)
            if inner is not None:
                found[name] = inner
        return found
    if isinstance(value, tuple):
        kept: list[Any] = []
        for each in value:
            inner = _fill(each, filled, (*path, len(kept)), moved)
            if inner is not None:
                kept.append(inner)
        return tuple(kept)
    return _text(value, filled, path, moved) if isinstance(value, str) else value


def _text(text: str, filled: Mapping[str, Any], path: KeyPath, moved: dict[KeyPath, KeyPath]) -> Any:  # noqa: ANN401  plain data
    """`text` with its parameters filled in; a parameter that stands alone keeps its type."""
    names = _PARAMETER.findall(text)
    if names:
        moved[path] = (names[0].partition(".")[0],)
    if len(names) == 1 and text == f"<{names[0]}>":
        return _value(names[0], filled)
    return _PARAMETER.sub(lambda match: str(_value(match[1], filled)), text)


def _value(name: str, filled: Mapping[str, Any]) -> Any:  # noqa: ANN401  plain data
    """The value of `NAME`, or of `NAME.KEY` inside it (None where it is no mapping)."""
    name, _dot, key = name.partition(".")
    value = filled[name]
    if not key:
        return value
    return value.get(key) if isinstance(value, Mapping) else None


def _holds(condition: str | Mapping[str, object], filled: Mapping[str, Any]) -> bool:
    if isinstance(condition, str):
        return bool(filled[condition])
    return all(filled[name] == value for name, value in condition.items())
