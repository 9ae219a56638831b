"""The journal: the last exchanges, as the inspector shows them.

Law: what rests here was masked before, so no way of showing it can show more (threat 82). What an exchange was
noted in waits for that a moment, or until it is its turn: under load most are pushed out before they cost anything.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from time import perf_counter
from typing import Any, Final

from proxy.accesslog import Exchange
from proxy.admin.entries import Entry, Scribe
from proxy.admin.messages import Conversation, Events, Frames
from proxy.body import Watcher
from proxy.notes import FullNotes, Notebook
from proxy.redact import Redactor

#: How long what ended waits until it is looked at: one by one, between requests, each would cost twice as much, and
#: what is pushed out meanwhile never costs it. Who asks for the list has all of it at once.
MOMENT_SECONDS: Final = 5.0
#: Where it takes much memory while it waits: bodies.
HEAVY_MOMENT_SECONDS: Final = 0.5
#: Where somebody looks on.
WATCHED_MOMENT_SECONDS: Final = 0.1
#: So long is one look, in which some twenty exchanges are written down; then whatever came is served. The next look
#: is at once where nothing did, and so often in any case, or so often where somebody looks on.
LOOK_SECONDS: Final = 0.001
LOOKS: Final = 5
WATCHED_LOOKS: Final = 20
#: More events than this, or more bytes of them, wait for nobody who listens: the oldest go. A message may be as
#: long as what is kept of a body.
WAITING_MOST: Final = 1000
WAITING_BYTES: Final = 8 << 20
#: An exchange that has lasted so long is shown before it ends.
LIVE_AFTER_SECONDS: Final = 0.5
#: So many of these are shown, the newest.
LIVE_MOST: Final = 200
#: How much of a body can be switched on.
BODY_MOST: Final = 1 << 20


class Listener:
    """What one listener has not been told yet; `lost` counts what it was too slow for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self.lost = 0

    def tell(self, event: str, data: bytes) -> None:
        """Something happened."""
        self._waiting.append((event, data))
        self._size += len(data)
        while len(self._waiting) > 1 and (len(self._waiting) > WAITING_MOST or self._size > WAITING_BYTES):
            self._size -= len(self._waiting.popleft()[1])
            self.lost += 1
        self._news.set()

    async def next(self) -> list[tuple[str, bytes]]:
        """All that waits, once something does."""
        await self._news.wait()
        self._news.clear()
        told, self._waiting, self._size = list(self._waiting), deque(), 0
        if self.lost:
            told.append(("lost", json.dumps({"lost": self.lost}).encode()))
            self.lost = 0
        return told


