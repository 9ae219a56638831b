"""Names with a sign and a value behind them, in lines, YAML, forms, programs, and whatever is nearly one of these.

It looks for names alone and never fails. The time is linear in the length.
"""

import re
from collections.abc import Iterator
from typing import Final

from proxy.admin.effort import Effort
from proxy.admin.secretnames import has_words, is_secret, lower, secret_words
from proxy.redact import MASK

_QUOTE: Final = r"""["']|&(?:quot|apos|#0*3[49]|#x0*2[27]);"""
#: What may follow the word up to the value.
_SIGN: Final = re.compile(rf"""([\w.\[\]-]{{0,64}}+)(?:\\|{_QUOTE})*+\s*+[:=]{{1,3}}>?\s*+""", re.IGNORECASE)
_OPENING: Final = re.compile(rf"(\\*+)({_QUOTE})", re.IGNORECASE)
_MASKED: Final = re.compile(rf"\\*+(?:{_QUOTE})?{re.escape(MASK)}", re.IGNORECASE)
_NOTHING: Final = re.compile(r"(?:null|none|nil|true|false|undefined)\b", re.IGNORECASE)
#: A key file, and a YAML scalar of several lines (YAML 1.2.2, section 8.1).
_BLOCK: Final = re.compile(
    r"-----BEGIN.*?(?:-----END[^\n-]*-----|\Z)|[|>][-+0-9]{0,2}[\x20\t]*\r?\n(?:(?:[\x20\t]+[^\n]*)?(?:\n|\Z))++",
    re.DOTALL,
)
_WORD: Final = re.compile(r"""(?:(?:bearer|basic|digest|token|negotiate)\s+)?[^\s"'&,;<>}]*+""", re.IGNORECASE)
_LINE: Final = re.compile(r"[^\r\n<&]*+")
_NEXT_LINE: Final = re.compile(r"\s*[\r\n]([\x20\t]*+)([^\r\n]++)")
_BRACKETS: Final = re.compile(r'[\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NAME_BACKWARDS: Final = re.compile(r"[\w-]*+")
_NAME_BEGINNING_MOST: Final = 32
_LINE_BEGINS: Final = re.compile(r"(?:\A|[\r\n])([\x20\t]*(?:export\x20|-\x20)?)[\w.-]*\Z")
_LINE_BEGINNING_MOST: Final = 80

#: Names whose value is the name of something, and names of its value. The last ones hold all kinds of things, so
#: of these texts and numbers are meant alone.
NAMING: Final = frozenset({"name", "key", "header", "field", "param", "id", "type"})
HOLDING: Final = frozenset({"value", "values", "val", "content", "data"})
_HOLDING_MUCH: Final = frozenset({"content", "data"})
_OPENED: Final = ("{", "[")
#: What these belong to together: an object, an item of a list in YAML, a tag, what empty lines part.
_RECORDS: Final = re.compile(
    r"\{|\}|<(?=[a-z/!])|\n[\x20\t]*(?:-\x20|\r?(?=\n))|"
    + "|".join(f"{word[0]}(?<![a-z0-9]{word[0]}){word[1:]}(?![a-z0-9_-])" for word in sorted(NAMING | HOLDING))
)
_CALLED: Final = re.compile(rf"""\"([^\"\\]*+)\"|(?:\\|{_QUOTE})*+([\w./\[\]\x20-]{{0,64}})""", re.IGNORECASE)

#: A name that calls its value a secret: where it begins and ends, and where the value begins.
_Place = tuple[int, int, int]


def without_assignments(text: str, effort: Effort) -> str:
    """`text` with `***` in the place of what belongs to a name that calls it a secret, wherever that stands."""
    if not has_words(text):
        return text
    pieces, at = [], 0
    for begin, end_of_name, start in sorted([*_assigned(text, effort), *_paired(text, effort)]):
        if begin < at or _MASKED.match(text, start) or _NOTHING.match(text, start):
            continue
        effort.spend(3)
        end, quote = _end_of_value(text, begin, start)
        if end > start:
            # What is a number in JSON becomes a text.
            quote = quote or ('"' if text.startswith('"', end_of_name) else "")
            pieces += [text[at:start], quote, MASK, quote]
            at = end
    return "".join([*pieces, text[at:]])


def _assigned(text: str, effort: Effort) -> Iterator[_Place]:
    """`password: value`"""
    for begin, end_of_word in secret_words(text):
        effort.spend(9)
        sign = _SIGN.match(text, end_of_word)
        if sign is not None:
            before = _NAME_BACKWARDS.match(text[max(0, begin - _NAME_BEGINNING_MOST) : begin][::-1])
            if is_secret(text[begin - (before.end() if before else 0) : sign.end(1)]):
                yield begin, sign.end(1), sign.end()


class _Record:
    """What was seen of one: the words in it, whether it is about a secret, and where its values are."""

    __slots__ = ("is_secret", "values", "words")

    def __init__(self) -> None:
        self.words: set[str] = set()
        self.is_secret = False
        self.values: list[_Place] = []

    def add(self, word: str, text: str, place: _Place) -> None:
        """A member of it."""
        self.words.add(word)
        _, end_of_name, start = place
        if word in NAMING:
            called = _CALLED.match(text, start)
            self.is_secret = self.is_secret or (called is not None and is_secret(called[1] or called[2] or ""))
        elif word not in _HOLDING_MUCH or not (
            text[start : start + 1] in _OPENED or "\n" in text[end_of_name:start]
        ):
            self.values.append(place)


def _paired(text: str, effort: Effort) -> Iterator[_Place]:
    """`name: password, value: value`, in either order and with others between them."""
    records = [_Record()]
    for found in _RECORDS.finditer(lower(text)):
        effort.spend(1)
        word = found[0]
        sign = _SIGN.match(text, found.end()) if word[0].isalpha() else None
        if word == "{":
            records.append(_Record())
            continue
        # In braces neither a line nor a word that comes again begins another one.
        if word == "}" or (len(records) == 1 and (not word[0].isalpha() or (sign and word in records[0].words))):
            yield from _values(records.pop())
            records = records or [_Record()]
        if sign is not None and not _is_coded(text, sign):
            effort.spend(3)
            records[-1].add(word, text, (found.start(), found.end(), sign.end()))
    for record in records:
        yield from _values(record)


def _is_coded(text: str, sign: re.Match[str]) -> bool:
    """Are the quotes entities still? Where they are read as quotes it can be told what is in them."""
    opening = _OPENING.match(text, sign.end())
    return "&" in sign[0] or (opening is not None and "&" in opening[2])


def _values(record: _Record) -> list[_Place]:
    return record.values if record.is_secret else []


def end_of_brackets(text: str, start: int) -> int:
    """Where what the bracket at `start` opens is over; what is cut ends with the text."""
    open_ones = 0
    for found in _BRACKETS.finditer(text, start):
        if found[0][0] != '"':
            open_ones += 1 if found[0] in "[{" else -1
            if not open_ones:
                return found.end()
    return len(text)


def _end_of_value(text: str, name: int, start: int) -> tuple[int, str]:
    """Where the value that begins at `start` is over, and what stood around it; `name`: where its name begins."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        return _end_of_quoted(text, opening), opening[0]
    block = _BLOCK.match(text, start)
    if block is not None:
        return block.end(), ""
    if text.startswith(_OPENED, start):
        return end_of_brackets(text, start), ""
    line = _LINE_BEGINS.search(text[max(0, name - _LINE_BEGINNING_MOST) : name])
    if line is not None:
        return _end_of_lines(text, start, len(line[1])), ""
    found = _WORD.match(text, start)
    return (found.end() if found else start), ""


def _end_of_lines(text: str, start: int, column: int) -> int:
    """The end of a line and of those below that belong to it in YAML (1.2.2, sections 6.1 and 8.2.1).

    These are indented deeper than the name, which begins at `column`, or are items of one list.
    """
    first = _LINE.match(text, start)
    end = first.end() if first else start
    while end > start and (line := _NEXT_LINE.match(text, end)) is not None:
        is_item = len(line[1]) == column and text.startswith("- ", start) and line[2].startswith("- ")
        if len(line[1]) <= column and not is_item:
            break
        end = line.end()
    return end


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
