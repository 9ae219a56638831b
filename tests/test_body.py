"""A request's body: streamed as it comes, kept up to a bound, and never more than was announced or allowed."""

import asyncio
import hashlib
import os
from collections import deque
from typing import Final

import pytest

from proxy.body import RequestBody
from proxy.errors import BadFraming, ProxyError, RequestTimeout, TooLarge
from proxy.replay import Replay
from tests.support.upstreams import DEADLINE, on_each_loop, turns

KIB: Final = 1024


class Client:
    """Sends a body piece by piece, the next one whenever it is asked for more; an exception is the body's bad end.

    Like those of a socket they come in the next round of the loop. A `None` is a pause until more is asked for.
    """

    def __init__(self, *pieces: bytes | ProxyError | None, length: int | None = None) -> None:
        self.body = RequestBody(self, length)
        self.asked = 0
        self._pieces = deque(pieces)

    def resume_reading(self) -> None:
        """More is wanted."""
        self.asked += 1
        asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Send the next piece, or the end."""
        piece = self._pieces.popleft() if self._pieces else b""
        if isinstance(piece, ProxyError):
            self.body.finish(piece)
        elif piece:
            self.body.feed(piece)
        elif piece is not None:
            self.body.finish()

    def bounded(self, *, keep: int = KIB, most: int | None = None, idle: float | None = DEADLINE) -> RequestBody:
        """The body with its bounds."""
        self.body.bound(replay=Replay(keep, 0), most=most, idle=idle)
        return self.body


async def whole(body: RequestBody) -> bytes:
    """All that is left of it."""
    found = bytearray()
    while piece := await body.read():
        found += piece
    return bytes(found)


@pytest.mark.parametrize("length", [None, 300])
@pytest.mark.parametrize(
    ("size", "keep", "replayable"),
    [(0, 0, True), (1, 0, False), (299, 300, True), (300, 300, True), (301, 300, False)],
)
@on_each_loop
async def test_a_body_up_to_the_bound_can_be_sent_again_and_one_byte_more_cannot(
    size: int, keep: int, length: int | None, *, replayable: bool
) -> None:
    """104: byte for byte the same the second time; the client is not asked again."""
    data = os.urandom(size)
    client = Client(*(data[at : at + 100] for at in range(0, size, 100)), length=length)
    body = client.bounded(keep=keep)
    assert await whole(body) == data
    assert body.received == size
    assert body.is_replayable is replayable
    if replayable:
        asked = client.asked
        for _ in range(2):
            body.rewind()
            assert await whole(body) == data
        assert (client.asked, body.received) == (asked, size)


@on_each_loop
async def test_a_body_that_nobody_keeps_is_replayable_until_its_first_byte_was_read() -> None:
    """Without a bound given there is nothing to send again."""
    client = Client(b"one")
    assert client.body.is_replayable
    client.body.rewind()
    assert await client.body.read() == b"one"
    assert not client.body.is_replayable


@on_each_loop
async def test_a_body_can_begin_again_in_its_middle() -> None:
    """105: after an early refusal the repeat sends what was kept, and then goes on with what still comes."""
    body = Client(b"one", b"two", b"three").bounded()
    assert [await body.read(), await body.read()] == [b"one", b"two"]
    body.rewind()
    assert await whole(body) == b"onetwothree"
    body.rewind()
    assert await whole(body) == b"onetwothree"


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@on_each_loop
async def test_bytes_that_wait_when_a_body_begins_again_come_behind_what_was_kept(*, again: bool) -> None:
    """In their order, each once; also where the repeat itself begins again within what was kept."""
    client = Client(b"one", b"two", None)
    body = client.bounded()
    assert [await body.read(), await body.read()] == [b"one", b"two"]
    body.feed(b"three")
    body.finish()
    body.rewind()
    if again:
        assert (await body.read()).startswith(b"one")
        body.rewind()
    assert await whole(body) == b"onetwothree"
    assert body.received == 11


@on_each_loop
async def test_pieces_that_came_together_are_read_together() -> None:
    """What arrived while nobody read is one write to the upstream."""
    body = Client().bounded()
    for piece in (b"one", b"two", b"three"):
        body.feed(piece)
    assert await body.read() == b"onetwothree"
    assert await body.read() == b""


@on_each_loop
async def test_114_more_is_asked_for_only_when_all_that_came_was_taken() -> None:
    """So that there is never more than one read of the socket here."""
    client = Client(b"one", b"two")
    body = client.bounded()
    assert (await body.read(), client.asked) == (b"one", 1)
    body.feed(b"more")
    assert (await body.read(), client.asked) == (b"more", 1)
    assert (await body.read(), client.asked) == (b"two", 2)


@on_each_loop
async def test_105_a_read_that_is_cancelled_loses_no_byte() -> None:
    """The upload of the refused attempt is stopped while it waits for the client."""
    body = Client(None, None).bounded()
    for at_its_turn in (False, True):
        task = asyncio.create_task(body.read())
        await turns()
        if at_its_turn:
            body.feed(b"late")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    body.feed(b", end")
    body.finish()
    body.rewind()
    assert await whole(body) == b"late, end"


@pytest.mark.threat(116)
@pytest.mark.parametrize(("size", "refused"), [(10, False), (11, True)])
@on_each_loop
async def test_116_a_chunked_body_is_counted_as_it_streams(size: int, *, refused: bool) -> None:
    """At the limit and one byte above it; no byte beyond it is given to anybody, and neither is the end."""
    body = Client(b"a" * 6, b"a" * (size - 6)).bounded(most=10)
    if refused:
        assert await body.read() == b"a" * 6
        for _ in range(2):
            with pytest.raises(TooLarge):
                await body.read()
            body.feed(b"b")
    else:
        assert len(await whole(body)) == size


@pytest.mark.threat(116)
def test_116_a_declared_length_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    """Nothing has to be taken to know that it is too much."""
    Client(b"a", length=10).bounded(most=10)
    client = Client(b"a", length=11)
    with pytest.raises(TooLarge):
        client.bounded(most=10)
    assert client.asked == 0


@pytest.mark.threat(113)
@on_each_loop
async def test_113_a_client_that_stops_sending_is_a_request_timeout() -> None:
    """Seconds between two pieces, not in all."""
    body = Client(b"a", None, b"b").bounded(idle=0.05)
    assert await body.read() == b"a"
    with pytest.raises(RequestTimeout):
        await body.read()
    assert await body.read() == b"b"


@on_each_loop
async def test_a_body_without_an_idle_time_waits_for_ever() -> None:
    """In a tunnel both directions share one timer."""
    body = Client(None).body
    task = asyncio.create_task(body.read())
    await turns()
    assert not task.done()
    body.finish()
    assert await task == b""


@on_each_loop
async def test_a_bad_end_comes_behind_the_bytes_and_the_first_end_counts() -> None:
    """036: each read from then on tells it again, so that no attempt takes the body for complete."""
    client = Client(b"a", BadFraming())
    body = client.bounded()
    assert await body.read() == b"a"
    for _ in range(2):
        with pytest.raises(BadFraming):
            await body.read()
        body.finish()
    body.rewind()
    assert await body.read() == b"a"
    with pytest.raises(BadFraming):
        await body.read()


@on_each_loop
async def test_a_proper_end_stays_one() -> None:
    """What goes wrong on the connection afterwards is not the body's matter."""
    body = Client(b"a").bounded()
    body.feed(b"a")
    body.finish()
    body.finish(BadFraming())
    assert await whole(body) == b"a"


