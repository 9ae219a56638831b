"""From what was noted of an exchange to what the inspector shows of it.

Law: what leaves here is masked (threat 82).
"""

import json
from dataclasses import dataclass, field
from typing import Any

from proxy.accesslog import Exchange
from proxy.admin import fates, shown
from proxy.admin.bodies import body
from proxy.admin.messages import Conversation
from proxy.admin.passed import Passed, own, passed
from proxy.admin.why import why
from proxy.body import Piece
from proxy.lines import timestamp
from proxy.notes import FullNotes, Sent
from proxy.redact import Redactor


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange, masked: `summary` as in the list, `detail` all of it as JSON."""

    summary: dict[str, Any]
    detail: bytes = field(repr=False)


class Scribe:
    """Writes entries, masked by `redactor`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._words = shown.Words(redactor)

    def entry(
        self, exchange: Exchange, notes: FullNotes | None, at: float, seconds: float, *, live: bool, bodies: int
    ) -> Entry:
        """As it is `at` this instant, `seconds` after it began; `bodies`: bytes to keep of an answer of ours."""
        summary = self.summary(exchange, notes, at - seconds, seconds, live=live)
        said = None if notes is None else notes.messages
        home = passed(exchange, notes)
        detail = {
            **summary,
            "why": self._words.text(why(exchange, notes)),
            "timing": _timing(exchange, notes, seconds),
            "request": self._request(notes),
            "attempts": []
            if notes is None
            else [self._attempt(exchange, notes, sent, home) for sent in notes.sent],
            "response": self._response(exchange, notes, home)
            if exchange.own is None
            else self._own(exchange, *exchange.own, bodies=bodies),
            "messages": said.shown() if isinstance(said, Conversation) else None,
        }
        return Entry(summary, json.dumps(detail).encode())

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
            "path": shown.path(exchange.path, self._words),
            "query": shown.clean(shown.query(exchange.query), self._words) if exchange.query else "",
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

    def _request(self, notes: FullNotes | None) -> dict[str, Any] | None:
        if notes is None:
            return None
        section = notes.request.section
        kind, encoding = (
            b", ".join(section.values.get(name, ())) for name in (b"content-type", b"content-encoding")
        )
        return {
            "http": f"1.{section.minor}",
            "fields": fates.asked(notes, self._words),
            "body": body(notes.request_body, kind, encoding, self._redactor),
        }

    def _attempt(self, exchange: Exchange, notes: FullNotes, sent: Sent, home: Passed | None) -> dict[str, Any]:
        outgoing, head = sent.outgoing, sent.head
        target = shown.path(outgoing.path, self._words)
        query = b"&".join(
            part
            for part in (
                shown.query(outgoing.query) if outgoing.query else b"",
                *(b"%b=***" % place.name.encode() for place in sent.places if place.kind == "query"),
            )
            if part
        )
        return {
            "at_ms": _ms(sent.began_at - exchange.started_at),
            "upstream": str(notes.binding.route.upstream) if notes.binding is not None else None,
            "target": target + ("?" + shown.clean(query, self._words) if query else ""),
            "generation": sent.generation or None,
            "connection": None if head is None else "kept" if sent.is_kept else "new",
            "connect_ms": _ms(_connecting(sent)) if head is not None and sent.connected_at else None,
            "first_byte_ms": None if head is None else _ms(_first_byte(sent)),
            "fields": fates.outgoing(notes, sent, exchange.credential, self._words),
            "status": None if head is None else head.status,
            "reason": None if head is None else shown.reason(head.whole, self._words),
            "refused": sent.is_refused,
            "answer": self._answer(sent, home),
            "body": self._refused(sent),
            "error": sent.error or None,
        }

    def _answer(self, sent: Sent, home: Passed | None) -> list[shown.Shown]:
        if home is not None and sent is home.sent:
            return home.came(self._words)
        return [] if sent.head is None else shown.fields(sent.head.fields, self._words)

    def _refused(self, sent: Sent) -> dict[str, Any] | None:
        """What was kept of the body of an answer that nobody got."""
        if sent.body is None or sent.head is None:
            return None
        kind, encoding = (
            b", ".join(sent.head.values.get(name, ())) for name in (b"content-type", b"content-encoding")
        )
        return body(sent.body, kind, encoding, self._redactor)

    def _own(self, exchange: Exchange, lines: bytes, said: bytes, *, bodies: int) -> dict[str, Any]:
        """An answer that the proxy made itself."""
        kind = next((value for lower, value, _line in shown.split(lines) if lower == b"content-type"), b"")
        piece = Piece(bodies)
        piece.see(said)
        return {
            "status": exchange.status,
            "fields": own(exchange, lines, self._words),
            "body": body(piece if bodies else None, kind, b"", self._redactor),
        }

    def _response(self, exchange: Exchange, notes: FullNotes | None, home: Passed | None) -> dict[str, Any]:
        lines = b"" if notes is None else notes.answer_lines
        values = {lower: value for lower, value, _line in shown.split(lines)}
        kind, encoding = values.get(b"content-type", b""), values.get(b"content-encoding", b"")
        return {
            "status": exchange.status,
            "fields": [] if home is None else home.went(self._words),
            "body": None if notes is None else body(notes.answer_body, kind, encoding, self._redactor),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)


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


def _timing(exchange: Exchange, notes: FullNotes | None, seconds: float) -> dict[str, float | None]:
    """How the time was spent, in milliseconds; None: it did not come to that."""
    guard = connect = first_byte = rest = None
    if notes is not None and notes.admitted_at:
        guard = _ms(notes.admitted_at - exchange.started_at)
    answered = [sent for sent in (() if notes is None else notes.sent) if sent.head is not None]
    if notes is not None and answered:
        connecting, waiting = sum(map(_connecting, answered)), sum(map(_first_byte, answered))
        connect, first_byte = _ms(connecting), _ms(waiting)
        # Tokens are waited for before an attempt and behind it: what nothing else took is the body's.
        before = notes.admitted_at - exchange.started_at + exchange.token_wait + connecting + waiting
        last = notes.sent[-1].head
        rest = _ms(max(0.0, seconds - before)) if last is not None and last.status == exchange.status else None
    return {
        "guard_ms": guard,
        "token_wait_ms": _ms(exchange.token_wait) if exchange.credential else None,
        "connect_ms": connect,
        "first_byte_ms": first_byte,
        "body_ms": rest,
        "total_ms": _ms(seconds),
    }
