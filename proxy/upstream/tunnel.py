"""A tunnel through an outbound proxy: CONNECT, and what it may answer (RFC 9110 section 9.3.6).

Law: not one byte behind the answer's head is taken; it belongs to the tunnel. Of the answer nothing is passed on.
"""

import asyncio
import base64
import re
import socket
from dataclasses import dataclass
from typing import Final

from proxy.errors import UpstreamVia
from proxy.redact import Secret
from proxy.upstream.eyeballs import first_connected, resolve

#: The longest head of an answer, interim ones before it included.
HEAD_BYTES: Final = 16 * 1024
_END: Final = b"\r\n\r\n"
#: RFC 9112 section 4 (the blank before a missing reason may be missing too) and section 5, without folded lines.
_LINES: Final = re.compile(
    rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*(?:\r\n)?"
)

_UNREACHABLE: Final = (
    "The outbound proxy (via of the route) cannot be reached: correct its host and port, or start it."
)
_WANTS_LOGIN: Final = (
    "The outbound proxy (via of the route) does not take this user: correct username and password of via, "
    "or add them."
)
_REFUSED: Final = (
    "The outbound proxy (via of the route) opens no way to the upstream: allow the upstream's host and port there."
)
_STRANGE: Final = (
    "The outbound proxy (via of the route) did not answer as an HTTP proxy does: correct its host and port."
)


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """Where an HTTP proxy listens, and who we are to it (None: it does not ask)."""

    host: str
    port: int
    username: str | None = None
    password: Secret | None = None


async def tunnel(via: OutboundProxy, host: str, port: int) -> socket.socket:
    """A non-blocking socket that speaks with `host:port`, behind the proxy. Raises `UpstreamVia`."""
    try:
        sock = await first_connected(await resolve(via.host, via.port))
    except (OSError, UnicodeError) as error:
        raise UpstreamVia(_UNREACHABLE) from error
    try:
        await _open(sock, _request(via, host, port))
    except OSError as error:
        sock.close()
        raise UpstreamVia(_STRANGE) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _open(sock: socket.socket, request: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, request)
    left = HEAD_BYTES
    status = 100
    while status < 200:
        head = await _head(sock, left)
        left -= len(head)
        status = _status(head)
    if status == 407:
        raise UpstreamVia(_WANTS_LOGIN)
    if status >= 300:
        raise UpstreamVia(_REFUSED)


def _request(via: OutboundProxy, host: str, port: int) -> bytes:
    """The head of a CONNECT; its target always has a port (RFC 9112 section 3.2.3)."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if via.username is not None and via.password is not None:
        user = f"{via.username}:{via.password.reveal()}".encode()  # RFC 7617 section 2
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _status(lines: bytes) -> int:
    """The status that the lines of a head begin with. Raises `UpstreamVia` where they are none of a head."""
    match = _LINES.fullmatch(lines)
    # 101 answers an upgrade, and nobody asked for one.
    if match is None or match[1] == b"101":
        raise UpstreamVia(_STRANGE)
    return int(match[1])


def _missing(head: bytes) -> int:
    """How many bytes there are at least until the end of this head; none: it is whole."""
    for have in range(len(_END), 0, -1):
        if head.endswith(_END[:have]):
            return len(_END) - have
    return len(_END)


async def _head(sock: socket.socket, most: int) -> bytes:
    """The next head, and no byte behind it. Raises `UpstreamVia` where there is none of at most `most` bytes."""
    loop = asyncio.get_running_loop()
    head = b""
    while wanted := _missing(head):
        piece = await loop.sock_recv(sock, wanted)
        head += piece
        if not piece or len(head) > most:
            raise UpstreamVia(_STRANGE)
        if b"\n" in piece:
            _status(head[: head.rindex(b"\n") + 1])  # whoever speaks something else may never end a head
    return head