@on_each_loop
async def test_a_body_whose_end_is_here_can_be_taken_at_once() -> None:
    """Then head and body are written as one; not where some of it comes from what was kept."""
    body = Client().bounded()
    body.feed(b"a")
    assert body.take_all() is None
    body.finish()
    assert body.take_all() == b"a"
    assert body.received == 1
    assert await body.read() == b""
    body.rewind()
    assert body.take_all() is None
    assert await whole(body) == b"a"


@on_each_loop
async def test_116_a_body_that_is_taken_at_once_has_the_same_bound() -> None:
    """Its length was not declared."""
    body = Client().bounded(most=3)
    body.feed(b"four")
    body.finish()
    with pytest.raises(TooLarge):
        body.take_all()


@on_each_loop
async def test_104_a_large_body_is_not_gathered_in_memory() -> None:
    """Past the bound it is not replayable, and what passes through is what came."""
    pieces = [os.urandom(64 * KIB) for _ in range(64)]
    body = Client(*pieces).bounded(keep=128 * KIB)
    digest = hashlib.sha256()
    replayable = []
    while piece := await body.read():
        digest.update(piece)
        replayable.append(body.is_replayable)
    assert digest.digest() == hashlib.sha256(b"".join(pieces)).digest()
    assert replayable == [True] * 2 + [False] * 62
    assert body._buffer == []


@pytest.mark.parametrize("begun", [False, True])
@on_each_loop
async def test_a_body_that_will_not_be_sent_again_is_let_go(*, begun: bool) -> None:
    """Nothing is kept while an answer streams; a repeat that still reads from what was kept reads it to the end."""
    body = Client(b"one", b"two").bounded()
    assert [await body.read(), await body.read()] == [b"one", b"two"]
    body.rewind()
    read = await body.read() if begun else b""
    body.forget()
    assert not body.is_replayable
    assert read + await whole(body) == b"onetwo"
    body.forget()
    assert not body.is_replayable


@on_each_loop
async def test_what_comes_behind_a_forgotten_beginning_passes_and_is_not_kept() -> None:
    """The answer is on its way while the client still sends."""
    body = Client(b"one", b"two", b"three").bounded()
    assert await body.read() == b"one"
    body.forget()
    assert await whole(body) == b"twothree"
    assert not body.is_replayable
    assert body.received == 11
