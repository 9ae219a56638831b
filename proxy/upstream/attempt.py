"""One request sent upstream: the head, the body beside it, and the answer's head.

Here stands the rule for a connection that was lost (docs/architecture.md, "Refusals", 7): a request is sent again
by itself only where the upstream cannot have acted on it, and at most once (threat 103).
"""

import asyncio
import logging
from time import perf_counter
from typing import Final

from proxy.body import RequestBody
from proxy.errors import ProxyError, UpstreamLost
from proxy.http1.answer import AnswerHead
from proxy.http1.bodies import LAST_CHUNK, chunk
from proxy.upstream.answer import Answer, OnInterim
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool

log: Final = logging.getLogger("proxy")

#: Methods without effect (RFC 9110 section 9.2.1) that may be repeated where no byte of an answer came.
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Attempt:
    """A request on one connection. `end` gives the connection back; call it whatever happened."""

    __slots__ = (
        "_connection",
        "_ended",
        "_pool",
        "_upload",
        "answer",
        "connected_at",
        "head",
        "is_kept",
        "was_resent",
    )

    def __init__(self, pool: Pool, connection: Connection, answer: Answer) -> None:
        self._pool = pool
        self._connection = connection
        self._ended = False
        self._upload: asyncio.Task[None] | None = None
        self.answer = answer
        #: The answer's, once it is there.
        self.head: AnswerHead
        #: A lost connection was replaced on the way to this answer; and this one had served before.
        self.was_resent = self.is_kept = False
        #: The instant of `perf_counter` at which the connection was there, had it to be waited for; else 0.
        self.connected_at = 0.0

    def start(self, head: bytes, body: RequestBody | None, first_byte: float) -> None:
        """Send the head, and begin with the body."""
        connection = self._connection
        whole = b"" if body is None else body.take_all()
        if whole is None and body is not None:
            connection.write(head)
            self._upload = asyncio.create_task(self._stream(body, first_byte))
            return
        if body is not None:
            head = b"".join([head, *(_framed(whole, body) if whole else ()), _last(body)])
        connection.write(head)
        connection.sent(first_byte)

    async def stop_upload(self) -> None:
        """Stop sending: the answer that came is a final one, and the rest of the body is not wanted here."""
        if self._upload is not None and not self._upload.done():
            self._upload.cancel()
            await asyncio.wait({self._upload})

    def release_if_over(self) -> None:
        """Give the connection back where the exchange is complete; the answer stays readable."""
        if self._upload_is_over and self.answer.complete:
            self.end()

    def end(self) -> None:
        """The exchange is over, in whatever way; once is enough."""
        if self._ended:
            return
        self._ended = True
        if not self._upload_is_over:
            if self._upload is not None:
                self._upload.cancel()
            self._connection.close()
        elif not self.answer.complete:
            self._connection.close()
        self._pool.release(self._connection)

    @property
    def connection(self) -> Connection:
        """Where it goes on, in a tunnel."""
        return self._connection

    @property
    def _upload_is_over(self) -> bool:
        upload = self._upload
        return upload is None or (upload.done() and not upload.cancelled() and upload.exception() is None)

    async def _stream(self, body: RequestBody, first_byte: float) -> None:
        connection = self._connection
        try:
            while True:
                # First the one before: there is never more than one piece here.
                await connection.drain(first_byte)
                piece = await body.read()
                if not piece:
                    break
                await connection.listen()
                if not connection.takes_body:
                    return
                connection.write_all(_framed(piece, body))
        except ProxyError as error:
            connection.fail(error)
            return
        except Exception:
            # What was kept of the body cannot be read, say. Whoever waits for the answer must not wait for ever.
            log.exception("internal_error")
            connection.fail(ProxyError())
            return
        connection.write(_last(body))
        connection.sent(first_byte)


def _framed(piece: bytes, body: RequestBody) -> tuple[bytes, ...]:
    return (piece,) if body.length is not None else chunk(piece)


def _last(body: RequestBody) -> bytes:
    return b"" if body.length is not None else LAST_CHUNK


async def send(
    pool: Pool,
    method: str,
    head: bytes,
    body: RequestBody | None,
    *,
    first_byte: float,
    fresh: bool = False,
    may_resend: bool = True,
    may_switch: bool = False,
    on_interim: OnInterim | None = None,
) -> Attempt:
    """Send a request and wait for the answer's head, at most `first_byte` seconds after the request's end.

    `fresh`: on a connection that nobody used before. A connection that was reused and lost
    is replaced once by a fresh one: for a safe method if no byte of an answer came, for any if not one byte of
    the request had been written. `may_switch` and `on_interim`: see `Connection.begin`.
    """
    was_resent = False
    while True:
        connected_at = 0.0
        connection = None if fresh else pool.take()
        if connection is None:
            connection = await pool.acquire(fresh=fresh)
            connected_at = perf_counter()
        was_used = connection.used > 0
        answer = connection.begin(method, may_switch=may_switch, on_interim=on_interim)
        attempt = Attempt(pool, connection, answer)
        attempt.was_resent, attempt.is_kept, attempt.connected_at = was_resent, was_used, connected_at
        try:
            attempt.start(head, body, first_byte)
            attempt.head = await answer.wait_for_head()
        except UpstreamLost as error:
            lost = error
        except BaseException:
            attempt.end()
            raise
        else:
            return attempt
        await attempt.stop_upload()
        attempt.end()
        harmless = lost.untouched or (lost.silent and method in SAFE)
        is_replayable = body is None or body.is_replayable
        if not may_resend or not was_used or not harmless or not is_replayable:
            raise lost
        if body is not None:
            body.rewind()
        fresh, was_resent = True, True  # nobody used that one: it is not replaced in its turn
