"""Elements and attributes of XML and HTML, whole or cut, which their names call a secret.

It reads tags alone and never fails: what is captured need not be well formed. The time is linear in the length.
"""

import re
from collections.abc import Callable
from html import escape, unescape
from typing import Final

from proxy.admin.effort import Effort
from proxy.admin.secretnames import is_secret
from proxy.redact import MASK

#: What may stand before a document.
BLANKS: Final = "\ufeff \t\r\n"
_QUOTED: Final = r""""[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)"""
_TAG: Final = re.compile(
    rf"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<(/?)([A-Za-z_][\w:.-]*+)((?:[^<>\"']++|{_QUOTED})*+)>?",
    re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(rf"(?<![\w:.-])([\w:.-]++)(\s*=\s*)({_QUOTED}|[^\s\"'<>=\\][^\s\"'<>=]*)")
_SECTION: Final = "<![CDATA["
#: An attribute or an element that tells the name of what stands beside it.
_NAMING: Final = frozenset({"name", "key", "property", "field"})
#: These tell it of the element's value alone: all of a page may have an id.
_MARKING: Final = frozenset({"id", "type"})
_VALUES: Final = frozenset({"value", "content"})
#: Elements of HTML that hold nothing (HTML section 13.1.2).
_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)


def is_document(text: str) -> bool:
    """Does markup begin it, as documents do?"""
    return text.lstrip(BLANKS).startswith("<")


def without_elements(text: str, inner: Callable[[str], str], effort: Effort) -> str:
    """`text` with `***` in the place of what elements and attributes hold that are called a secret.

    They are so by their own name, or by one beside them: `<input name="password" value="...">`,
    `<name>password</name><value>...</value>`. An element that nothing closes ends with the text where that is a
    document, else before the next tag. `inner` gives what may be shown of what the others hold.
    """
    effort.spend(text.count("<"))
    tags = list(_TAG.finditer(text))
    if not tags:
        return text
    ends = _ends(tags)
    is_whole = is_document(text)
    pieces: list[str] = []
    at, is_next = 0, False
    for number, tag in enumerate(tags):
        if tag.start() < at:
            continue
        effort.spend(3)
        pieces.append(_held(text[at : tag.start()], inner, effort))
        at = tag.end()
        if tag[2] is None or tag[1]:
            pieces.append(_section(tag[0], inner))
            continue
        name = _local(tag[2])
        given, is_called = _attributes(tag[3], inner, effort)
        pieces += [text[tag.start() : tag.start(3)], given, text[tag.end(3) : at]]
        is_called = is_called or is_secret(tag[2]) or is_next
        is_next = False
        if name in _VOID or tag[3].endswith("/"):
            continue
        following = tags[number + 1].start() if number + 1 < len(tags) else len(text)
        end = ends.get(number, len(text) if is_whole else following)
        if is_called and text[at:end].strip():
            pieces.append(MASK)
            at = end
        elif name in _NAMING:
            is_next = is_secret(text[at:following])
    return "".join([*pieces, _held(text[at:], inner, effort)])


def _held(text: str, inner: Callable[[str], str], effort: Effort, *, quote: bool = False) -> str:
    """What may be shown of a text in which characters may be written as entities."""
    effort.spend(text.count("&"))
    plain = unescape(text)
    shown = inner(plain)
    if shown == plain:
        return text
    return escape(shown, quote) if quote or plain != text else shown


def _section(tag: str, inner: Callable[[str], str]) -> str:
    """The same of CDATA, where they are not; other tags stay."""
    if not tag.startswith(_SECTION):
        return tag
    plain = tag[len(_SECTION) :].removesuffix("]]>")
    return _SECTION + inner(plain) + tag[len(_SECTION) + len(plain) :]


def _ends(tags: list[re.Match[str]]) -> dict[int, int]:
    """Where the content of each tag that is closed ends, by the tag's number."""
    ends: dict[int, int] = {}
    opened: dict[str, list[int]] = {}
    for number, tag in enumerate(tags):
        if tag[2] is None:
            continue
        if not tag[1]:
            if not tag[3].endswith("/"):
                opened.setdefault(tag[2], []).append(number)
        elif opened.get(tag[2]):
            ends[opened[tag[2]].pop()] = tag.start()
    return ends


def _local(name: str) -> str:
    """The name without the prefix of its namespace."""
    return name.rpartition(":")[2].lower()


def _attributes(given: str, inner: Callable[[str], str], effort: Effort) -> tuple[str, bool]:
    """The attributes, masked, and whether one of them calls what the element holds a secret."""
    if "=" not in given:
        return given, False
    effort.spend(4 * given.count("="))
    called = {_local(each[1]) for each in _ATTRIBUTE.finditer(given) if is_secret(each[3].strip("\"'"))}
    is_called, is_marked = bool(_NAMING & called), bool((_NAMING | _MARKING) & called)

    def shown(each: re.Match[str]) -> str:
        name, value = each[1], each[3]
        if is_secret(name) or (is_marked and _local(name) in _VALUES):
            return f'{name}{each[2]}"{MASK}"'
        held = value.strip(value[0]) if value[0] in "\"'" else value
        masked = _held(held, inner, effort, quote=True)
        return each[0] if masked == held else f'{name}{each[2]}"{masked}"'

    return _ATTRIBUTE.sub(shown, given), is_called
