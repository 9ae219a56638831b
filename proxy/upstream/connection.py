"""One HTTP/1.1 connection to an upstream, one exchange at a time.

Law: a connection on which anything was odd is never used again (docs/architecture.md, "Duties of the upstream
connection").
"""

import asyncio
import select
from collections.abc import Iterable
from typing import Final

from proxy.alarm import Alarm
from proxy.errors import (
    ProxyError,
    UpstreamBadHeader,
    UpstreamLost,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamTruncated,
)
from proxy.flow import Flow
from proxy.http1.answer import SWITCHED, UNTIL_CLOSE, AnswerHead
from proxy.http1.bodies import Chunked, Decoder
from proxy.http1.section import BadText, Malformed, TooMany, has_bare_lf
from proxy.upstream.answer import Answer, OnInterim
from proxy.upstream.rescue import unread

#: Reading from the upstream pauses above this many unread body bytes. One more read of the socket is there by then.
BUFFERED_MOST: Final = 4 * 1024
#: The head of an answer, interim answers included (threats 63, 64).
HEAD_BYTES: Final = 128 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_BEGINNING: Final = b"HTTP/1."


class Connection(Flow):
    """Writes requests, takes answers, and knows whether it may be used again."""

    __slots__ = (
        "_alarm",
        "_answer",
        "_buffer",
        "_closed",
        "_decoder",
        "_head_bytes",
        "_heard",
        "_is_head_request",
        "_keep_alive",
        "_last_head",
        "_may_switch",
        "_poll",
        "_spoiled",
        "idle_until",
        "keep_alive_timeout",
        "used",
        "wrote",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._alarm = Alarm(loop, self._expire)
        self._answer: Answer | None = None
        self._buffer = b""
        self._decoder: Decoder | None = None
        #: Servers send the same head again and again; it is parsed once.
        self._last_head: AnswerHead | None = None
        self._poll: select.poll | None = None
        self._closed = False
        self._spoiled = False
        self._is_head_request = False
        self._may_switch = False
        self._keep_alive = False
        #: Bytes of whole heads that came in this exchange, and whether any byte came.
        self._head_bytes = 0
        self._heard = False
        #: The upstream's own `Keep-Alive: timeout=N` in seconds, None without one.
        self.keep_alive_timeout: float | None = None
        self.idle_until = 0.0
        #: How many exchanges were begun on it.
        self.used = 0
        #: Whether a byte of the present request was handed to the transport.
        self.wrote = False

    # -- what the relay and the pool call

    def begin(self, method: str, *, may_switch: bool = False, on_interim: OnInterim | None = None) -> Answer:
        """Begin an exchange; the answer will come into what is returned.

        `may_switch`: a 101 is a proper answer. `on_interim` is told of the other interim answers.
        """
        self._is_head_request = method == "HEAD"
        self._may_switch = may_switch
        self._keep_alive = False
        self._head_bytes = 0
        self._heard = False
        self._decoder = None
        self.wrote = False
        self.used += 1
        answer = self._answer = Answer(self, on_interim)
        if self._closed:
            answer.finish(UpstreamLost(untouched=True, silent=True))
        return answer

    def write(self, data: bytes) -> None:
        """Send bytes of the request, as soon as the transport can."""
        if self.transport is not None and not self._closed:
            self.wrote = True
            self.transport.write(data)

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        if self.transport is not None and not self._closed:
            self.wrote = True
            self.send_all(self.transport, pieces)

    async def drain(self, seconds: float) -> None:
        """Wait until the upstream takes more, or is gone. Raises `UpstreamTimeout` after `seconds`."""
        if self.is_writing_paused:
            try:
                await super().drain(seconds)
            except TimeoutError as error:
                raise UpstreamTimeout from error

    async def listen(self) -> None:
        """Let what was said be read before more is written: a write that fails would drop it (threat 105)."""
        if not self.is_quiet():
            # The loop asks the socket in its next round, and reads behind what was ready before.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def sent(self, first_byte: float) -> None:
        """The request is complete: its answer's head must be there within `first_byte` seconds."""
        answer = self._answer
        if answer is not None and answer.head is None and answer.error is None:
            self._alarm.set(self.loop.time() + first_byte)

    def end_writing(self) -> None:
        """Nothing more will be written, in a tunnel; TLS knows no half of an end."""
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.write_eof()
        else:
            self.transport.close()

    @property
    def takes_body(self) -> bool:
        """Is the rest of a request's body still wanted (RFC 9112 section 9.5)?"""
        answer = self._answer
        is_over = (
            answer is not None and answer.head is not None and answer.head.status >= 300 and not self._keep_alive
        )
        return not self._closed and not is_over

    @property
    def is_reusable(self) -> bool:
        """Was the last exchange complete and clean, and may another follow?"""
        answer = self._answer
        return self._keep_alive and not self._spoiled and not self._closed and (answer is None or answer.complete)

    def is_quiet(self) -> bool:
        """Is nothing pending on the idle socket? Data or an EOF there means that it is not ours to use."""
        if self._closed or self._spoiled or self.transport is None or self.transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def fail(self, error: ProxyError) -> None:
        """End the exchange with `error` and the connection with it."""
        if self._answer is not None:
            self._answer.finish(error)
        self.close()

    def close(self) -> None:
        """Close the connection at once; an exchange in progress ends as lost."""
        self._spoiled = True
        if self.transport is not None:
            self.transport.abort()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or, without an exchange, of nothing that we asked for."""
        answer = self._answer
        if answer is None or answer.complete or answer.error is not None:
            self.close()
            return
        try:
            if answer.head is None:
                self._take_heads(answer, data)
            else:
                self._take_body(answer, data)
        except (BadText, TooMany):
            self.fail(UpstreamBadHeader())
        except Malformed:
            self.fail(UpstreamProtocol())
        except UpstreamBadHeader as error:
            self.fail(error)

    def eof_received(self) -> None:
        """The upstream ended its side: no exchange may follow. `connection_lost` comes next."""
        self._keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: for a body that ends with the connection the proper one."""
        if exc is not None and self._answer is not None and self.transport is not None:
            self._spoiled = True
            for data in unread(self.transport):
                self.data_received(data)
                if self._answer.complete or self._answer.error is not None or self._answer.buffered > HEAD_BYTES:
                    break
        super().connection_lost(exc)
        self._closed = True
        self._alarm.close()
        answer = self._answer
        if answer is None or answer.complete:
            return
        if answer.head is None:
            answer.finish(UpstreamLost(untouched=not self.wrote, silent=not self._heard))
        elif answer.framing in (UNTIL_CLOSE, SWITCHED) and exc is None and not self._spoiled:
            answer.finish()
        else:
            answer.finish(UpstreamTruncated())

    # -- the answer

    def _take_heads(self, answer: Answer, data: bytes) -> None:
        """Take the head of the answer, and interim ones before it. Raises `Malformed`, or `UpstreamBadHeader`."""
        self._heard = True
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while answer.head is None:
            end = data.find(_HEAD_END)
            self._head_bytes += end + len(_HEAD_END) if end >= 0 else 0
            if self._head_bytes > HEAD_BYTES or (end < 0 and self._head_bytes + len(data) >= HEAD_BYTES):
                raise UpstreamBadHeader
            if end < 0:
                # Whoever waits for the end of something else would wait for ever.
                if has_bare_lf(data) or not _BEGINNING.startswith(data[: len(_BEGINNING)]):
                    raise Malformed
                self._buffer = data
                return
            self._take_head(answer, data[:end])
            data = data[end + len(_HEAD_END) :]
        if self._decoder is not None and not self._decoder.done:
            if data:
                self._take_body(answer, data)
            else:
                answer.wake()
        else:
            self._finish(answer, data)

    def _take_head(self, answer: Answer, raw: bytes) -> None:
        head = self._last_head
        if head is None or head.whole != raw:
            head = AnswerHead(raw)
            if head.is_interim:
                if answer.on_interim is not None:
                    answer.on_interim(head)
                return
            self._last_head = head
        framing = head.framing(asked_by_head=self._is_head_request)
        if framing == SWITCHED and not self._may_switch:
            raise Malformed
        self._alarm.clear()
        self._keep_alive = head.keep_alive and framing not in (UNTIL_CLOSE, SWITCHED)
        self.keep_alive_timeout = head.keep_alive_timeout
        self._decoder = head.decoder(framing)
        answer.framing = framing
        answer.head = head

    def _take_body(self, answer: Answer, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            raise Malformed
        piece = decoder.feed(data)
        if piece:
            answer.feed(piece)
        if decoder.done:
            if isinstance(decoder, Chunked):
                answer.trailers = decoder.trailers
            self._finish(answer, decoder.rest)
            return
        if answer.buffered > BUFFERED_MOST:
            self.pause_reading()
        if piece:
            answer.wake()

    def _finish(self, answer: Answer, rest: bytes) -> None:
        """The answer is complete; what comes behind it, nobody asked for."""
        if rest:
            self.close()
        answer.finish()

    def _expire(self) -> None:
        self.fail(UpstreamTimeout())
