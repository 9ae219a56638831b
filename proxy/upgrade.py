"""The tunnel behind a WebSocket handshake (RFC 6455): no other protocol is switched to.

The handshake is a request like any other, with the same guard, the same stripping and the same credential; what is
checked here is that both sides mean it. Behind the 101 bytes pass untouched, both ways.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final

from proxy.accesslog import Exchange
from proxy.alarm import Alarm
from proxy.body import RequestBody, Watcher
from proxy.errors import BadUpgrade, UpstreamProtocol, UpstreamTimeout
from proxy.http1.answer import AnswerHead
from proxy.listener.answer import ClientAnswer
from proxy.listener.request import Request
from proxy.upstream.attempt import Attempt
from proxy.upstream.connection import Connection

#: What a handshake says besides its other fields, and what its answer does; hop-by-hop, so both are written anew.
HANDSHAKE_LINES: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_KEY_BYTES: Final = 16
#: How long the upstream may still speak when the client has ended its side.
LAST_WORDS_SECONDS: Final = 5.0
#: RFC 6455 section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def is_handshake(request: Request) -> bool:
    """Does the client ask for a WebSocket? Raises `BadUpgrade` where it does in an improper way (section 4.2.1).

    Any other upgrade is not taken: the request goes on without it (RFC 9110 section 7.8).
    """
    section = request.section
    if b"upgrade" not in section.options or not section.minor:
        return False
    protocols = [word.strip().lower() for value in section.values.get(b"upgrade", ()) for word in value.split(b",")]
    if b"websocket" not in protocols:
        return False
    values = section.values
    keys = values.get(b"sec-websocket-key", [])
    is_proper = request.method == "GET" and not section.has_body
    if not is_proper or values.get(b"sec-websocket-version") != [b"13"] or len(keys) != 1 or not _is_key(keys[0]):
        raise BadUpgrade
    return True


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _is_accepted(request: Request, head: AnswerHead) -> bool:
    """Does the 101 answer this very handshake (section 4.1)?"""
    values = head.values
    key = request.section.values[b"sec-websocket-key"][0]
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324  the protocol's own, no secret
    return (
        [value.lower() for value in values.get(b"upgrade", [])] == [b"websocket"]
        and b"upgrade" in head.options
        and values.get(b"sec-websocket-accept") == [accept]
    )


async def tunnel(
    request: Request,
    attempt: Attempt,
    lines: bytes,
    out: ClientAnswer,
    *,
    exchange: Exchange,
    idle: float,
    watchers: tuple[Watcher, Watcher] | None = None,
) -> None:
    """Pass the 101 on, then bytes both ways until the upstream has ended, or nobody spoke for `idle` seconds.

    `watchers` see what the client says, and what the upstream does. Raises `UpstreamProtocol` where the 101 answers
    another handshake.
    """
    if not _is_accepted(request, attempt.head):
        raise UpstreamProtocol
    connection = attempt.connection
    alarm = Alarm(connection.loop, lambda: connection.fail(UpstreamTimeout()))

    def spoke(silence: float) -> None:
        alarm.set(connection.loop.time() + silence)

    incoming = out.switch(HANDSHAKE_LINES + lines)
    ours, theirs = (None, None) if watchers is None else watchers
    upload = asyncio.create_task(_upwards(incoming, connection, idle, spoke, ours))
    try:
        spoke(idle)
        while piece := await attempt.answer.read(None):
            if not upload.done():
                spoke(idle)
            if theirs is not None:
                theirs.see(piece)
            await out.write((piece,), idle)
    finally:
        alarm.close()
        upload.cancel()
        exchange.bytes_in = incoming.received
    out.end()


async def _upwards(
    incoming: RequestBody,
    connection: Connection,
    idle: float,
    spoke: Callable[[float], None],
    watcher: Watcher | None,
) -> None:
    """What the client sends; its end is passed on, and what the upstream still says at once is not lost."""
    while piece := await incoming.read():
        spoke(idle)
        if watcher is not None:
            watcher.see(piece)
        connection.write(piece)
        await connection.drain(idle)
    connection.end_writing()
    # Perhaps nobody is there any more: a tunnel that is half closed ends soon.
    spoke(min(idle, LAST_WORDS_SECONDS))
