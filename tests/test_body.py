"""A request's body: streamed as it comes, kept up to a bound, and never more than was announced or allowed."""

import asyncio
import hashlib
import os
from collections import deque
from typing import Final

import pytest

from proxy.body import RequestBody
from proxy.errors import BadFraming, RequestTimeout, TooLarge
from tests.support.upstreams import DEADLINE, on_each_loop, turns

KIB: Final = 1024


class Pieces:
    """What the listener's reader gives, from a list; at a `None` it waits for ever."""

    def __init__(self, *pieces: bytes | Exception | None, is_here: bool = False) -> None:
        self._pieces = deque(pieces)
        self._is_here = is_here
        self.reads = 0

    async def readany(self) -> bytes:
        """The next piece."""
        self.reads += 1
        piece = self._pieces.popleft() if self._pieces else b""
        if piece is None:
            await asyncio.Event().wait()
        if isinstance(piece, Exception):
            raise piece
        assert piece is not None
        return piece

    def is_eof(self) -> bool:
        """Did the last byte arrive?"""
        return self._is_here


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
    """104: byte for byte the same the second time; over the bound nothing is kept at all."""
    data = os.urandom(size)
    stream = Pieces(*(data[at : at + 100] for at in range(0, size, 100)))
    body = RequestBody(stream, length, keep=keep, most=None, idle=DEADLINE)
    assert await whole(body) == data
    assert body.received == size
    assert body.is_replayable is replayable
    if replayable:
        reads = stream.reads
        body.rewind()
        assert await whole(body) == data
        assert stream.reads == reads + 1  # the end was asked for, nothing else
        assert body.received == size


@on_each_loop
async def test_a_body_can_begin_again_in_its_middle() -> None:
    """105: after an early refusal the repeat sends what was kept, and then goes on with what still comes."""
    body = RequestBody(Pieces(b"one", b"two", b"three"), None, keep=KIB, most=None, idle=DEADLINE)
    assert [await body.read(), await body.read()] == [b"one", b"two"]
    body.rewind()
    assert await whole(body) == b"onetwothree"
    body.rewind()
    assert await whole(body) == b"onetwothree"


@on_each_loop
async def test_a_read_that_is_cancelled_loses_no_byte() -> None:
    """105: the upload of the refused attempt is stopped while it waits for the client."""
    reader = asyncio.StreamReader()

    class Stream:
        async def readany(self) -> bytes:
            return await reader.read(KIB)

        def is_eof(self) -> bool:
            return reader.at_eof()

    body = RequestBody(Stream(), None, keep=KIB, most=None, idle=DEADLINE)
    for at_its_turn in (False, True):
        task = asyncio.create_task(body.read())
        await turns()
        if at_its_turn:
            reader.feed_data(b"late")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    reader.feed_data(b", end")
    reader.feed_eof()
    body.rewind()
    assert await whole(body) == b"late, end"


@pytest.mark.parametrize(("size", "refused"), [(10, False), (11, True)])
@on_each_loop
async def test_a_chunked_body_is_counted_as_it_streams(size: int, *, refused: bool) -> None:
    """116, E13: at the limit and one byte above it; aiohttp's own limit does not count streamed bytes."""
    body = RequestBody(Pieces(b"a" * 6, b"a" * (size - 6)), None, keep=KIB, most=10, idle=DEADLINE)
    if refused:
        with pytest.raises(TooLarge):
            await whole(body)
    else:
        assert len(await whole(body)) == size


def test_a_declared_length_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    """116: nothing has to be taken to know that it is too much."""
    stream = Pieces(b"a")
    RequestBody(stream, 10, keep=KIB, most=10, idle=DEADLINE)
    with pytest.raises(TooLarge):
        RequestBody(stream, 11, keep=KIB, most=10, idle=DEADLINE)
    assert stream.reads == 0


@on_each_loop
async def test_a_client_that_stops_sending_is_a_request_timeout() -> None:
    """113: seconds between two pieces, not in all."""
    body = RequestBody(Pieces(b"a", None), None, keep=KIB, most=None, idle=0.05)
    assert await body.read() == b"a"
    with pytest.raises(RequestTimeout):
        await body.read()


@on_each_loop
async def test_what_the_reader_raises_is_bad_framing_and_its_text_stays_behind() -> None:
    """036, 080: the foreign message may quote the request."""
    body = RequestBody(Pieces(b"a", ValueError("CANARY")), None, keep=KIB, most=None, idle=DEADLINE)
    assert await body.read() == b"a"
    with pytest.raises(BadFraming) as bad:
        await body.read()
    assert "CANARY" not in str(bad.value)
    assert "CANARY" not in bad.value.detail


@pytest.mark.parametrize("is_here", [False, True])
def test_a_body_is_here_when_the_reader_has_its_end(*, is_here: bool) -> None:
    """Then head and body are written as one."""
    body = RequestBody(Pieces(is_here=is_here), 0, keep=0, most=None, idle=DEADLINE)
    assert body.is_here is is_here


@on_each_loop
async def test_a_large_body_is_not_gathered_in_memory() -> None:
    """104, 114: past the bound what was kept is let go, and the rest only passes through."""
    pieces = [os.urandom(64 * KIB) for _ in range(64)]
    body = RequestBody(Pieces(*pieces), None, keep=128 * KIB, most=None, idle=DEADLINE)
    digest = hashlib.sha256()
    most = 0
    while piece := await body.read():
        digest.update(piece)
        most = max(most, sum(map(len, body._kept)))
    assert digest.digest() == hashlib.sha256(b"".join(pieces)).digest()
    assert (most, len(body._kept)) == (128 * KIB, 0)


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_body_that_will_not_be_sent_again_is_let_go(at: int) -> None:
    """Nothing is kept while an answer streams; a repeat that still reads from what was kept reads it to the end."""
    content = RequestBody(Pieces(b"one", b"two"), None, keep=100, most=None, idle=DEADLINE)
    assert [await content.read(), await content.read()] == [b"one", b"two"]
    content.rewind()
    read = [await content.read() for _ in range(at)]
    content.forget()
    rest = [await content.read() for _ in range(2 - at)]
    assert read + rest == [b"one", b"two"]
    assert not content.is_replayable
    assert content._kept == []
