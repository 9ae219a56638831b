r"""The language in which the wire corpus writes bytes: as they look, with escapes for what one cannot see.

- Every line end is CRLF. (YAML's `|+` keeps the empty line that ends a head, `|-` ends with the last character.)
- `\r \n \t \0 \\ \xff` is that one byte. A `\` at the end of a line: the line goes on, without CRLF.
- `\{ab*900}` is `ab` 900 times; `\{name}` a value of the run (a port, a secret).
- `\{}` in the text of a group is the hole where the text of each case goes.

Everything else is ASCII and stands for itself.
"""

import re
from collections.abc import Mapping
from typing import Final

_ESCAPE: Final = re.compile(
    r"""\\(?: x([0-9A-Fa-f]{2})            # 1: a byte in hex
            | ([rnt0\\])                   # 2: a byte with a letter of its own
            | \{([^{}]*)\*([0-9]+)\}       # 3, 4: repetition
            | \{([a-z]*)\}                 # 5: a value; without a name: the hole
            | (\n)                         # 6: the line goes on
            | )""",
    re.VERBOSE,
)
_LETTERS: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def spell(text: str, values: Mapping[str, bytes]) -> bytes:
    """The bytes that `text` stands for; the hole is the value without a name.

    Raises ValueError for an escape that is none, KeyError for an unknown value, UnicodeEncodeError beyond ASCII.
    """
    spelled = bytearray()
    at = 0
    for match in _ESCAPE.finditer(text):
        spelled += _plain(text[at : match.start()]) + _escaped(match, values)
        at = match.end()
    return bytes(spelled + _plain(text[at:]))


def _plain(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("ascii")


def _escaped(match: re.Match[str], values: Mapping[str, bytes]) -> bytes:
    code, letter, repeated, times, name, goes_on = match.groups()
    if code is not None:
        return bytes.fromhex(code)
    if letter is not None:
        return _LETTERS[letter]
    if times is not None:
        return spell(repeated, values) * int(times)
    if name is not None:
        return values[name]
    if goes_on is None:
        raise ValueError(f"a backslash that begins no escape, at {match.string[match.start() :][:20]!r}")
    return b""
