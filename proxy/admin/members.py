"""What a body's own names call a secret: passwords and tokens, the client's and the upstream's alike.

Nothing here knows a value; it is the names that tell. A text may stand in another one, in other words: each such
layer is taken off and looked at, and what has too many of them is masked. The time is linear in the length of the
text and in the number of layers.
"""

import json
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from html import unescape
from typing import Final
from urllib.parse import unquote, unquote_plus

from proxy.admin.markup import BLANKS, is_document, without_elements
from proxy.admin.secretnames import is_secret, secret_words
from proxy.redact import MASK

#: JSON in a form in JSON is seen; more has no use.
_LAYERS: Final = 5
#: Without one of the first nothing is said in other words, without one of these no name has a value.
_CODED: Final = re.compile(r"[\\%&]")
_SIGNED: Final = re.compile(r"[\\%&:=<]")
_FORM: Final = re.compile(r"""[^\s=&<>{}"']++=[^\s<>{}"']*+""")

# -- JSON (RFC 8259), whole or cut
_INNER: Final = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_CLOSING: Final = r'"|\\?\Z'
_TEXT: Final = f'"{_INNER}(?:{_CLOSING})'
_STRING: Final = re.compile(f'"({_INNER})({_CLOSING})', re.DOTALL)
_COLON: Final = re.compile(r"\s*:\s*")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.)|\Z)", re.DOTALL)
_WORDS_OF_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUMBER: Final = re.compile(r"-?[0-9][^\s,}\]]*")
_BRACKETS: Final = re.compile(rf"[\[\]{{}}]|{_TEXT}", re.DOTALL)
#: A name and a value that are members of one object.
_FLAT: Final = re.compile(r"\{[^{}]*+\}?")
_NAMED: Final = re.compile(r'"(?:name|key|field|header|param|id|type)"\s*:\s*"([^"\\]*)"', re.IGNORECASE)
_VALUED: Final = re.compile(
    rf'("(?:value|val|content|data)"\s*:\s*)(?:{_TEXT}|-?[0-9][^\s,}}]*)',
    re.IGNORECASE | re.DOTALL,
)

# -- everything else: a name, a sign, a value
_QUOTE: Final = r"""["']|&(?:quot|apos|#0*3[49]|#x0*2[27]);"""
#: What may follow the word up to the value.
_SIGN: Final = re.compile(rf"""([\w.\[\]-]{{0,64}})(?:\\|{_QUOTE})*+\s*+[:=]{{1,3}}>?\s*+""", re.IGNORECASE)
_OPENING: Final = re.compile(rf"(\\*+)({_QUOTE})", re.IGNORECASE)
_MASKED: Final = re.compile(rf"\\*+(?:{_QUOTE})?{re.escape(MASK)}", re.IGNORECASE)
_NOTHING: Final = re.compile(r"(?:null|none|nil|true|false|undefined)\b", re.IGNORECASE)
#: A key file, and a YAML scalar of several lines (YAML 1.2.2, section 8.1).
_BLOCK: Final = re.compile(
    r"-----BEGIN.*?(?:-----END[^\n-]*-----|\Z)|[|>][-+0-9]{0,2}[\x20\t]*\r?\n(?:(?:[\x20\t]+[^\n]*)?(?:\n|\Z))++",
    re.DOTALL,
)
_WORD: Final = re.compile(r"""(?:(?:bearer|basic|digest|token|negotiate)\s+)?[^\s"'&,;<>}]*""", re.IGNORECASE)
_LINE: Final = re.compile(r"[^\r\n<&]*")
_NAME_BEGINS: Final = re.compile(r"[\w-]+\Z")
_NAME_BEGINNING_MOST: Final = 32
_LINE_BEGINS: Final = re.compile(r"(?:\A|[\r\n])[\x20\t]*(?:export\x20|-\x20)?[\w.-]*\Z")
_LINE_BEGINNING_MOST: Final = 80
_RUN: Final = re.compile(r"""[^<>"'\r\n]+""")

# -- parts (RFC 2046, RFC 7578)
_PARTS: Final = re.compile(r"(?<!-)(--[^\s]{1,200})\r?\ncontent-", re.IGNORECASE)
_BLANK_LINE: Final = re.compile(r"\r?\n\r?\n")
_READABLE_PARTS: Final = frozenset({"", "7bit", "8bit", "binary"})


def without_members(text: str, content_type: bytes = b"") -> str:
    """`text` with `***` in the place of what its names call a secret: in JSON, forms, parts, XML and lines."""
    kind = Message()
    kind["content-type"] = content_type.decode("latin-1")
    return _typed(text, kind, _LAYERS)


def _typed(text: str, kind: Message, layers: int) -> str:
    if kind.get_content_maintype() == "multipart":
        boundary = kind.get_boundary()
        mark = f"--{boundary}" if boundary else text.lstrip().partition("\n")[0].strip()
        return _parts(text, mark, layers) if mark else text
    # A client that was told nothing else calls JSON a form, as curl does.
    if "urlencoded" in kind.get_content_type() and text.lstrip(BLANKS)[:1] not in ("{", "[", "<", '"'):
        return _form(text, layers)
    return _clean(text, layers)


def _parts(text: str, mark: str, layers: int) -> str:
    # A boundary has a line of its own (RFC 2046 section 5.1.1).
    parts = re.split(rf"(?m:^){re.escape(mark)}(?m:(?=(?:--)?[\x20\t]*\r?$))", text)
    return mark.join(_part(part, layers) for part in parts)


