"""One HTTP/1.1 connection to an upstream, one exchange at a time.

httptools parses and does not judge; the duties that it leaves are done here (docs/architecture.md, "Duties of the
upstream connection"). Law: a connection on which anything was odd is never used again.
"""

import asyncio
import os
import select
from contextlib import suppress
from typing import Final, cast

import httptools

from proxy.errors import (
    ProxyError,
    UpstreamBadHeader,
    UpstreamLost,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamTruncated,
)
from proxy.upstream.answer import Answer
from proxy.upstream.framing import NO_BODY, UNTIL_CLOSE, judge

#: Pause reading from the upstream above this many unread body bytes, go on when all are taken.
BUFFER_HIGH: Final = 128 * 1024
#: The head of an answer, interim answers included, and then all that comes without a byte of a body: chunk
#: extensions, trailers (threats 63, 64).
HEAD_BYTES: Final = 128 * 1024
HEAD_FIELDS: Final = 256


class Connection(asyncio.Protocol):
    """Writes requests, parses answers, and knows whether it may be used again."""

    __slots__ = (
        "_answer",
        "_barren",
        "_can_write",
        "_closed",
        "_field_bytes",
        "_is_head_request",
        "_keep_alive",
        "_parser",
        "_poll",
        "_reading_paused",
        "_spoiled",
        "_timer",
        "_transport",
        "idle_until",
        "keep_alive_timeout",
        "loop",
        "used",
        "wrote",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser
        self._answer: Answer | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._poll: select.poll | None = None
        self._closed = False
        self._spoiled = False
        self._reading_paused = False
        self._is_head_request = False
        self._keep_alive = False
        #: Bytes that came since the last one of a body: heads, trailers, chunk extensions.
        self._barren = 0
        self._field_bytes = 0
        #: The upstream's own `Keep-Alive: timeout=N` in seconds, None without one.
        self.keep_alive_timeout: float | None = None
        self.idle_until = 0.0
        #: How many exchanges were begun on it.
        self.used = 0
        #: Whether a byte of the present request was handed to the transport.
        self.wrote = False

    # -- what the relay and the pool call

    def begin(self, method: str) -> Answer:
        """Begin an exchange; the answer will come into what is returned."""
        # Each answer has a parser of its own: what one left open (a HEAD's waits for the body that its
        # Content-Length speaks of) cannot swallow the next.
        self._parser = httptools.HttpResponseParser(self)
        self._is_head_request = method == "HEAD"
        self._keep_alive = False
        self._barren = self._field_bytes = 0
        self.keep_alive_timeout = None
        self.wrote = False
        self.used += 1
        answer = self._answer = Answer(self)
        if self._closed:
            answer.finish(UpstreamLost(untouched=True, silent=True))
        return answer

    def write(self, data: bytes) -> None:
        """Send bytes of the request, as soon as the transport can."""
        if self._transport is not None and not self._closed:
            self.wrote = True
            self._transport.write(data)

    async def drain(self, seconds: float) -> None:
        """Wait until the transport takes more, and let what the upstream says meanwhile be read.

        A transport whose write fails drops what it has not read yet: the early answer in front of a reset (threat
        105). Returns at once when the connection is gone. Raises `UpstreamTimeout` after `seconds`.
        """
        if self._can_write is not None:
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._can_write)
            except TimeoutError as error:
                raise UpstreamTimeout from error
        if not self.is_quiet():
            # The loop asks the socket in its next round, and reads behind what was ready before.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def sent(self, first_byte: float) -> None:
        """The request is complete: its answer's head must be there within `first_byte` seconds."""
        answer = self._answer
        if answer is not None and not answer.has_head and answer.error is None:
            self._timer = self.loop.call_later(first_byte, self.fail, UpstreamTimeout())

    @property
    def takes_body(self) -> bool:
        """Is the rest of a request's body still wanted (RFC 9112 section 9.5)?"""
        answer = self._answer
        is_over = answer is not None and answer.has_head and answer.status >= 300 and not self._keep_alive
        return not self._closed and not is_over

    @property
    def is_reusable(self) -> bool:
        """Was the last exchange complete and clean, and may another follow?"""
        answer = self._answer
        return self._keep_alive and not self._spoiled and not self._closed and (answer is None or answer.complete)

    def is_quiet(self) -> bool:
        """Is nothing pending on the idle socket? Data or an EOF there means that it is not ours to use."""
        if self._closed or self._spoiled or self._transport is None:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def fail(self, error: ProxyError) -> None:
        """End the exchange with `error` and the connection with it."""
        if self._answer is not None:
            self._answer.finish(error)
        self.close()

    def close(self) -> None:
        """Close the connection at once; an exchange in progress ends as lost."""
        self._spoiled = True
        if self._transport is not None:
            self._transport.abort()

    def drained(self) -> None:
        """The reader took what was buffered."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or, without an exchange, of nothing that we asked for."""
        answer = self._answer
        if answer is None or answer.complete or answer.error is not None:
            self.close()
            return
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(UpstreamProtocol())
            return
        except httptools.HttpParserError as error:
            # Bytes behind a complete answer parse as a new one: that answer stands, the connection does not.
            context = error.__context__
            self.fail(context if isinstance(context, ProxyError) else UpstreamProtocol())
            return
        if self._barren > HEAD_BYTES and not answer.complete:
            self.fail(UpstreamBadHeader())
        elif answer.buffered > BUFFER_HIGH and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The upstream ended its side: no exchange may follow. `connection_lost` comes next."""
        self._keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: for a body that ends with the connection the proper one."""
        if exc is not None:
            self._rescue()
        self._closed = True
        self._transport = None
        self._cancel_timer()
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        answer = self._answer
        if answer is None or answer.complete:
            return
        if not answer.has_head:
            answer.finish(UpstreamLost(untouched=not self.wrote, silent=self._barren == 0))
        elif answer.framing == UNTIL_CLOSE and exc is None and not self._spoiled:
            answer.finish()
        else:
            answer.finish(UpstreamTruncated())

    def _rescue(self) -> None:
        """Read the answer that a transport whose write failed has left in the socket (threat 105)."""
        answer, transport = self._answer, self._transport
        if answer is None or transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        descriptor = transport.get_extra_info("socket").fileno()
        with suppress(OSError):
            while not answer.complete and answer.error is None and answer.buffered <= BUFFER_HIGH:
                if not (data := os.read(descriptor, BUFFER_HIGH)):
                    return
                self.data_received(data)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._can_write = self.loop.create_future()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        """A second answer where one was asked for spoils the connection."""
        answer = self._answer
        if answer is None or answer.complete:
            self._spoiled = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head; trailers are not passed on."""
        answer = self._answer
        if answer is None or answer.has_head:
            return
        self._field_bytes += len(name) + len(value)
        if len(answer.headers) == HEAD_FIELDS or self._field_bytes > HEAD_BYTES:
            raise UpstreamBadHeader
        answer.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there: take it if it is proper, and forget an interim one."""
        answer = self._answer
        if answer is None or answer.has_head:
            return
        status = self._parser.get_status_code()
        framing = judge(
            status, self._parser.get_http_version(), answer.headers, asked_by_head=self._is_head_request
        )
        if framing is None:
            answer.headers.clear()
            return
        answer.status, answer.framing, answer.length = status, framing.kind, framing.length
        self._keep_alive = framing.keep_alive
        self.keep_alive_timeout = framing.keep_alive_timeout
        answer.has_head = True
        self._cancel_timer()
        if answer.framing == NO_BODY:
            answer.finish()
        else:
            answer.wake()

    def on_body(self, data: bytes) -> None:
        """Bytes of the body; behind a HEAD's head they are not what was asked for."""
        self._barren = 0
        answer = self._answer
        if answer is None or answer.complete:
            self._spoiled = True
        else:
            answer.feed(data)

    def on_message_complete(self) -> None:
        """The end of an answer, or of an interim one."""
        if self._answer is not None and self._answer.has_head:
            self._answer.finish()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
