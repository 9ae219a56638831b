"""An outbound proxy: it opens tunnels for CONNECT, asks for Basic where told to, and keeps what it saw."""

import asyncio
import base64
from types import TracebackType
from typing import Final, Self

HEAD_END: Final = b"\r\n\r\n"


class ConnectProxy:
    """Listens on a free port of loopback; use it as `async with`.

    `user` is `name:password`; `elsewhere` maps a host that is asked for to the one that is connected to, as a proxy
    that resolves names does.
    """

    def __init__(self, *, user: str | None = None, elsewhere: dict[str, str] | None = None) -> None:
        self.heads: list[bytes] = []
        #: The bytes of all tunnels, towards the upstream.
        self.passed = bytearray()
        self.port = 0
        self._wanted = None if user is None else base64.b64encode(user.encode())
        self._elsewhere = elsewhere or {}
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for tunnel in self._tunnels:
            tunnel.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tunnels.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either end is gone, or the test is over
        finally:
            writer.transport.abort()
            self._tunnels.discard(task)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(HEAD_END)
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        if self._wanted is not None and b"\r\nProxy-Authorization: Basic " + self._wanted + b"\r\n" not in head:
            writer.write(
                b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n'
                b"Content-Length: 0\r\n\r\n"
            )
            await writer.drain()
            return
        host, _, port = target.decode().rpartition(":")
        host = self._elsewhere.get(host, host.strip("[]"))
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = [
                asyncio.create_task(self._copy(reader, far_writer, self.passed)),
                asyncio.create_task(self._copy(far_reader, writer, bytearray())),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.transport.abort()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        while piece := await reader.read(65536):
            kept += piece
            writer.write(piece)
            await writer.drain()