def _part(part: str, layers: int) -> str:
    """One part, from the boundary before it to the next."""
    blank = _BLANK_LINE.search(part)
    if blank is None:
        return _clean(part, layers)
    head, value = part[: blank.start()], part[blank.end() :]
    fields = Parser().parsestr(head.lstrip(), headersonly=True)
    is_readable = str(fields.get("content-transfer-encoding", "")).strip().lower() in _READABLE_PARTS
    if is_secret(head) or "=?" in head or not is_readable:
        return f"{head}{blank[0]}{MASK}\r\n"
    return _clean(head, layers - 1) + blank[0] + _typed(value, fields, layers - 1)


def _clean(text: str, layers: int) -> str:
    if _SIGNED.search(text) is None or (_CODED.search(text) is None and next(secret_words(text), None) is None):
        return text
    if layers <= 0:
        return MASK
    if _FORM.fullmatch(text):
        return _form(text, layers)
    if is_document(text):
        text = without_elements(text, lambda inner: _clean(inner, layers - 1))
    if (parts := _PARTS.search(text)) is not None:
        before, rest = text[: parts.start()], text[parts.start() :]
        return _clean(before, layers - 1) + _parts(rest, parts[1], layers - 1)
    text = "".join(_json(_FLAT.sub(_pair, text), layers))
    # In other texts a tag may stand within a string, whose escapes are its own.
    if "<" in text:
        text = without_elements(text, lambda inner: _clean(inner, layers - 1))
    return _plain(text)


def _form(text: str, layers: int) -> str:
    return "&".join(_form_member(member, layers) for member in text.split("&"))


def _form_member(member: str, layers: int) -> str:
    name, equals, value = member.partition("=")
    if equals and is_secret(name.rpartition("?")[2]):
        return f"{name}={MASK}" if value else member
    plain = unquote_plus(value if equals else member)
    if _clean(plain, layers - 1) == plain:
        return member
    return f"{name}={MASK}" if equals else MASK


# -- JSON


def _pair(found: re.Match[str]) -> str:
    """An object without objects in it: {"name": "password", "value": ...}."""
    text = found[0]
    if any(is_secret(named[1]) for named in _NAMED.finditer(text)):
        return _VALUED.sub(rf'\1"{MASK}"', text)
    return text


def _json(text: str, layers: int) -> Iterator[str]:
    """Of JSON, or what looks like it, the members with their values, and in the other texts what is in them."""
    at = 0
    for string in _STRING.finditer(text):
        if string.start() < at:
            continue
        inner = _unescaped(string[1])
        colon = _COLON.match(text, string.end()) if string[2] == '"' else None
        if colon is None:
            cleaned = _clean(inner, layers - 1)
            if cleaned != inner:
                yield _runs(text[at : string.start()], layers)
                yield f'"{_escaped(cleaned)}{string[2][-1:]}'
                at = string.end()
        elif is_secret(inner) and (end := _end_of_value(text, colon.end())) > colon.end():
            yield _runs(text[at : string.start()], layers)
            yield f'{text[string.start() : colon.end()]}"{MASK}"'
            at = end
    yield _runs(text[at:], layers)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


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
        return string.end()
    if text.startswith(("[", "{"), start):
        return _end_of_brackets(text, start)
    number = _NUMBER.match(text, start)
    return start if number is None else number.end()


def _end_of_brackets(text: str, start: int) -> int:
    open_ones = 0
    for found in _BRACKETS.finditer(text, start):
        if found[0][0] != '"':
            open_ones += 1 if found[0] in "[{" else -1
            if not open_ones:
                return found.end()
    return len(text)


# -- everything else


def _runs(text: str, layers: int) -> str:
    """What stands between the strings: percent-encoded, or with the entities of XML."""
    if "%" not in text and "&" not in text:
        return text
    return _RUN.sub(lambda run: _run(run[0], layers), text)


def _run(run: str, layers: int) -> str:
    known = _plain(run)
    plain = unquote(unescape(known))
    return run if plain == known or _clean(plain, layers - 1) == plain else MASK


def _plain(text: str) -> str:
    """Names with a sign and a value behind them, wherever they stand."""
    pieces, at = [], 0
    for begin, end_of_word in secret_words(text):
        sign = _SIGN.match(text, end_of_word) if begin >= at else None
        if sign is None or _MASKED.match(text, sign.end()) or _NOTHING.match(text, sign.end()):
            continue
        before = _NAME_BEGINS.search(text, max(0, begin - _NAME_BEGINNING_MOST), begin)
        if not is_secret(text[before.start() if before else begin : sign.end(1)]):
            continue
        start = sign.end()
        end, quote = _end_of_plain(text, begin, start)
        if end > start:
            pieces += [text[at:start], quote, MASK, quote]
            at = end
    return "".join([*pieces, text[at:]])


def _end_of_plain(text: str, name: int, start: int) -> tuple[int, str]:
    """Where the value that begins at `start` is over, and what stood around it; `name`: where its name begins."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        return _end_of_quoted(text, opening), opening[0]
    block = _BLOCK.match(text, start)
    if block is not None:
        return block.end(), ""
    if text.startswith(("[", "{"), start):
        return _end_of_brackets(text, start), ""
    is_line = _LINE_BEGINS.search(text[max(0, name - _LINE_BEGINNING_MOST) : name])
    found = (_LINE if is_line else _WORD).match(text, start)
    return (found.end() if found else start), ""


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """The end of a text in quotes that have backslashes before them; one with fewer ends the text around it."""
    depth, at = len(opening[1]), opening.end()
    while (found := text.find(opening[2], at)) >= 0:
        before = found - len(text[at:found].rstrip("\\")) - at
        if before < depth:
            return found - before
        if before % (2 * (depth + 1)) == depth:
            return found + len(opening[2])
        at = found + 1
    return len(text)
