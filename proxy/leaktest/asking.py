"""Asks the copy as clients do, with bytes of any kind, and says which part of an answer is the upstream's own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from proxy.leaktest.farend import MARK

#: Longer than all timeouts of a copy together, in seconds.
_SECONDS: Final = 15.0
_MOST: Final = 1 << 22


async def ask(url: str, data: bytes) -> bytes:
    """What comes back for `data` on a connection of its own, until that ends, or nothing more comes."""
    received = bytearray()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            reader, writer = await _connected(url)
            try:
                writer.write(data)
                while len(received) < _MOST and (piece := await reader.read(65536)):
                    received += piece
                    if _is_tunnel(received):
                        break
            finally:
                writer.close()
    return bytes(received)


@asynccontextmanager
async def hearing(url: str, data: bytes, received: bytearray) -> AsyncIterator[None]:
    """While the block lasts, what comes for `data` is added to `received`."""
    reader, writer = await _connected(url)

    async def hear() -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                received.extend(piece)

    writer.write(data)
    task = asyncio.create_task(hear())
    try:
        yield
    finally:
        task.cancel()
        writer.close()


async def _connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"))
    host, _colon, port = url.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


def _is_tunnel(received: bytearray) -> bool:
    """It ends when we end it; an echo of what was sent is there by then."""
    return received.startswith(b"HTTP/1.1 101 ") and received.partition(b"\r\n\r\n")[2] != b""


def own(answer: bytes) -> tuple[bytes, bool]:
    """The part of an answer that the proxy answers for, and whether it is an upstream's.

    That is all heads and trailers, and the body where it is the proxy's own. An upstream's body passes unchanged,
    and so may hold whatever the upstream knows.
    """
    heads = list(_heads(answer))
    if not any(_is_far(head) for head in heads):
        return answer, False
    body = answer[sum(map(len, heads)) :]
    trailers = body.rpartition(b"\r\n0\r\n")[2] if b"transfer-encoding: chunked" in heads[-1].lower() else b""
    return b"".join([*heads, trailers]), True


def _heads(answer: bytes) -> Iterator[bytes]:
    """The interim heads, and the final one."""
    while answer:
        head, end, answer = answer.partition(b"\r\n\r\n")
        yield head + end
        if not head.startswith(b"HTTP/1.1 1") or head.startswith(b"HTTP/1.1 101"):
            break


def _is_far(head: bytes) -> bool:
    return f"\r\n{MARK}:".lower().encode() in head.lower()
