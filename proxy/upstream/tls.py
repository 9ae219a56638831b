"""TLS between a TCP connection and the HTTP connection above it: protocol of the one, transport of the other.

The event loops' own layers drop what was received when the peer resets at once, an early answer to an upload for
one (threat 105), and report an end without close_notify as a proper one (threat 66). This one does neither.

Law: what could be decrypted is handed on before an end is told, and only close_notify is a proper end.
"""

import asyncio
import os
import ssl
from contextlib import suppress
from typing import Any, Final, cast

from proxy.upstream.tlsengine import SLICE, Data, Engine

#: What is read at once of a socket whose transport failed.
RESCUE: Final = 256 * 1024


class TLSLayer(asyncio.Transport, asyncio.Protocol):
    """Gives `protocol` a connection once TLS is there: an asyncio transport without half-close.

    Make it the protocol of a connected transport and await `handshake`. `server_name` is sent as SNI, and checked
    as `context` says. An end without close_notify comes to `protocol.connection_lost` as an `ssl.SSLError`, or as
    the `OSError` of the socket.
    """

    __slots__ = (
        "_closing",
        "_context",
        "_engine",
        "_full",
        "_held_up",
        "_loop",
        "_open",
        "_paused",
        "_protocol",
        "_raw",
        "_shaken",
    )

    def __init__(self, protocol: asyncio.Protocol, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._protocol = protocol
        self._context = context
        self._engine = Engine(context, server_name)
        self._loop = asyncio.get_running_loop()
        self._shaken: asyncio.Future[None] = self._loop.create_future()
        self._raw: asyncio.Transport
        #: The protocol above has its connection.
        self._open = False
        self._closing = False
        #: The protocol above wants no more data now; the transport below; the engine.
        self._paused = False
        self._full = False
        self._held_up = False

    async def handshake(self) -> None:
        """Wait until the protocol above has its connection. Raises `ssl.SSLError`; then all is closed."""
        try:
            await self._shaken
        except asyncio.CancelledError:
            self.abort()
            raise

    # -- the transport of the protocol above

    def write(self, data: Data) -> None:
        """Encrypt and send."""
        if self._closing or not data:
            return
        engine = self._engine
        if len(data) <= SLICE:
            self._raw.write(engine.encrypt(data))
        else:
            view = memoryview(data)
            for at in range(0, len(view), SLICE):
                self._raw.write(engine.encrypt(view[at : at + SLICE]))
        if engine.is_over:
            self._raw.abort()
        elif engine.is_held and not self._held_up:
            self._held_up = True
            if not self._full:
                self._protocol.pause_writing()

    def pause_reading(self) -> None:
        """Deliver nothing more until `resume_reading`."""
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        self._paused = False
        self._raw.resume_reading()
        if self._engine.has_input:
            self._loop.call_soon(self._deliver_early)

    def is_reading(self) -> bool:
        """Is data delivered?"""
        return not self._paused and not self._closing

    def close(self) -> None:
        """Send what was written, then close_notify; the peer's own is not waited for (RFC 8446 section 6.1)."""
        if not self._closing:
            self._closing = True
            if not self._held_up:
                self._shut_down()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Is it closed, or about to be? So it is where the peer has ended TLS, and that was not told yet."""
        return self._closing or self._engine.is_over

    def can_write_eof(self) -> bool:
        """No: TLS that was ended on one side only looks like TLS that was cut (RFC 8446 section 6.1)."""
        return False

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return self._raw.get_write_buffer_size() + self._engine.held

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark, in bytes of ciphertext."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol above is paused and resumed."""
        self._raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  asyncio's own signature
        """`ssl_object` and `sslcontext`; all else is the transport's below."""
        if name == "ssl_object":
            return self._engine.tls
        if name == "sslcontext":
            return self._context
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol above."""
        return self._protocol

    # -- the protocol of the transport below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._raw = cast("asyncio.Transport", transport)
        self._shake(b"")

    def data_received(self, data: bytes) -> None:
        """Hand on, in one piece, what it holds."""
        if self._open:
            self._deliver(self._engine.decrypt(data))
        elif not self._closing:
            self._shake(data)

    def _shake(self, data: bytes) -> None:
        try:
            is_done = self._engine.shake(data)
        except ssl.SSLError as error:
            self._raw.write(self._engine.output())  # the alert that tells the peer why
            self._raw.close()
            self._closing = True
            self._fail_handshake(error)
            return
        self._raw.write(self._engine.output())
        if not is_done:
            return
        self._open = True
        self._protocol.connection_made(self)
        if not self._shaken.done():
            self._shaken.set_result(None)
        if self._engine.has_input:
            self._deliver_early()

    def _fail_handshake(self, error: ssl.SSLError) -> None:
        if not self._shaken.done():
            self._shaken.set_exception(error)
            self._shaken.exception()  # heard, even if nobody waits any more

    def _deliver_early(self) -> None:
        """What came together with the end of the handshake."""
        if not self._paused:
            self._deliver(self._engine.decrypt())

    def _deliver(self, plain: bytes) -> None:
        engine = self._engine
        if engine.has_output:  # a word of TLS itself: a step of a renegotiation, an alert
            self._raw.write(engine.output())
        if self._held_up:
            self._send_held()
        if plain and not self._closing:
            self._protocol.data_received(plain)
        if engine.is_over and not self._closing:
            if engine.error is None:
                self._protocol.eof_received()
                self.close()
            else:
                self._raw.abort()

    def _send_held(self) -> None:
        """The peer was heard: try again what waited for it."""
        self._engine.encrypt_held()
        self._raw.write(self._engine.output())
        if not self._engine.is_held:
            self._held_up = False
            if self._closing:
                self._shut_down()
            elif not self._full:
                self._protocol.resume_writing()

    def _shut_down(self) -> None:
        self._engine.close()
        self._raw.write(self._engine.output())
        self._raw.close()

    def eof_received(self) -> None:
        """The peer ended TCP and not TLS: what is still to be sent has no reader."""
        self._raw.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on what the socket still holds, then tell the end."""
        was_closed = self._closing
        if isinstance(exc, OSError) and not was_closed:
            self._rescue()
        self._closing = True
        cut = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without close_notify")
        engine = self._engine
        if not self._open:
            self._fail_handshake(cut)
        elif was_closed or (engine.is_over and engine.error is None):
            self._protocol.connection_lost(None)
        else:
            self._protocol.connection_lost(engine.error or exc or cut)

    def _rescue(self) -> None:
        """Read what a transport whose write failed has left in the socket (threat 105)."""
        descriptor = self._raw.get_extra_info("socket").fileno()
        with suppress(OSError):
            while not self._paused and not self._closing and (data := os.read(descriptor, RESCUE)):
                self.data_received(data)

    def pause_writing(self) -> None:
        """The buffer of the transport below is full."""
        self._full = True
        if not self._held_up:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The buffer of the transport below has room."""
        self._full = False
        if not self._held_up:
            self._protocol.resume_writing()
