"""What became of each field of an upstream's answer: what passed, what stopped here, what was rewritten, and why.

Law: what the client got is read off the lines that went to it; only the reasons are worked out, by the rules of
`headers.answer_lines` in their order, once the exchange is written down.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.accesslog import Exchange
from proxy.admin.shown import ADDED, ANEW, DROPPED, REWRITTEN, Shown, Words, as_field, fields, packed, split
from proxy.fields import Field
from proxy.guard import Admission
from proxy.headers import FRAMING, HOP_BY_HOP, OUR_COOKIES
from proxy.http1.answer import CHUNKED, SWITCHED, UNTIL_CLOSE, AnswerHead
from proxy.http1.request import RequestSection
from proxy.notes import FullNotes
from proxy.reasons import CONNECTION_NAMES_IT, OF_THIS_CONNECTION
from proxy.rewrite import CORS, REFERENCES, STICKY, Rewriter

#: No body goes with it, and nothing is said of one.
_NO_CONTENT: Final = 204
_OWN: Final = f"{ADDED}the proxy's own answer"
_GRANTS: Final = b"access-control-"
_SWITCHED: Final = (
    (b"connection", b"Upgrade", b"Connection: Upgrade"),
    (b"upgrade", b"websocket", b"Upgrade: websocket"),
)
_IN_CHUNKS: Final = ((b"transfer-encoding", b"chunked", b"Transfer-Encoding: chunked"),)


class Passed:
    """The upstream's answer that the client got: `head` as it came, `lines` and `framing` as they went on."""

    __slots__ = ("admission", "framing", "head", "lines", "rewriter")

    def __init__(
        self,
        head: AnswerHead,
        lines: list[bytes],
        framing: Sequence[Field],
        rewriter: Rewriter,
        admission: Admission,
    ) -> None:
        self.head = head
        self.lines = lines
        self.framing = framing
        self.rewriter = rewriter
        self.admission = admission

    def shown(self, words: Words) -> tuple[list[Shown], list[Shown]]:
        """The fields as the upstream sent them, and as the client got them; of each that did not just pass why."""
        went = set(self.lines)
        framed = fields(self.framing, words)
        came: list[Shown] = []
        # What just passed, by its line, and those lines that are there once more.
        passed: dict[bytes, Shown] = {}
        more: list[bytes] = []
        for each in self.head.fields:
            shown, line = words.field(each), each[2]
            if line in went and not self._is_ours_to_grant(each[0]):
                if line in passed:
                    more.append(line)
                passed[line] = shown
            elif (fate := self._fate(each, went)) is not None:
                shown = shown.so(fate)
            came.append(shown)
        gone: list[Shown] = []
        for line in self.lines:
            there = passed.get(line)
            gone.append(self._made(line, words) if there is None else there)
            if line in more:
                more.remove(line)
            elif there is not None:
                del passed[line]
        gone += [Shown(each.name, each.text, None if each.name == "Content-Length" else ANEW) for each in framed]
        return came, gone

    def _made(self, line: bytes, words: Words) -> Shown:
        """A line that the client got, and the upstream did not send, or not so."""
        given = as_field(line)
        return words.field(given).so(self._why_there(given[0]))

    def _is_ours_to_grant(self, lower: bytes) -> bool:
        return self.rewriter.cors and lower.startswith(_GRANTS)

    def _fate(self, given: Field, went: set[bytes]) -> str | None:
        """What became of a field that the client did not get so; None: it passed."""
        lower, value, _line = given
        if self._is_ours_to_grant(lower):
            return f"{DROPPED}rewrite.cors of the route: such grants are the proxy's to give"
        if lower in FRAMING or lower in HOP_BY_HOP:
            return self._fate_of_framing(lower)
        if lower in self.head.options:
            return DROPPED + CONNECTION_NAMES_IT
        if lower == b"set-cookie" and value.lower().lstrip(b"= \t").startswith(OUR_COOKIES):
            return f"{DROPPED}cookies of this name are the proxy's own"
        rewritten = self._rewritten(given, went) if lower in self.rewriter.names else None
        # All other rules let it pass.
        return rewritten or f"{DROPPED}the token stands in it"

    def _fate_of_framing(self, lower: bytes) -> str | None:
        is_there = any(lower == name for name, _value, _line in self.framing)
        if lower == b"content-length":
            return None if is_there else f"{DROPPED}this answer has no body"
        return ANEW if is_there else DROPPED + OF_THIS_CONNECTION

    def _rewritten(self, given: Field, went: set[bytes]) -> str | None:
        """What the route's `rewrite` did; None: it let it pass, or what it made of it went nowhere."""
        lower, value, line = given
        if lower in STICKY:
            return f"{DROPPED}{_rule(lower)}: browsers would hold it against all that this host serves"
        if len(self.head.values[lower]) == sum(as_field(each)[0] == lower for each in self.lines):
            return REWRITTEN + _rule(lower)  # none of them stopped
        own_origin, key_prefix = self.admission.visitor.own_origin, self.admission.key_prefix
        crossing = self.rewriter.value(lower, value, own_origin=own_origin, key_prefix=key_prefix)
        if crossing is None:
            return f"{DROPPED}{_rule(lower)}: no path of this route would get it back"
        return REWRITTEN + _rule(lower) if b"%b: %b" % (line[: len(lower)], crossing) in went else None

    def _why_there(self, lower: bytes) -> str:
        """Of a line that the upstream did not send, or not so."""
        if lower in CORS or lower == b"vary":
            return f"{ADDED}rewrite.cors of the route: the proxy's own grant"
        if lower == b"proxy-status":
            return f"{ADDED}what the proxy says of the refused token"
        return REWRITTEN + _rule(lower)


