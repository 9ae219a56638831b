"""Strings of JSON (RFC 8259), whole or cut: members that their names call a secret, and texts within strings.

It reads strings alone and never fails: they may stand in any other text. The time is linear in the length.
"""

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Final
from urllib.parse import unquote

from proxy.admin.assignments import end_of_brackets, without_assignments
from proxy.admin.effort import Effort
from proxy.admin.secretnames import is_secret
from proxy.redact import MASK

_STRING: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:(")(\s*+:\s*+)?+|\\?\Z)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.)|\Z)", re.DOTALL)
_WORDS_OF_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUMBER: Final = re.compile(r"-?[0-9][^\s,}\]]*+")
#: What is coded, to the end of the run that it stands in, and the beginning of that run, backwards.
_CODED: Final = re.compile(r"""[%&][^<>"'\r\n]*+""")
_PLAIN_BACKWARDS: Final = re.compile(r"""[^<>"'\r\n]*+""")


def without_strings(text: str, inner: Callable[[str], str], effort: Effort) -> str:
    """`text` with `***` in the place of members that are called a secret. `inner`: what is shown of other texts."""
    return "".join(_pieces(text, inner, effort))


def _pieces(text: str, inner: Callable[[str], str], effort: Effort) -> Iterator[str]:
    at = 0
    for string in _STRING.finditer(text):
        start, end = string.span()
        effort.spend(1)
        if start < at:
            continue
        plain = _unescaped(string[1], effort)
        shown = None
        if string[3] is None:
            cleaned = inner(plain)
            if cleaned != plain:
                shown = f'"{_escaped(cleaned)}{string[2] or ""}'
        elif is_secret(plain):
            effort.spend(3)
            value = _end_of_value(text, end)
            if value > end:
                shown, end = f'{string[0]}"{MASK}"', value
        if shown is not None:
            yield _runs(text[at:start], inner, effort)
            yield shown
            at = end
    yield _runs(text[at:], inner, effort)


def _unescaped(text: str, effort: Effort) -> str:
    if "\\" not in text:
        return text
    effort.spend(text.count("\\"))
    return _ESCAPE.sub(_character, text)


def _character(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return _WORDS_OF_ESCAPES.get(escape[2] or "", escape[2] or "")


def _escaped(text: str) -> str:
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(text, ensure_ascii=False)[1:-1])


def _end_of_value(text: str, start: int) -> int:
    """Where the value that begins at `start` is over; `start`: it is none to be masked.

    What is cut ends with the text.
    """
    string = _STRING.match(text, start)
    if string is not None:
        return string.end(2) if string[2] else string.end()
    if text.startswith(("[", "{"), start):
        return end_of_brackets(text, start)
    number = _NUMBER.match(text, start)
    return start if number is None else number.end()


def _runs(text: str, inner: Callable[[str], str], effort: Effort) -> str:
    """What stands between the strings: percent-encoded, or with the entities of XML."""
    pieces, at = [], 0
    for found in _CODED.finditer(text):
        before = _PLAIN_BACKWARDS.match(text[at : found.start()][::-1])
        start = found.start() - (before.end() if before else 0)
        pieces += [text[at:start], _run(text[start : found.end()], inner, effort)]
        at = found.end()
    return "".join([*pieces, text[at:]])


def _run(run: str, inner: Callable[[str], str], effort: Effort) -> str:
    effort.spend(4 + run.count("%") + run.count("&"))
    known = without_assignments(run, effort)
    plain = unquote(unescape(known))
    return run if plain == known or inner(plain) == plain else MASK
