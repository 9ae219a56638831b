"""What a body's own names call a secret: passwords and tokens, the client's and the upstream's alike.

Nothing here knows a value; it is the names that tell. A text may stand in another one, in other words: each such
layer is taken off and looked at, and what has too many of them is masked. The time is linear in the length of the
text and in the number of layers.
"""

import re
from email.message import Message
from email.parser import Parser
from typing import Final
from urllib.parse import unquote_plus

from proxy.admin.assignments import HOLDING, NAMING, without_assignments
from proxy.admin.effort import Effort
from proxy.admin.markup import BLANKS, is_document, without_elements
from proxy.admin.quoted import without_strings
from proxy.admin.secretnames import has_words, is_secret, without_userinfo
from proxy.redact import MASK

#: JSON in a form in JSON is seen; more has no use.
_LAYERS: Final = 5
#: Without one of the first nothing is said in other words, without one of these no name has a value.
_CODED: Final = re.compile(r"[\\%&]")
_SIGNED: Final = re.compile(r"[\\%&:=<]")
_FORM: Final = re.compile(r"""[^\s=&<>{}"']++=[^\s<>{}"']*+""")

# -- parts (RFC 2046, RFC 7578)
_PART_BEGINS: Final = re.compile(r"\r?\ncontent-", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r"(?<!-)--\S{1,200}+\Z")
_BOUNDARY_MOST: Final = 203
_BLANK_LINE: Final = re.compile(r"\r?\n\r?\n")
#: What the head of one costs.
_PART: Final = 64
_READABLE_PARTS: Final = frozenset({"", "7bit", "8bit", "binary"})


def without_members(text: str, content_type: bytes = b"", effort: Effort | None = None) -> str:
    """`text` with `***` in the place of what its names call a secret: in JSON, forms, parts, XML and lines.

    Raises `TooMuchError` where that is more work than `effort` allows.
    """
    kind = Message()
    kind["content-type"] = content_type.decode("latin-1")
    return _Layer(_LAYERS, effort or Effort()).typed(text, kind)


class _Layer:
    """Says what may be shown of texts that are so many layers away from the last one that is looked at."""

    def __init__(self, number: int, effort: Effort) -> None:
        self._effort = effort
        self._is_last = not number
        self._inner = _Layer(number - 1, effort) if number else self
        #: The same text is met by several ways, and some come often.
        self._known: dict[str, str] = {}

    def inner(self, text: str) -> str:
        """What may be shown of a text that stands in one of this layer."""
        return self._inner.clean(text)

    def typed(self, text: str, kind: Message) -> str:
        """The same of a text of this type, in this layer."""
        if kind.get_content_maintype() == "multipart":
            boundary = kind.get_boundary()
            mark = f"--{boundary}" if boundary else text.lstrip().partition("\n")[0].strip()
            return self.parts(text, mark) if mark else text
        # A client that was told nothing else calls JSON a form, as curl does.
        if "urlencoded" in kind.get_content_type() and text.lstrip(BLANKS)[:1] not in ("{", "[", "<", '"'):
            return self._form(text)
        return self.clean(text)

    def clean(self, text: str) -> str:
        """The same of a text of no type."""
        if _SIGNED.search(text) is None:
            return text
        shown = self._known.get(text)
        if shown is None:
            self._effort.spend(1, len(text))
            shown = self._known[text] = self._cleaned(text)
        return shown

    def _cleaned(self, text: str) -> str:
        self._effort.spend(2 * text.count("://"))
        text = without_userinfo(text)
        if _CODED.search(text) is None and not has_words(text):
            return text
        if self._is_last:
            return MASK
        if _FORM.fullmatch(text):
            return self._form(text)
        if is_marked_up := is_document(text):
            text = without_elements(text, self.inner, self._effort)
        if (span := self._first_boundary(text)) is not None:
            start, end = span
            return self.inner(text[:start]) + self._inner.parts(text[start:], text[start:end])
        text = without_strings(text, self.inner, self._effort)
        # In other texts a tag may stand within a string, whose escapes are its own.
        if "<" in text and not is_marked_up:
            text = without_elements(text, self.inner, self._effort)
        return without_assignments(text, self._effort)

    # -- parts

    def _first_boundary(self, text: str) -> tuple[int, int] | None:
        """Where the first part is in a text that nothing else calls parts: the boundary before it."""
        for found in _PART_BEGINS.finditer(text):
            self._effort.spend(8)
            end = found.start()
            if (boundary := _BOUNDARY.search(text[max(0, end - _BOUNDARY_MOST) : end])) is not None:
                return end - len(boundary[0]), end
        return None

    def parts(self, text: str, mark: str) -> str:
        """What may be shown of parts that `mark` is between."""
        # A boundary has a line of its own (RFC 2046 section 5.1.1).
        parts = re.split(rf"(?m:^){re.escape(mark)}(?m:(?=(?:--)?[\x20\t]*\r?$))", text)
        return mark.join(map(self._part, parts))

    def _part(self, part: str) -> str:
        """One part, from the boundary before it to the next."""
        self._effort.spend(_PART, len(part))
        blank = _BLANK_LINE.search(part)
        if blank is None:
            return self.clean(part)
        head, value = part[: blank.start()], part[blank.end() :]
        fields = Parser().parsestr(head.lstrip(), headersonly=True)
        is_readable = str(fields.get("content-transfer-encoding", "")).strip().lower() in _READABLE_PARTS
        if self._is_last or is_secret(head) or "=?" in head or not is_readable:
            return f"{head}{blank[0]}{MASK}\r\n"
        return self.inner(head) + blank[0] + self._inner.typed(value, fields)

    # -- forms

    def _form(self, text: str) -> str:
        self._effort.spend(4 * text.count("&"), len(text))
        members = text.split("&")
        is_paired = any(map(_names_a_secret, members))
        return "&".join(self._form_member(member, is_paired=is_paired) for member in members)

    def _form_member(self, member: str, *, is_paired: bool) -> str:
        self._effort.spend(2 * ("%" in member) + member.count("%"))
        name, equals, value = member.partition("=")
        if equals and (is_secret(name.rpartition("?")[2]) or (is_paired and _last_word(name) in HOLDING)):
            return f"{name}={MASK}" if value else member
        plain = unquote_plus(value if equals else member)
        if self.inner(plain) == plain:
            return member
        return f"{name}={MASK}" if equals else MASK


def _names_a_secret(member: str) -> bool:
    """`name=password`, which calls what is beside it a secret."""
    name, _, value = member.partition("=")
    return _last_word(name) in NAMING and is_secret(value)


def _last_word(name: str) -> str:
    """`value` of `rows[0][value]`, which may be percent-encoded."""
    return re.split(r"[\[.?]", unquote_plus(name.lower()).rstrip("]"))[-1]
