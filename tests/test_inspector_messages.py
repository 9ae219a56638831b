"""What goes on in the inspector: streams before they end, their messages, and tokens that were refused."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from sys import getrefcount
from typing import Any, Final
from unittest.mock import Mock

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from proxy.accesslog import Exchange
from proxy.admin.entries import Entry, Scribe
from proxy.admin.journal import (
    HEAVY_MOMENT_SECONDS,
    MOMENT_SECONDS,
    WAITING_BYTES,
    WAITING_MOST,
    WATCHED_MOMENT_SECONDS,
    Journal,
    Listener,
)
from proxy.admin.messages import KEPT, Conversation, Events, Frames
from proxy.admin.shown import KEPT_TEXTS, Words
from proxy.binding import Binding
from proxy.body import Feeder, RequestBody
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from proxy.guard import Admission
from proxy.listener.request import Request
from proxy.notes import Notebook, Onlooker
from proxy.redact import Redactor, Secret
from tests.support.client import DEADLINE, Client, connected
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.support.sections import request_section
from tests.support.vendors import Vendor
from tests.test_inspector import ALL, ask, listed, newest

MOST: Final = 100


class Told:
    """A conversation, and what it told."""

    def __init__(self, most: int = MOST, secret: str = "") -> None:
        self.all: list[Any] = []
        redactor = Redactor()
        redactor.register(Secret(secret))
        self.conversation = Conversation(most, redactor, lambda: 0.0, self.all.append)

    def texts(self) -> list[tuple[str, str | None, int]]:
        """Kind, text and size of each."""
        return [(each["kind"], each["text"], each["bytes"]) for each in self.all]


def frame(opcode: int, data: bytes, *, fin: bool = True, key: bytes = b"", compressed: bool = False) -> bytes:
    """One of RFC 6455 section 5.2."""
    size, masked = len(data), 0x80 if key else 0
    if size < 126:
        length = bytes((masked | size,))
    elif size < 1 << 16:
        length = bytes((masked | 126,)) + size.to_bytes(2)
    else:
        length = bytes((masked | 127,)) + size.to_bytes(8)
    turned = bytes(each ^ key[at % 4] for at, each in enumerate(data)) if key else data
    return bytes((0x80 * fin | 0x40 * compressed | opcode,)) + length + key + turned


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """In pieces."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[one:other] for one, other in pairwise(ends)]


@given(places=st.lists(st.integers(0, 500)), key=st.binary(min_size=4, max_size=4))
def test_frames_are_read_however_the_network_cuts_them(places: list[int], key: bytes) -> None:
    """In one piece or many, masked, with a frame of control between two halves of a message."""
    told = Told()
    frames = Frames(told.conversation, "client")
    data = (
        frame(1, b"whole", key=key)
        + frame(1, b"one ", fin=False, key=key)
        + frame(9, b"there?", key=key)
        + frame(0, b"half", key=key)
        + frame(2, b"\0" * 300, key=key)
        + frame(1, b"", key=key)
        + frame(8, b"\x03\xe8bye", key=key)
    )
    for piece in cut(data, places):
        frames.see(piece)
    assert told.texts() == [
        ("text", "whole", 5),
        ("ping", "there?", 6),
        ("text", "one half", 8),
        ("binary", None, 300),
        ("text", "", 0),
        ("close", "1000 bye", 8),
    ]
    assert [each["truncated"] for each in told.all] == [False, False, False, True, False, False]


