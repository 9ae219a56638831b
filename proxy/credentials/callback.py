"""Waits on this machine for the browser that an authorization server sends back (RFC 8252 section 7.3).

Law: it listens on 127.0.0.1 alone, for one answer, and every page it shows is a constant (threat 110).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from proxy.errors import BearerProxyError, Rejected
from proxy.grants.authorization import Fault, InvalidCallback
from proxy.http1.request import RequestSection, request_line
from proxy.http1.section import Malformed
from proxy.redact import Secret

_HOST: Final = "127.0.0.1"
#: A code is some hundred bytes, but browsers send the cookies of everything else on this host along.
HEAD_MOST: Final = 32 * 1024
#: A browser opens a few connections ahead of need. The oldest of more than these goes, since others on this machine
#: can connect and say nothing; so many are taken at once that one that speaks is heard before.
CONNECTIONS_MOST: Final = 64
_BACKLOG: Final = 16
#: How long a head may take, and how long an answer may take to go out.
HEAD_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0

#: No scripts, no referrer that would carry the code on, nothing kept.
_FIELDS: Final = (
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Connection: close\r\n"
)


def _page(status: str, text: str, more: str = "") -> bytes:
    body = f"bearer-proxy: {text}\n".encode("ascii")
    return f"HTTP/1.1 {status}\r\n{_FIELDS}{more}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


_ARRIVED: Final = _page("200 OK", "the answer has arrived. Go back to the terminal; this page can be closed.")
_REFUSED: Final = _page("200 OK", "the login was not completed. The terminal says why; this page can be closed.")
_FOREIGN: Final = _page("400 Bad Request", "this does not answer the login that is waited for.")
_USED: Final = _page("410 Gone", "the login has its answer already.")
_MALFORMED: Final = _page("400 Bad Request", "the request is malformed.")
_TOO_LARGE: Final = _page("431 Request Header Fields Too Large", "the request is too large.")
_WRONG_HOST: Final = _page("403 Forbidden", "the request is for another host.")
_NOT_FOUND: Final = _page("404 Not Found", "there is nothing here.")
_WRONG_METHOD: Final = _page("405 Method Not Allowed", "only GET is taken.", "Allow: GET\r\n")


class CallbackError(BearerProxyError):
    """The address cannot be listened on; the message says what mends it."""


class Callback:
    """What the browser comes to. `read` takes a query to the code in it, or raises `InvalidCallback`.

    `foreign` counts what came to the path and was not for this login.
    """

    def __init__(self, path: str, read: Callable[[str], Secret]) -> None:
        self._path = path
        self._read = read
        self.port = 0
        self.foreign = 0
        self._answer: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()
        #: From the oldest to the newest.
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def wait(self) -> Secret:
        """The code that the browser brings. Raises `InvalidCallback` where it brings something else."""
        return await asyncio.shield(self._answer)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A browser, or somebody else."""
        if len(self._open) >= CONNECTIONS_MOST:
            oldest = next(iter(self._open))
            self._open.pop(oldest).close()
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)

    async def close(self) -> None:
        """An answer on its way still goes out, then nothing is left."""
        if self._open:
            _done, late = await asyncio.wait(self._open, timeout=LINGER_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._answer.done():
            self._answer.exception()  # seen, whether or not somebody waited

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, TimeoutError):
                await self._converse(reader, writer)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                head = None
        writer.write(_TOO_LARGE if head is None else self._page_for(head))
        writer.write_eof()
        # What is left unread would reset the connection, and the page could be lost with it.
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(HEAD_MOST):
                pass

    def _page_for(self, head: bytes) -> bytes:
        """The page for a request, and what follows from it.

        1. No proper request. 2. Another host: a page that had its own name point here (threat 1).
        3. Another path, or another method. 4. The answer is there already. 5. Not for this login.
        6. The answer: a code, or why there is none.
        """
        line, _, fields = head[:-4].partition(b"\r\n")
        try:
            method, target, minor = request_line(line)
            section = RequestSection(fields, minor)
        except (Malformed, Rejected):
            return _MALFORMED
        if section.values.get(b"host") != [f"{_HOST}:{self.port}".encode("ascii")]:
            return _WRONG_HOST
        path, _, query = target.decode("latin-1").partition("?")
        if path != self._path:
            return _NOT_FOUND
        if method != "GET":
            return _WRONG_METHOD
        if self._answer.done():
            return _USED
        try:
            self._answer.set_result(self._read(query))
        except InvalidCallback as error:
            if error.fault is Fault.FOREIGN:
                self.foreign += 1
                return _FOREIGN
            self._answer.set_exception(error)
            return _REFUSED
        return _ARRIVED


@asynccontextmanager
async def listening(path: str, read: Callable[[str], Secret], *, port: int = 0) -> AsyncIterator[Callback]:
    """A `Callback` that listens while the block runs; `port` 0 takes a free one. Raises `CallbackError`."""
    callback = Callback(path, read)
    try:
        server = await asyncio.start_server(callback.connected, _HOST, port, limit=HEAD_MOST, backlog=_BACKLOG)
    except OSError:
        raise CallbackError(
            f"{_HOST}:{port} cannot be listened on: end what uses it, or set redirect_port to another port that is "
            "registered at the server."
        ) from None
    callback.port = server.sockets[0].getsockname()[1]
    try:
        yield callback
    finally:
        server.close()
        await callback.close()
