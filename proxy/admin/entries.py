"""From what was noted of an exchange to what the inspector shows of it.

Law: what leaves here is masked (threat 82).
"""

import marshal
from collections.abc import Sequence
from typing import Any, Final

from proxy.accesslog import Exchange
from proxy.admin.bodies import body
from proxy.admin.fates import crossing
from proxy.admin.messages import Conversation
from proxy.admin.passed import own, passed
from proxy.admin.shown import Words, clean, fields, packed, path, query, reason, split, unpacked
from proxy.admin.why import why
from proxy.body import Piece
from proxy.fields import Field
from proxy.lines import timestamp
from proxy.notes import FullNotes, Sent
from proxy.redact import Redactor

#: The names of what is kept in tuples.
_REST: Final = ("why", "timing", "request", "attempts", "response", "messages")
_TIMING: Final = ("guard_ms", "token_wait_ms", "connect_ms", "first_byte_ms", "body_ms", "total_ms")
_REQUEST: Final = ("http", "fields", "body")
_ATTEMPT: Final = (
    *("at_ms", "upstream", "target", "generation", "connection", "connect_ms", "first_byte_ms", "fields"),
    *("status", "reason", "refused", "answer", "body", "error"),
)
_RESPONSE: Final = ("status", "fields", "body")


class Entry:
    """One exchange, masked: `summary` as in the list, and the rest of it.

    That is packed, which takes a third of the memory, and nothing for the collector to walk through: the request's
    fields, of each attempt (`crossing`), those of the answer that the client got (`passed`), which stand once
    however many exchanges have the same, and what is left.
    """

    __slots__ = ("_crossings", "_passed", "_rest", "summary")

    def __init__(
        self, summary: dict[str, Any], rest: tuple[Any, ...], crossings: tuple[str, ...], passed: str | None
    ) -> None:
        self.summary = summary
        self._rest = marshal.dumps(rest)
        self._crossings = crossings
        self._passed = passed

    @property
    def detail(self) -> dict[str, Any]:
        """All of it."""
        rest = _named(_REST, marshal.loads(self._rest))  # noqa: S302  ours, and never out of this process
        rest["timing"] = _named(_TIMING, rest["timing"])
        response = rest["response"] = _named(_RESPONSE, rest["response"])
        [response["fields"]] = unpacked(response["fields"])
        if rest["request"] is not None:
            request = rest["request"] = _named(_REQUEST, rest["request"])
            [request["fields"]] = unpacked(request["fields"])
        attempts = rest["attempts"] = [_named(_ATTEMPT, each) for each in rest["attempts"]]
        crossings = [unpacked(each) for each in self._crossings]
        if crossings:
            rest["request"]["fields"] = crossings[0][0]
        for attempt, (_came, went) in zip(attempts, crossings, strict=True):
            attempt["fields"] = went
            [attempt["answer"]] = unpacked(attempt["answer"])
        if self._passed is not None:
            attempts[-1]["answer"], response["fields"] = unpacked(self._passed)
        return {**self.summary, **rest}


