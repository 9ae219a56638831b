"""The way to an upstream: name resolution, TCP or a Unix socket, an outbound proxy, TLS; and how it can fail."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from proxy.errors import (
    UpstreamCertificate,
    UpstreamConnectTimeout,
    UpstreamDNS,
    UpstreamOffLimits,
    UpstreamRefused,
    UpstreamTLS,
    UpstreamUnreachable,
)
from proxy.offlimits import is_off_limits
from proxy.routes import Origin
from proxy.upstream.eyeballs import connected, first_connected, resolve
from proxy.upstream.tls import TLSLayer
from proxy.upstream.tunnel import OutboundProxy, tunnel

_NO_SOCKET: Final = "There is no Unix socket at the upstream's path: start the upstream, or correct the path."
_NOT_ALLOWED: Final = (
    "This user may not connect to the upstream: change the mode of its Unix socket, or the rule of the firewall."
)


@contextmanager
def _translated() -> Iterator[None]:
    """The one boundary where foreign errors of connecting become ours."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamConnectTimeout from error
    except (socket.gaierror, UnicodeError) as error:
        raise UpstreamDNS from error
    except ssl.CertificateError as error:
        raise UpstreamCertificate from error
    except ssl.SSLError as error:
        raise UpstreamTLS from error
    except ConnectionRefusedError as error:
        raise UpstreamRefused from error
    except FileNotFoundError as error:
        raise UpstreamUnreachable(_NO_SOCKET) from error
    except PermissionError as error:
        raise UpstreamUnreachable(_NOT_ALLOWED) from error
    except OSError as error:
        raise UpstreamUnreachable from error


class Dialer:
    """Connects to `origin`, always in the same way; nothing of the environment (`HTTP_PROXY`) changes it.

    `tls` (None: plain) and `server_name` (None: the origin's host) say how the upstream is verified. `via` is an
    outbound proxy: everything, plain HTTP too, then goes through a tunnel, so that it sees no token, and it is the
    one that resolves the upstream's name.
    """

    __slots__ = ("_origin", "_server_name", "_tls", "_via")

    def __init__(
        self,
        origin: Origin,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        via: OutboundProxy | None = None,
    ) -> None:
        self._origin = origin
        self._tls = tls
        # SNI has no final dot, and neither have certificates (RFC 6066 section 3).
        self._server_name = (server_name or origin.host).rstrip(".")
        self._via = via

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Connect, and give the connection to `protocol` (`connection_made`). The caller bounds the time.

        Raises an `UpstreamError`; then, and when it is cancelled, nothing stays open.
        """
        with _translated():
            sock = await self._socket()
            loop = asyncio.get_running_loop()
            if self._tls is None:
                await loop.create_connection(lambda: protocol, sock=sock)
            else:
                layer = TLSLayer(protocol, self._tls, self._server_name)
                await loop.create_connection(lambda: layer, sock=sock)
                await layer.handshake()

    async def _socket(self) -> socket.socket:
        origin = self._origin
        if origin.socket is not None:
            return await connected(socket.AF_UNIX, origin.socket)
        if self._via is not None:
            return await tunnel(self._via, origin.host, origin.port)
        found = await resolve(origin.host, origin.port)
        allowed = [address for address in found if not is_off_limits(address[1][0])]
        if not allowed:
            raise UpstreamOffLimits
        return await first_connected(allowed)