@given(places=st.lists(st.integers(0, 200)), end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_read_however_the_network_cuts_them(places: list[int], end: bytes) -> None:
    """With any line end; an empty line more is no event, and what was cut off is none yet."""
    told = Told()
    events = Events(told.conversation)
    long = b"data: " + b"x" * 200
    for piece in cut(
        end.join([b": hi", b"", b"event: a", b"data: 1", b"", b"", b"", long, b"", b"data: half"]), places
    ):
        events.see(piece)
    first = end.join([b"event: a", b"data: 1"])
    assert told.texts() == [
        ("event", ": hi", 4),
        ("event", first.decode(), len(first)),
        ("event", long[:MOST].decode(), 206),
    ]


def test_compressed_messages_are_read_as_long_as_that_can_be() -> None:
    """With what refers back to earlier ones, and with what begins anew; never more than the bound is unpacked."""
    told = Told()
    frames = Frames(told.conversation, "upstream")
    sender = zlib.compressobj(wbits=-15)

    def packed(data: bytes) -> bytes:
        return (sender.compress(data) + sender.flush(zlib.Z_SYNC_FLUSH))[:-4]

    last = zlib.compressobj(wbits=-15)
    for data in (packed(b"the same words"), packed(b"the same words"), packed(b"y" * 5000)):
        frames.see(frame(1, data, compressed=True))
    assert told.texts() == [("text", "the same words", 14)] * 2 + [("text", "y" * MOST, 5000)]
    frames.see(frame(1, last.compress(b"anew") + last.flush() + b"\0", compressed=True))
    frames.see(frame(1, zlib.compress(b"again", wbits=-15) + b"\0", compressed=True))
    assert told.texts()[3:] == [("text", "anew", 4), ("text", "again", 5)]
    frames.see(frame(1, b"\xff\xff\xff", compressed=True))
    frames.see(frame(1, packed(b"lost"), compressed=True))
    frames.see(frame(1, b"plain"))
    assert [each["note"] is None for each in told.all[5:]] == [False, False, True]


@pytest.mark.threat(82)
def test_082_of_what_is_no_frame_nothing_is_kept(canaries: Canaries) -> None:
    """A token whose beginning was taken for the head of a frame would not be known by its rest."""
    token = canaries.mint("token").encode()
    wrong = (
        token,
        b"HTTP/1.1 200 OK " + token,
        frame(1, token, key=b"mask"),
        frame(3, token),
        frame(9, token, fin=False),
        frame(9, token * 9),
        frame(9, token, compressed=True),
        *(bytes((first,)) + token for first in range(0x10, 0x80)),
    )
    for data in wrong:
        told = Told(500, token.decode())
        frames = Frames(told.conversation, "upstream")
        for piece in (frame(1, b"before"), data, token, frame(1, token)):
            frames.see(piece)
        assert told.texts()[0] == ("text", "before", 6)
        assert [(each["text"], each["base64"]) for each in told.all[1:]] in ([(None, None)], [])


@pytest.mark.threat(82)
def test_082_messages_are_masked_and_bounded(canaries: Canaries) -> None:
    """The newest stay, within the bytes that are kept of a body; each is masked before it is told."""
    token = canaries.mint("token")
    told = Told(500, token)
    conversation = told.conversation
    for number in range(KEPT * 2):
        conversation.said("client", "text", f"{number} {token}".encode(), 9)
    conversation.said("client", "binary", b"\0\xff" + token.encode(), 9)
    shown = conversation.shown()
    assert shown["count"] == KEPT * 2 + 1
    assert sum(len(each["text"] or "") for each in shown["kept"]) <= 500
    assert shown["kept"][-2]["text"] == f"{KEPT * 2 - 1} ***"
    assert shown["kept"][-1]["note"]
    assert token not in json.dumps([told.all, shown])
    for _ in range(KEPT * 2):
        conversation.said("client", "ping", b"", 0)
    assert len(conversation.shown()["kept"]) == KEPT


class Listening:
    """A page that hears of events."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def next(self, kind: str) -> Any:
        """What the next event of this kind says."""
        async with asyncio.timeout(DEADLINE):
            await self._client.reader.readuntil(f"event: {kind}\ndata: ".encode())
            return json.loads(await self._client.reader.readuntil(b"\n\n"))


@asynccontextmanager
async def listening(proxy: Proxy) -> AsyncIterator[Listening]:
    """To `proxy`, until the block ends."""
    url, key = proxy.instance.admin_url, proxy.instance.admin_key.reveal()
    assert url is not None
    async with connected(url, proxy.artefacts) as client:
        client.send(f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE):
            await client.reader.readuntil(b"\n\n")
        yield Listening(client)


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token."""
    return Keyed(canaries.mint("token"))


@asynccontextmanager
async def streaming(kind: str, pieces: "asyncio.Queue[bytes | None]") -> AsyncIterator[str]:
    """A service whose answer is what comes into `pieces`, until None does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": kind})
        await stream.prepare(request)
        while (piece := await pieces.get()) is not None:
            await stream.write(piece)
        return stream

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    async with serving(app) as url:
        yield url


@pytest.mark.parametrize("kind", ["text/event-stream", "application/octet-stream"])
async def test_what_goes_on_is_told_and_shown_before_it_ends(proxying: StartProxy, keyed: Keyed, kind: str) -> None:
    """A stream or a slow download: in the list, in full as far as it has come, and its events as they come."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
    async with (
        streaming(kind, pieces) as url,
        proxying(keyed.config(url, top=ALL), environ=keyed.environ) as proxy,
        listening(proxy) as page,
    ):
        asking = asyncio.create_task(proxy.ask("GET", "/stream"))
        pieces.put_nowait(b"event: a\ndata: 1\n\n")
        while (begun := await page.next("exchange"))["status"] == 0:
            pass
        assert (begun["live"], begun["status"], begun["path"]) == (True, 200, "/stream")
        assert begun["kind"] == ("sse" if "event" in kind else "http")
        [shown] = await listed(proxy)
        assert (shown["id"], shown["live"]) == (begun["id"], True)
        detail = (await ask(proxy, "GET", f"/api/exchanges/{begun['id']}")).json()
        assert detail["attempts"][0]["status"] == 200
        assert detail["response"]["body"]["text"] == "event: a\ndata: 1\n\n"
        if "event" in kind:
            assert [each["text"] for each in detail["messages"]["kept"]] == ["event: a\ndata: 1"]
            pieces.put_nowait(b"data: 2\n\n")
            told = await page.next("message")
            assert (told["id"], told["number"], told["from"]) == (begun["id"], 2, "upstream")
        pieces.put_nowait(None)
        assert (await asking).status == 200
        ended = await page.next("exchange")
        assert (ended["id"], ended["live"]) == (begun["id"], False)
        assert [each["live"] for each in await listed(proxy)] == [False]


async def test_an_answer_that_does_not_come_is_shown_as_waited_for(proxying: StartProxy, keyed: Keyed) -> None:
    """Before its head is there, too."""
    asked, held = asyncio.Event(), asyncio.Event()

    async def answer(_request: web.Request) -> web.StreamResponse:
        asked.set()
        await held.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    async with (
        serving(app) as url,
        proxying(keyed.config(url), environ=keyed.environ) as proxy,
        listening(proxy) as page,
    ):
        asking = asyncio.create_task(proxy.ask("GET", "/slow"))
        begun = await page.next("exchange")
        assert (begun["live"], begun["status"]) == (True, 0)
        detail = (await ask(proxy, "GET", f"/api/exchanges/{begun['id']}")).json()
        assert "which has not answered yet" in detail["why"]
        assert detail["attempts"][0]["status"] is None
        held.set()
        await asking


@pytest.mark.parametrize("bodies", [0, 1000])
@pytest.mark.threat(82)
async def test_082_messages_of_a_websocket_are_shown_once_bodies_are(
    proxying: StartProxy, keyed: Keyed, bodies: int
) -> None:
    """Of both sides, compressed as libraries do it; off they are not read at all."""

    async def answer(connection: ServerConnection) -> None:
        async for said in connection:
            await connection.send(f"heard {said!r}")

    top = {"admin": {"listen": "127.0.0.1:0", "inspector": {"bodies": bodies}}}
    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        config = keyed.config(f"http://127.0.0.1:{port}", top=top)
        async with proxying(config, environ=keyed.environ) as proxy:
            async with connect(proxy.url.replace("http", "ws") + "/ws") as client:
                for said in (f"my token: {keyed.token}", "plain words " * 20, b"\0\xff"):
                    await client.send(said)
                    await client.recv()
            shown = await newest(proxy)
    assert (shown["kind"], shown["status"]) == ("websocket", 101)
    if not bodies:
        assert shown["messages"] is None
        return
    kept = [(each["from"], each["kind"], each["text"] or each["base64"]) for each in shown["messages"]["kept"]]
    assert kept[0] == ("client", "text", "my token: ***")
    assert kept[1][:2] == ("upstream", "text")
    assert ("client", "text", "plain words " * 20) in kept
    assert ("client", "binary", "AP8=") in kept
    assert ("client", "close", "1000 ") in kept


async def test_a_refusal_is_told_once_of_each_generation(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """With what refused it, as soon as it did; the generation that was obtained stands beside."""
    async with (
        proxying({**tracker.config, **ALL}, environ=tracker.environ, clock=clock) as proxy,
        listening(proxy) as page,
    ):
        await proxy.ask("GET", "/calls")
        tracker.double.expire()
        await proxy.ask("GET", "/calls")
        while (told := await page.next("token"))["what"] != "refused":
            pass
        assert (told["credential"], told["generation"], told["detail"]) == ("default", 1, "401 on route default")
        events = (await ask(proxy, "GET", "/api/timelines")).json()["default"]
    assert [(each["what"], each["generation"]) for each in events] == [
        ("requested", None),
        ("obtained", 1),
        ("refused", 1),
        ("requested", None),
        ("obtained", 2),
    ]


async def test_a_credential_that_is_refused_again_and_again_is_told_of_once(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """A client that does not give up pushes nothing else out."""

    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/{rest:.*}", refuse)
    async with serving(app) as url, proxying(keyed.config(url), environ=keyed.environ) as proxy:
        for _ in range(3):
            assert (await proxy.ask("GET", "/a")).status == 401
        events = (await ask(proxy, "GET", "/api/timelines")).json()["default"]
    assert [(each["what"], each["detail"]) for each in events] == [("refused", "401 on route default")]


# -- under load


def ended(journal: Journal, path: bytes) -> None:
    """An exchange that came and went."""
    exchange = Exchange("GET", "127.0.0.1", 0.0)
    exchange.path = path
    journal.book.end(exchange)


async def test_what_ended_is_told_a_part_at_a_time_until_all_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends when its time is up; the next one goes on where it stopped."""
    monkeypatch.setattr("proxy.admin.journal.LOOK_SECONDS", -1.0)
    journal = Journal(100, 0, Redactor(), lambda: 0.0)
    listener = journal.listen()
    for number in range(5):
        ended(journal, b"/%d" % number)
    looks: list[int] = []
    async with asyncio.timeout(DEADLINE):
        while sum(looks) < 5:
            looks.append(len(await listener.next()))
    assert looks == [1] * 5
    journal.leave(listener)


class Later:
    """A loop that only notes what is to be called, and in how many seconds."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Nothing is called."""
        self.calls.append((seconds, call))
        return Mock(asyncio.TimerHandle)


@pytest.mark.parametrize(
    ("goes_on", "waits"), [(False, [MOMENT_SECONDS] + [0.0] * 11), (True, ([MOMENT_SECONDS] + [0.0] * 4) * 2)]
)
def test_what_ended_is_written_down_together_and_at_once_as_long_as_nothing_more_comes(
    monkeypatch: pytest.MonkeyPatch, *, goes_on: bool, waits: list[float]
) -> None:
    """Where more comes, only so much of it in one go."""
    later = Later()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: later)
    monkeypatch.setattr("proxy.admin.journal.LOOK_SECONDS", -1.0)
    journal = Journal(100, 0, Redactor(), lambda: 0.0)
    for number in range(12):
        ended(journal, b"/%d" % number)
    for at in range(len(waits)):
        later.calls[at][1]()
        if goes_on:
            ended(journal, b"/more")
    assert [seconds for seconds, _call in later.calls][: len(waits)] == waits
    assert bool(journal.book.ended) is goes_on


@pytest.mark.patches
async def test_what_is_too_much_is_pushed_out_before_it_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs nothing then, and the newest stay."""
    written = []

    def noting(scribe: Scribe, *given: Any, **more: Any) -> Entry:
        written.append(given[0].path)
        return entry(scribe, *given, **more)

    entry = Scribe.entry
    monkeypatch.setattr(Scribe, "entry", noting)
    journal = Journal(100, 0, Redactor(), lambda: 0.0)
    for number in range(1000):
        ended(journal, b"/%d" % number)
    monkeypatch.setattr("proxy.admin.journal.LOOK_SECONDS", -1.0)
    assert [each.summary["path"] for each in await journal.entries()] == [
        f"/{each}" for each in range(999, 899, -1)
    ]
    assert written == [b"/%d" % each for each in range(900, 1000)]


@pytest.mark.patches
async def test_whoever_asks_has_all_of_it_and_nobody_else_waits_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: all that had ended by then, what ended since may come later."""
    monkeypatch.setattr("proxy.admin.journal.LOOK_SECONDS", -1.0)
    journal = Journal(100, 0, Redactor(), lambda: 0.0)
    for number in range(50):
        ended(journal, b"/%d" % number)

    async def others() -> None:
        for number in range(50, 200):
            ended(journal, b"/%d" % number)
            await asyncio.sleep(0)

    serving_others = asyncio.create_task(others())
    shown = {each.summary["path"] for each in await journal.entries()}
    assert shown >= {f"/{each}" for each in range(50)}
    assert not serving_others.done()
    assert int(journal.book.ended[-1][0].path[1:]) > 60
    await serving_others


@pytest.mark.parametrize(
    ("most", "bodies", "moment"),
    [(500, 0, MOMENT_SECONDS), (5000, 0, MOMENT_SECONDS), (1, 1, HEAVY_MOMENT_SECONDS)],
)
def test_what_takes_much_memory_while_it_waits_is_written_down_sooner(
    monkeypatch: pytest.MonkeyPatch, most: int, bodies: int, moment: float
) -> None:
    """Bodies; and all of it before somebody looks on."""
    later = Later()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: later)
    journal = Journal(most, bodies, Redactor(), lambda: 0.0)
    ended(journal, b"/")
    assert [seconds for seconds, _call in later.calls] == [moment]
    journal.listen()
    assert not journal.book.ended
    ended(journal, b"/")
    assert later.calls[-1][0] == WATCHED_MOMENT_SECONDS


@pytest.mark.patches
@pytest.mark.threat(82)
@pytest.mark.parametrize("bodies", [0, 100])
def test_082_nothing_of_a_connection_is_held_by_what_waits(bodies: int) -> None:
    """A body least of all: it may be long, and nobody has said that it may be kept."""
    book = Notebook(Mock(Onlooker), bodies, 1)
    body = RequestBody(Mock(Feeder), 5)
    fields = request_section([(b"Host", b"localhost")])
    request = Request("POST", b"/", fields, body=body, client="127.0.0.1", port=None)
    before = getrefcount(body), getrefcount(request)
    exchange, notes = book.begin(request)
    notes.goes(Mock(Admission), Mock(Binding), body)
    book.end(exchange)
    assert book.ended[0][1] is notes
    assert (getrefcount(body), getrefcount(request)) == before


@pytest.mark.patches
@pytest.mark.threat(82)
def test_082_what_was_found_clean_is_looked_at_again_when_another_secret_is_known(canaries: Canaries) -> None:
    """What is remembered of heads that repeat is as old as what is known, and holds nothing that was masked."""
    redactor = Redactor()
    words = Words(redactor)
    token = canaries.mint("token")
    value, plain = f'"{token}"'.encode(), (b"accept", b"text/plain", b"Accept: text/plain")
    for _ in range(2):
        assert words.field((b"etag", value, b"ETag: " + value)).text == value.decode()
        assert words.text(token) == token
    redactor.register(Secret(token))
    for _ in range(2):
        assert words.field((b"etag", value, b"ETag: " + value)).text == '"***"'
        assert words.field(plain).text == "text/plain"
        assert words.text(token) == "***"
    assert token not in repr(vars(words))
    for number in range(KEPT_TEXTS + 2):
        words.text(f"word {number}")
        words.field((b"accept", b"%d" % number, b"Accept: %d" % number))
        words.field((b"x-%d" % number, b"value", b"X-%d: value" % number))
    for kept in ("_clean", "_fields", "_names"):
        assert 0 < len(vars(words)[kept]) <= KEPT_TEXTS


@pytest.mark.parametrize(
    ("size", "kept"),
    [(100, WAITING_MOST), (WAITING_BYTES >> 4, 16), (WAITING_BYTES + 1, 1)],
    ids=["many", "long", "too-long"],
)
async def test_what_waits_for_a_slow_listener_is_bounded_in_number_and_bytes(size: int, kept: int) -> None:
    """The newest wait, one at least; it is told how many it missed."""
    listener = Listener()
    for number in range(WAITING_MOST + 100):
        listener.tell("message", f"{number}".encode().ljust(size))
    *told, (event, lost) = await listener.next()
    assert [int(data) for _, data in told] == list(range(WAITING_MOST + 100 - kept, WAITING_MOST + 100))
    assert (event, json.loads(lost)) == ("lost", {"lost": WAITING_MOST + 100 - kept})
    listener.tell("message", b"next")
    assert await listener.next() == [("message", b"next")]
