"""The journal: the last exchanges, as the inspector shows them.

Law: what rests here was masked before, so no way of showing it can show more (threat 82). What an exchange was
noted in waits for that at most a moment: under load most of them are pushed out before they cost anything.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from proxy.accesslog import Exchange
from proxy.admin import shown
from proxy.admin.bodies import body
from proxy.admin.why import why
from proxy.lines import timestamp
from proxy.listener.request import Request
from proxy.notes import FullNotes, Notes, Sent, begin
from proxy.redact import Redactor

#: How long what ended waits until it is looked at.
MOMENT_SECONDS: Final = 0.1
#: More events than this wait for nobody who listens: the oldest go.
WAITING_MOST: Final = 1000
#: An exchange that has lasted so long is shown before it ends.
LIVE_AFTER_SECONDS: Final = 0.5
#: How much of a body can be switched on.
BODY_MOST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange, masked: `summary` as in the list, `detail` all of it as JSON."""

    summary: dict[str, Any]
    detail: bytes = field(repr=False)


class Listener:
    """What one listener has not been told yet; `lost` counts what it was too slow for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()
        self.lost = 0

    def tell(self, event: str, data: bytes) -> None:
        """Something happened."""
        if len(self._waiting) >= WAITING_MOST:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append((event, data))
        self._news.set()

    async def next(self) -> list[tuple[str, bytes]]:
        """All that waits, once something does."""
        await self._news.wait()
        self._news.clear()
        told, self._waiting = list(self._waiting), deque()
        if self.lost:
            told.append(("lost", json.dumps({"lost": self.lost}).encode()))
            self.lost = 0
        return told


class Journal:
    """The last `most` exchanges; `bodies` bytes are kept of each body. `wall` gives epoch seconds."""

    def __init__(self, most: int, bodies: int, redactor: Redactor, wall: Callable[[], float]) -> None:
        self.most = most
        self.bodies = bodies
        self._redactor = redactor
        self._wall = wall
        self._entries: deque[Entry] = deque(maxlen=most)
        self._ended: deque[tuple[Exchange, FullNotes | None, float]] = deque(maxlen=most)
        self._open: dict[int, tuple[Exchange, FullNotes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: set[Listener] = set()

    # -- the relay's side

    def begin(self, request: Request) -> tuple[Exchange, Notes]:
        """The exchange of a request that begins, and what its way is noted in."""
        exchange, _ = begin(request)
        notes = FullNotes(request, self.bodies)
        self._open[exchange.number] = exchange, notes
        return exchange, notes

    def __call__(self, exchange: Exchange) -> None:
        """An exchange ended."""
        _, notes = self._open.pop(exchange.number, (None, None))
        self._ended.append((exchange, notes, self._wall()))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._look)

    # -- whoever looks on

    def entries(self) -> Iterator[Entry]:
        """What is kept, the newest first."""
        self._look()
        return reversed(self._entries)

    def live(self) -> list[dict[str, Any]]:
        """Summaries of what has lasted for a while and goes on."""
        now = self._wall()
        started = [(*each, perf_counter() - each[0].started_at) for each in self._open.values()]
        return [
            self._summary(exchange, notes, now - lasts, lasts, live=True)
            for exchange, notes, lasts in started
            if lasts >= LIVE_AFTER_SECONDS
        ]

    def find(self, request_id: str) -> Entry | None:
        """The exchange of this name."""
        return next((each for each in self.entries() if each.summary["id"] == request_id), None)

    def clear(self) -> None:
        """Forget all of them."""
        self._ended.clear()
        self._entries.clear()

    def listen(self) -> Listener:
        """From now on it is told of what happens, until `leave`."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """It is told nothing more."""
        self._listeners.discard(listener)

    def tell(self, event: str, document: Any) -> None:  # noqa: ANN401  whatever JSON takes
        """Tell all who listen; what is told holds no secret."""
        if self._listeners:
            data = json.dumps(document).encode()
            for listener in self._listeners:
                listener.tell(event, data)

    # -- from notes to entries

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ended:
            entry = self._entry(*self._ended.popleft())
            self._entries.append(entry)
            self.tell("exchange", entry.summary)

    def _entry(self, exchange: Exchange, notes: FullNotes | None, ended_at: float) -> Entry:
        summary = self._summary(exchange, notes, ended_at - exchange.seconds, exchange.seconds, live=False)
        detail = {
            **summary,
            "why": self._redactor.text(why(exchange, notes)),
            "timing": _timing(exchange, notes),
            "request": self._request(notes),
            "attempts": [] if notes is None else [self._attempt(exchange, notes, sent) for sent in notes.sent],
            "response": self._response(exchange, notes),
        }
        return Entry(summary, json.dumps(detail).encode())

    def _summary(
        self, exchange: Exchange, notes: FullNotes | None, began_at: float, seconds: float, *, live: bool
    ) -> dict[str, Any]:
        text = self._redactor.text
        return {
            "id": exchange.request_id,
            "number": exchange.number,
            "at": timestamp(began_at),
            "client": text(exchange.client),
            "method": text(exchange.method),
            "route": exchange.route or None,
            "path": shown.path(exchange.path, self._redactor),
            "query": shown.clean(shown.query(exchange.query), self._redactor) if exchange.query else "",
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
            "fields": shown.asked(section.fields, notes.sent, self._redactor),
            "body": body(notes.request_body, kind, encoding, self._redactor),
        }

    def _attempt(self, exchange: Exchange, notes: FullNotes, sent: Sent) -> dict[str, Any]:
        outgoing, head = sent.outgoing, sent.head
        target = shown.path(outgoing.path, self._redactor)
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
            "target": target + ("?" + shown.clean(query, self._redactor) if query else ""),
            "generation": sent.generation or None,
            "connection": None if head is None else "kept" if sent.is_kept else "new",
            "first_byte_ms": None if head is None else _ms(sent.answered_at - sent.began_at),
            "fields": shown.outgoing(sent, exchange.credential, self._redactor),
            "status": None if head is None else head.status,
            "refused": sent.is_refused,
            "answer": [] if head is None else shown.fields(head.fields, self._redactor),
            "error": sent.error or None,
        }

    def _response(self, exchange: Exchange, notes: FullNotes | None) -> dict[str, Any]:
        lines = b"" if notes is None else notes.answer_lines
        values = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in lines.split(b"\r\n")}
        kind, encoding = values.get(b"content-type", b""), values.get(b"content-encoding", b"")
        return {
            "status": exchange.status,
            "fields": shown.lines(lines, self._redactor),
            "body": None if notes is None else body(notes.answer_body, kind, encoding, self._redactor),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)


def _kind(exchange: Exchange, notes: FullNotes | None) -> str:
    if exchange.status == 101:
        return "websocket"
    head = notes.sent[-1].head if notes is not None and notes.sent else None
    kinds = () if head is None else head.values.get(b"content-type", ())
    return "sse" if any(each.lower().startswith(b"text/event-stream") for each in kinds) else "http"


def _timing(exchange: Exchange, notes: FullNotes | None) -> dict[str, float | None]:
    """How the time was spent, in milliseconds; None: it did not come to that."""
    guard = first_byte = rest = None
    if notes is not None and notes.admitted_at:
        guard = _ms(notes.admitted_at - exchange.started_at)
    answered = [sent for sent in (() if notes is None else notes.sent) if sent.head is not None]
    if answered:
        first_byte = _ms(sum(sent.answered_at - sent.began_at for sent in answered))
        rest = _ms(max(0.0, exchange.started_at + exchange.seconds - answered[-1].answered_at))
    return {
        "guard_ms": guard,
        "token_wait_ms": _ms(exchange.token_wait) if exchange.credential else None,
        "first_byte_ms": first_byte,
        "body_ms": rest,
        "total_ms": _ms(exchange.seconds),
    }