class Journal:
    """The last `most` exchanges; `bodies` bytes are kept of each body. `wall` gives epoch seconds."""

    def __init__(self, most: int, bodies: int, redactor: Redactor, wall: Callable[[], float]) -> None:
        self.most = most
        self.book = Notebook(self, bodies, most)
        self._redactor = redactor
        self._scribe = Scribe(redactor)
        self._wall = wall
        self._entries: deque[Entry] = deque(maxlen=most)
        #: So many ever were.
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        #: The number of the newest that waited at the last look.
        self._newest = 0
        #: So many looks since nothing waited.
        self._looks = 0
        self._listeners: set[Listener] = set()
        #: What was told of those that go on: the status of each by its number; and when that is looked at again.
        self._told: dict[int, int] = {}
        self._pulse: asyncio.TimerHandle | None = None
        #: Told of each refusal of a token: credential, generation, and what refused it.
        self.on_refusal: Callable[[str, int, str], None] = lambda _credential, _generation, _detail: None

    # -- the relay's side

    def waits(self) -> None:
        """As `Onlooker` has it."""
        self._timer = asyncio.get_running_loop().call_later(self._moment, self._look)

    def refused(self, exchange: Exchange, notes: FullNotes) -> None:
        """As `Onlooker` has it: told of at once, and not for each request anew."""
        head = notes.sent[-1].head
        status = 0 if head is None else head.status
        self.on_refusal(exchange.credential, notes.sent[-1].generation, f"{status} on route {exchange.route}")

    def hears_events(self, exchange: Exchange, notes: FullNotes) -> Watcher:
        """As `Onlooker` has it."""
        return Events(self._conversation(exchange, notes))

    def hears_frames(self, exchange: Exchange, notes: FullNotes) -> tuple[Watcher, Watcher]:
        """As `Onlooker` has it."""
        conversation = self._conversation(exchange, notes)
        return Frames(conversation, "client"), Frames(conversation, "upstream")

    @property
    def _moment(self) -> float:
        if self._listeners:
            return WATCHED_MOMENT_SECONDS
        return HEAVY_MOMENT_SECONDS if self.bodies else MOMENT_SECONDS

    def _conversation(self, exchange: Exchange, notes: FullNotes) -> Conversation:
        def tell(message: Mapping[str, Any]) -> None:
            self.tell("message", {"id": exchange.request_id, **message})

        made = notes.messages = Conversation(notes.bodies, self._redactor, self._wall, tell)
        return made

    # -- whoever looks on

    @property
    def bodies(self) -> int:
        """So many bytes are kept of each body."""
        return self.book.bodies

    @bodies.setter
    def bodies(self, bodies: int) -> None:
        self.book.bodies = bodies

    async def entries(self) -> list[Entry]:
        """What is kept, the newest first, with all that has ended by now; others are served meanwhile."""
        until = self._written + len(self.book.ended)
        while self.book.ended and self._written < until:
            self._look()
            await asyncio.sleep(0)
        return list(reversed(self._entries))

    def live(self) -> list[dict[str, Any]]:
        """Summaries of what has lasted for a while and goes on, the newest first."""
        now, wall = perf_counter(), self._wall()
        least = now - LIVE_AFTER_SECONDS
        lasting = (each for each in reversed(self.book.open.values()) if each.exchange.started_at <= least)
        found = []
        for notes in islice(lasting, LIVE_MOST):
            exchange = notes.exchange
            lasts = now - exchange.started_at
            found.append(self._scribe.summary(exchange, notes, wall - lasts, lasts, live=True))
        return found

    async def detail(self, request_id: str) -> dict[str, Any] | None:
        """All of the exchange of this name, as far as it has come."""
        going = (each for each in self.book.open.values() if each.exchange.request_id == request_id)
        notes = next(going, None)
        if notes is None:
            kept = await self.find(request_id)
            return None if kept is None else kept.detail
        exchange = notes.exchange
        lasts = perf_counter() - exchange.started_at
        return self._scribe.entry(exchange, notes, self._wall(), lasts, live=True, bodies=self.bodies).detail

    async def find(self, request_id: str) -> Entry | None:
        """The exchange of this name."""
        return next((each for each in await self.entries() if each.summary["id"] == request_id), None)

    def clear(self) -> None:
        """Forget all of them."""
        self.book.ended.clear()
        self._entries.clear()

    def listen(self) -> Listener:
        """From now on it is told of what happens, until `leave`."""
        listener = Listener()
        self._listeners.add(listener)
        if self._timer is not None:
            # It was to wait for longer.
            self._look()
        if self._pulse is None:
            self._beat()
        return listener

    def leave(self, listener: Listener) -> None:
        """It is told nothing more."""
        self._listeners.discard(listener)

    def _beat(self) -> None:
        """Tell of what goes on, once, and once more when its answer begins; for as long as somebody listens."""
        self._pulse = None
        if not self._listeners:
            self._told.clear()
            return
        self._pulse = asyncio.get_running_loop().call_later(LIVE_AFTER_SECONDS, self._beat)
        before, self._told = self._told, {}
        for each in self.live():
            self._told[each["number"]] = each["status"]
            if before.get(each["number"]) != each["status"]:
                self.tell("exchange", each)

    def tell(self, event: str, document: Any) -> None:  # noqa: ANN401  whatever JSON takes
        """Tell all who listen; what is told holds no secret."""
        if self._listeners:
            data = json.dumps(document).encode()
            for listener in self._listeners:
                listener.tell(event, data)

    def _look(self) -> None:
        """Write down what ended, for so long, and the rest later; what is too much by then is pushed out unseen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = perf_counter() + LOOK_SECONDS
        try:
            while self.book.ended:
                exchange, notes = self.book.ended.popleft()
                lasted = exchange.seconds
                at = self._wall() - (perf_counter() - exchange.started_at - lasted)
                entry = self._scribe.entry(exchange, notes, at, lasted, live=False, bodies=self.bodies)
                self._entries.append(entry)
                self._written += 1
                self.tell("exchange", entry.summary)
                if perf_counter() >= until:
                    break
        finally:
            self._look_again()

    def _look_again(self) -> None:
        """At what is left: at once where nothing more came since the last look, or after few looks; or later."""
        book = self.book
        if not book.ended:
            book.is_told = False
            self._looks = 0
            return
        newest = book.ended[-1][0].number
        is_over, self._newest = newest == self._newest, newest
        self._looks += 1
        is_at_once = is_over or self._looks % (WATCHED_LOOKS if self._listeners else LOOKS)
        pause = 0.0 if is_at_once else self._moment
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)