def passed(exchange: Exchange, notes: FullNotes | None, words: Words) -> str | None:
    """The fields of the answer that the client got, where it was an upstream's, as in `Passed.shown`.

    Packed, and the same text where it is the same: a server sends the same head again and again.
    """
    if notes is None or not notes.sent or notes.binding is None or notes.admission is None or exchange.own:
        return None
    head, lines = notes.sent[-1].head, notes.answer_lines
    if head is None or exchange.status != head.status or (exchange.error and not lines):
        return None
    rewriter, visitor, key_prefix = notes.binding.rewriter, notes.admission.visitor, notes.admission.key_prefix
    way = (rewriter, visitor.own_origin, key_prefix, exchange.method, notes.section.minor)
    key = (words.edition, lines, exchange.connection, way)
    kept: tuple[object, str] | None = head.shown
    if kept is not None and kept[0] == key:
        return kept[1]
    framing = (*_framing(head, exchange.method, notes.section), *split(exchange.connection))
    answer = Passed(head, lines.split(b"\r\n")[:-1], framing, rewriter, notes.admission)
    found = packed(*answer.shown(words))
    head.shown = (key, found)
    return found


def own(exchange: Exchange, lines: bytes, words: Words) -> list[Shown]:
    """The fields of an answer that the proxy made itself."""
    found = fields(split(lines + exchange.connection), words)
    return [each.so(_OWN) for each in found]


def _framing(head: AnswerHead, method: str, section: RequestSection) -> Iterable[Field]:
    """How the body was framed for the client (`delivery.deliver`), or that the connection became a tunnel."""
    framing = head.framing(asked_by_head=method == "HEAD")
    if framing == SWITCHED:
        return _SWITCHED
    if framing in (CHUNKED, UNTIL_CLOSE):
        return _IN_CHUNKS if section.minor else ()
    if head.length is None or head.status == _NO_CONTENT:
        return ()
    length = b"%d" % head.length
    return ((b"content-length", length, b"Content-Length: %b" % length),)


def _rule(lower: bytes) -> str:
    """The switch by which a field is rewritten or stops."""
    if lower in REFERENCES:
        return "rewrite.location of the route"
    return f"rewrite.{'cookies' if lower == b'set-cookie' else 'hsts'} of the route"