def _named(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


class Scribe:
    """Writes entries, masked by `redactor`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._words = Words(redactor)

    def entry(
        self, exchange: Exchange, notes: FullNotes | None, at: float, seconds: float, *, live: bool, bodies: int
    ) -> Entry:
        """As it is `at` this instant, `seconds` after it began; `bodies`: bytes to keep of an answer of ours."""
        summary = self.summary(exchange, notes, at - seconds, seconds, live=live)
        said = None if notes is None else notes.messages
        answer = passed(exchange, notes, self._words)
        rest = (
            self._words.text(why(exchange, notes)),
            _timing(exchange, notes, seconds),
            self._request(notes),
            self._attempts(exchange, notes, has_passed=answer is not None),
            self._response(exchange, notes)
            if exchange.own is None
            else self._own(exchange, *exchange.own, bodies=bodies),
            said.shown() if isinstance(said, Conversation) else None,
        )
        return Entry(summary, rest, self._crossings(exchange, notes), answer)

    def summary(
        self, exchange: Exchange, notes: FullNotes | None, began_at: float, seconds: float, *, live: bool
    ) -> dict[str, Any]:
        """What stands in the list."""
        text = self._words.text
        return {
            "id": exchange.request_id,
            "number": exchange.number,
            "at": timestamp(began_at),
            "client": text(exchange.client),
            "method": text(exchange.method),
            "route": exchange.route or None,
            "path": path(exchange.path, self._words),
            "query": clean(query(exchange.query), self._words) if exchange.query else "",
            "status": exchange.status,
            "error": exchange.error or None,
            "ms": _ms(seconds),
            "token_wait_ms": _ms(exchange.token_wait),
            "upstream_ms": _ms(exchange.upstream_seconds),
            "bytes_in": exchange.bytes_in,
            "bytes_out": exchange.bytes_out,
            "credential": exchange.credential or None,
            "generation": exchange.generation,
            "retried": exchange.retried,
            "refusals": exchange.refusals,
            "kind": _kind(exchange, notes),
            "live": live,
        }

    def _request(self, notes: FullNotes | None) -> tuple[Any, ...] | None:
        """By `_REQUEST`; and so on."""
        if notes is None:
            return None
        section = notes.section
        return (
            f"1.{section.minor}",
            "" if notes.sent else packed(fields(section.fields, self._words)),
            None if notes.request_body is None else self._body(notes.request_body, section.fields),
        )

    def _crossings(self, exchange: Exchange, notes: FullNotes | None) -> tuple[str, ...]:
        if notes is None:
            return ()
        return tuple([crossing(notes, sent, exchange.credential, self._words) for sent in notes.sent])

    def _attempts(self, exchange: Exchange, notes: FullNotes | None, *, has_passed: bool) -> list[tuple[Any, ...]]:
        """`has_passed`: the client got the answer of the last one."""
        if notes is None:
            return []
        last = notes.sent[-1] if has_passed else None
        return [self._attempt(exchange, notes, sent, has_passed=sent is last) for sent in notes.sent]

    def _attempt(self, exchange: Exchange, notes: FullNotes, sent: Sent, *, has_passed: bool) -> tuple[Any, ...]:
        head = sent.head
        return (
            _ms(sent.began_at - exchange.started_at),
            None if notes.binding is None else notes.binding.upstream,
            self._target(sent),
            sent.generation or None,
            None if head is None else "kept" if sent.is_kept else "new",
            _ms(_connecting(sent)) if head is not None and sent.connected_at else None,
            None if head is None else _ms(_first_byte(sent)),
            None,
            None if head is None else head.status,
            None if head is None else reason(head.whole, self._words),
            sent.is_refused,
            "" if head is None or has_passed else packed(fields(head.fields, self._words)),
            None if sent.body is None or head is None else self._body(sent.body, head.fields),
            sent.error or None,
        )

    def _target(self, sent: Sent) -> str:
        given = sent.outgoing.query
        parts = [query(given)] if given else []
        parts += (b"%b=***" % place.name.encode() for place in sent.places if place.kind == "query")
        asked = "?" + clean(b"&".join(parts), self._words) if parts else ""
        return path(sent.outgoing.path, self._words) + asked

    def _response(self, exchange: Exchange, notes: FullNotes | None) -> tuple[Any, ...]:
        shown = None
        if notes is not None and notes.answer_body is not None:
            shown = self._body(notes.answer_body, split(notes.answer_lines))
        return exchange.status, "", shown

    def _own(self, exchange: Exchange, lines: bytes, said: bytes, *, bodies: int) -> tuple[Any, ...]:
        """An answer that the proxy made itself."""
        shown = None
        if bodies:
            piece = Piece(bodies)
            piece.see(said)
            shown = self._body(piece, split(lines))
        return exchange.status, packed(own(exchange, lines, self._words)), shown

    def _body(self, piece: Piece, given: Sequence[Field]) -> dict[str, Any]:
        """Of a message with these fields."""
        kind, encoding = (
            b", ".join(value for lower, value, _line in given if lower == name)
            for name in (b"content-type", b"content-encoding")
        )
        return body(piece, kind, encoding, self._redactor)


def _ms(seconds: float) -> float:
    # `round` to two places writes the number out in decimals, and reads it again.
    return int(seconds * 1e5 + 0.5) / 100


def _kind(exchange: Exchange, notes: FullNotes | None) -> str:
    if exchange.status == 101:
        return "websocket"
    return "sse" if notes is not None and notes.is_of_events else "http"


def _connecting(sent: Sent) -> float:
    """Seconds until there was a connection."""
    return sent.connected_at - sent.began_at if sent.connected_at else 0.0


def _first_byte(sent: Sent) -> float:
    """Seconds from then to the answer."""
    return sent.answered_at - (sent.connected_at or sent.began_at)


def _timing(exchange: Exchange, notes: FullNotes | None, seconds: float) -> tuple[float | None, ...]:
    """How the time was spent, in milliseconds, by `_TIMING`; None: it did not come to that."""
    guard = connect = first_byte = rest = None
    connecting, waiting, is_answered = 0.0, 0.0, False
    if notes is not None and notes.admitted_at:
        guard = _ms(notes.admitted_at - exchange.started_at)
        for sent in notes.sent:
            if sent.head is not None:
                is_answered = True
                connecting += _connecting(sent)
                waiting += _first_byte(sent)
    if notes is not None and is_answered:
        connect, first_byte = _ms(connecting), _ms(waiting)
        # Tokens are waited for before an attempt and behind it: what nothing else took is the body's.
        before = notes.admitted_at - exchange.started_at + exchange.token_wait + connecting + waiting
        last = notes.sent[-1].head
        rest = _ms(max(0.0, seconds - before)) if last is not None and last.status == exchange.status else None
    return (
        guard,
        _ms(exchange.token_wait) if exchange.credential else None,
        connect,
        first_byte,
        rest,
        _ms(seconds),
    )
