"""What a body's own names call a secret: passwords and tokens, the client's and the upstream's alike.

Nothing here knows a value; it is the names that tell. Each look is linear in the length of the text.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from proxy.redact import MASK

_WORDS: Final = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|access|private)[_.\x20-]?key|authorization|cookie|credential"
    r"|session|otp|jwt|assertion|(?<![a-z])(?:pass|pin|auth)(?![a-z]))"
)
_CALLED: Final = re.compile(_WORDS, re.IGNORECASE)
#: A name in JSON, also in JSON that is a text in JSON, where the quotes have backslashes before them.
_NAME: Final = re.compile(r'(?<!\\)(\\*)"((?:[^"\\]|\\+u[0-9a-f]{4})*)\1"\s*:\s*', re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\+u([0-9a-f]{4})", re.IGNORECASE)
#: A number; a text is found by its quotes, a list and an object by their brackets.
_PLAIN: Final = re.compile(r"-?[0-9][^\s,}\]\\]*")
_BRACKET: Final = re.compile(r'["\[\]{}]')
#: Elements and attributes of XML: their names are words of at most so many characters.
_TAG: Final = rf"(?<![\w:.-])[\w:.-]{{0,64}}{_WORDS}[\w:.-]{{0,64}}"
_ELEMENT: Final = re.compile(
    rf"(<{_TAG}(?:\s[^<>]*)?>\s*)(?:<!\[CDATA\[.*?(?:\]\]>|\Z)|[^<]+)", re.IGNORECASE | re.DOTALL
)
_ATTRIBUTE: Final = re.compile(rf"""({_TAG}\s*=\s*)(?:"[^"]*"?|'[^']*'?)""", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r'boundary="?([^";,\s]+)', re.IGNORECASE)


def without_members(text: str, content_type: bytes) -> str:
    """`text` with `***` in the place of what its names call a secret: in JSON, forms, parts (RFC 7578) and XML."""
    kind = content_type.decode("latin-1").lower()
    if "urlencoded" in kind:
        return "&".join(map(_form_member, text.split("&")))
    if kind.lstrip().startswith("multipart/"):
        found = _BOUNDARY.search(content_type.decode("latin-1"))
        boundary = f"--{found[1]}" if found else text.partition("\r\n")[0]
        return boundary.join(map(_part, text.split(boundary))) if boundary else MASK
    if "xml" in kind or "html" in kind or text.lstrip().startswith("<"):
        text = _ATTRIBUTE.sub(rf'\1"{MASK}"', _ELEMENT.sub(rf"\1{MASK}", text))
    return "".join(_json(text))


def _form_member(member: str) -> str:
    name, equals, value = member.partition("=")
    if not equals:
        return member
    plain = unquote_plus(value)
    holds_more = _CALLED.search(unquote_plus(name)) or "".join(_json(plain)) != plain
    return f"{name}={MASK}" if holds_more else member


def _part(part: str) -> str:
    """One part, from the boundary before it to the next."""
    head, blank, value = part.partition("\r\n\r\n")
    if not blank:
        return part
    if _CALLED.search(head):
        return f"{head}{blank}{MASK}\r\n"
    return head + blank + "".join(_json(value))


def _json(text: str) -> Iterator[str]:
    at = 0
    for name in _NAME.finditer(text):
        if name.start() < at or not _CALLED.search(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), name[2])):
            continue
        end = _end(text, name.end(), name[1])
        if end > name.end():
            quote = f'{name[1]}"'
            yield f"{text[at : name.end()]}{quote}{MASK}{quote}"
            at = end
    yield text[at:]


def _end(text: str, start: int, slashes: str) -> int:
    """Where the value that begins at `start` is over; `start`: it is none to be masked.

    `slashes` stand before the quotes of this depth: a quote with fewer ends the text around it. Of what is cut off
    the end is the end of the text.
    """
    quote = f'{slashes}"'
    if text.startswith(quote, start):
        return _end_of_text(text, start + len(quote), len(slashes))
    if text.startswith(("[", "{"), start):
        return _end_of_brackets(text, start, slashes)
    plain = _PLAIN.match(text, start)
    return start if plain is None else plain.end()


def _end_of_brackets(text: str, start: int, slashes: str) -> int:
    quote, open_ones, at = f'{slashes}"', 0, start
    while (found := _BRACKET.search(text, at)) is not None:
        at = found.end()
        if found[0] == '"':
            if not text.startswith(quote, found.start() - len(slashes)):
                return found.start()  # the text around it is over
            at = _end_of_text(text, at, len(slashes))
            continue
        open_ones += 1 if found[0] in "[{" else -1
        if not open_ones:
            return at
    return len(text)


def _end_of_text(text: str, at: int, depth: int) -> int:
    while (found := text.find('"', at)) >= 0:
        before = found - len(text[at:found].rstrip("\\")) - at
        if before < depth:
            return found - before
        if before % (2 * (depth + 1)) == depth:
            return found + 1
        at = found + 1
    return len(text)
