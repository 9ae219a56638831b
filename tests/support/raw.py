"""Writes raw HTTP/1.1 for tests that choose every byte, and says how many bytes the kernel holds in between."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.support.client import DEADLINE
from tests.support.upstreams import HEAD_END

T = TypeVar("T")

LAST_CHUNK: Final = b"0\r\n\r\n"
_TABLE: Final = Path("/proc/net/tcp")
_LISTENING: Final = "0A"
_LOOKS_MOST: Final = 50


def head(method: str, target: str, *lines: str, version: str = "1.1") -> bytes:
    """A request head; `Host: localhost` stands first."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def framed(framing: str, size: int) -> tuple[str, bytes]:
    """The framing field of a body of `size` bytes, and what stands behind the body: of `length` or `chunked`."""
    return (f"Content-Length: {size}", b"") if framing == "length" else ("Transfer-Encoding: chunked", LAST_CHUNK)


def behind_head(data: bytes | bytearray) -> bytes:
    """What follows the first head in `data`."""
    return bytes(data).partition(HEAD_END)[2]


def unchunked(wire: bytes) -> bytes:
    """The content of a whole chunked body, read strictly: nothing may stand behind its last chunk."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = wire.index(b"\r\n", at)
        size = int(wire[at:end], 16)
        at = end + 2 + size
        assert wire[at : at + 2] == b"\r\n"
        if not size:
            assert at + 2 == len(wire)
            return b"".join(pieces)
        pieces.append(wire[at - size : at])
        at += 2


async def within(awaitable: Awaitable[T]) -> T:
    """Wait; a hang becomes a failure."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


def held_by_kernel(*ports: int) -> int:
    """Bytes in the buffers of all TCP connections over IPv4 that have one of these ports at one end.

    That is what was written and is not acknowledged, and what was received and is not read (proc(5)). What moves
    while the table is read may stand in neither, so it is read until it says the same twice.
    """
    if not _TABLE.exists():
        pytest.skip("this machine has no /proc/net/tcp")
    before, found = -1, _queued(ports)
    for _ in range(_LOOKS_MOST):
        if found == before:
            break
        before, found = found, _queued(ports)
    return found


def _queued(ports: tuple[int, ...]) -> int:
    total = 0
    for line in _TABLE.read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        ends = {int(address.rpartition(":")[2], 16) for address in (local, remote)}
        if state != _LISTENING and ends & set(ports):
            total += sum(int(queue, 16) for queue in queues.split(":"))
    return total
