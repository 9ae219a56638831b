"""What a text says once its escapes are read: a secret in which more is escaped than has to be is one all the same.

Law: only the text's own letters are read, never others put in; each letter of a reading is known by its place.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

#: A letter by its number: in addresses, in strings of programs, in pages. Backslashes are looked at from the first
#: of them alone: the square of many would take too long.
_ESCAPE: Final = re.compile(
    r"%([0-9A-Fa-f]{2})|(?<!\\)\\+(?:x|u00)([0-9A-Fa-f]{2})|&#[xX]0{0,6}([0-9A-Fa-f]{2});|&#0{0,6}([0-9]{2,3});"
)
#: In Latin-1.
_MOST: Final = 255
_DECIMAL: Final = 4
#: Escapes of escapes of escapes.
_DEEPEST: Final = 3
#: A longer text is looked at as it is: heads and lines of logs are shorter, and each letter costs.
LONGEST: Final = 8192


def may_escape(text: str) -> bool:
    """Is there anything to read in it?"""
    return len(text) <= LONGEST and ("%" in text or "\\" in text or "&#" in text)


def readings(text: str) -> Iterator[str]:
    """What it says, escapes read once, twice, and so on, as long as there are any."""
    for _ in range(_DEEPEST):
        before, text = text, _ESCAPE.sub(_letter, text)
        if text == before:
            return
        yield text


def placed(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """The same, each with the place in `text` at which each of its letters begins, and the end of the last one."""
    places = list(range(len(text) + 1))
    for _ in range(_DEEPEST):
        pieces, found, done = [], list[int](), 0
        for match in _ESCAPE.finditer(text):
            pieces += [text[done : match.start()], _letter(match)]
            found += places[done : match.start() + 1]
            done = match.end()
        if not done:
            return
        pieces.append(text[done:])
        text, places = "".join(pieces), found + places[done:]
        yield text, places


def _letter(match: re.Match[str]) -> str:
    number = int(match[match.lastindex or 0], 10 if match.lastindex == _DECIMAL else 16)
    return chr(number) if number <= _MOST else match[0][:1]
