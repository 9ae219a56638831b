"""Collects what is wrong with a configuration and says it in the reader's own lines and keys.

The models see the long form with presets expanded; people see what they wrote. `moved` leads from one to the
other, so that each sentence names the line and key that its reader can mend.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.names import looks_like_a_name, shown

KeyPath = tuple[str | int, ...]


class _Unsaid(str):
    """A key that leads to its line, and is not told."""

    __slots__ = ()


#: Among more names none is looked for: thousands of slips beside as many credentials took a quarter of a minute.
_COMPARED_MOST: Final = 100


@dataclass(slots=True)
class Problems:
    """The problems and warnings of one configuration, in the order of their lines.

    `name` is that of the file, `lines` the line of each key path as it was written, `moved` the written key path
    of each normalised one.
    """

    name: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)
    _found: dict[tuple[int, str], None] = field(default_factory=dict)
    _warned: list[str] = field(default_factory=list)

    def add(self, path: KeyPath, sentence: str, *, line: int | None = None) -> None:
        """Note a problem at a normalised key path."""
        # One parameter of a preset may stand in several places of the credential: it is told once.
        self._found[self._render(path, sentence, line)] = None

    def warn(self, path: KeyPath, sentence: str) -> None:
        """Note something that is allowed but doubtful."""
        self._warned.append(self._render(path, sentence, None)[1])

    @property
    def sentences(self) -> list[str]:
        """All problems, by line."""
        return [text for _line, text in sorted(self._found, key=lambda each: each[0])]

    @property
    def warnings(self) -> list[str]:
        """All warnings, as they were noted."""
        return list(self._warned)

    def _render(self, path: KeyPath, sentence: str, line: int | None) -> tuple[int, str]:
        written = self.written(path)
        at = line or self.line(written)
        told = [part for part in written if not isinstance(part, _Unsaid)]
        key = ".".join(shown(part) if isinstance(part, str) else str(part) for part in told)
        where = f" {key}:" if told else ""
        return at, f"{self.name}:{at}:{where} {sentence}"

    def written(self, path: KeyPath) -> KeyPath:
        """The key path as it was written, for a normalised one."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.moved:
                path = self.moved[path[:length]] + path[length:]
                break
        # A single value may stand where a list is meant: it has no index of its own.
        while path and isinstance(path[-1], int) and path not in self.lines:
            path = path[:-1]
        return path

    def line(self, written: KeyPath) -> int:
        """The line of a key path, or of the nearest one above it."""
        while written and written not in self.lines:
            written = written[:-1]
        return self.lines.get(written, 1)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean X?` or nothing."""
    import difflib  # noqa: PLC0415  only mistakes need it

    names = list(known)
    close = difflib.get_close_matches(word, names, n=1) if len(names) <= _COMPARED_MOST else ()
    return f", did you mean {close[0]}?" if close else ""


def unknown_key(key: str, value: object, known: Iterable[str]) -> tuple[KeyPath, str]:
    """The last part of the key path, and the sentence, for a key that nothing knows.

    The key is repeated only where it looks like one: `{S3cret}` and `password:S3cret` make keys of secrets. Its
    line says where it is.
    """
    ordered = sorted(known)
    hint = did_you_mean(key, ordered)
    if hint or (value is not None and looks_like_a_name(key)):
        return (key,), f"unknown key{hint or ': write one of ' + ', '.join(ordered)}"
    slip = " (is a space missing after its colon?)" if value is None else ""
    return (_Unsaid(key),), f"a key here is unknown{slip}: write one of {', '.join(ordered)}"
