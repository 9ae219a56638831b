"""TLS on bytes alone, with OpenSSL between two memory buffers: ciphertext in, plaintext out, and the other way."""

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

Data = bytes | bytearray | memoryview

#: The most plaintext of one record (RFC 8446 section 5.1), and so the most that one read of OpenSSL gives.
RECORD: Final = 16 * 1024
#: What goes through OpenSSL's buffers at once: they keep the largest size that they ever had.
SLICE: Final = 64 * 1024


class Engine:
    """The client's side of one TLS connection. `server_name` is sent as SNI, and checked as `context` says.

    `tls` is Python's own object, for what it tells of the connection. While `is_held`, writes wait for the peer,
    who renegotiates (TLS 1.2) and is heard first. Once `is_over`, nothing more comes: `error` says why, None after
    the peer's close_notify.
    """

    __slots__ = ("_held", "_incoming", "_outgoing", "_read", "error", "is_held", "is_over", "tls")

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: Final = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._read = cast("Callable[[int], bytes]", self.tls.read)
        self._held: deque[bytes] = deque()
        self.is_held = False
        self.error: ssl.SSLError | None = None
        self.is_over = False

    def shake(self, data: bytes = b"") -> bool:
        """Go on with the handshake; is it done? Raises `ssl.SSLError`. Either way there may be output."""
        self._incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    @property
    def has_input(self) -> bool:
        """Came more than the last step of the handshake?"""
        return self._incoming.pending > 0

    @property
    def has_output(self) -> bool:
        """Is there ciphertext to send?"""
        return self._outgoing.pending > 0

    def output(self) -> bytes:
        """The ciphertext to send."""
        return self._outgoing.read()

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return sum(map(len, self._held))

    def encrypt(self, data: Data) -> bytes:
        """The ciphertext to send for `data` (at most `SLICE` bytes), unless that is held."""
        if not self.is_held:
            try:
                self.tls.write(data)
            except ssl.SSLWantReadError:
                self.is_held = True
            except ssl.SSLError as error:
                self._end(error)
        if self.is_held:
            self._held.append(bytes(data))
        return self._outgoing.read()

    def encrypt_held(self) -> None:
        """Try again with what is held; the ciphertext becomes output."""
        try:
            while self._held:
                self.tls.write(self._held[0])
                self._held.popleft()
            self.is_held = False
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._end(error)

    def decrypt(self, data: bytes = b"") -> bytes:
        """What the complete records hold that are there with `data`."""
        pieces: list[bytes] = []
        if len(data) <= SLICE:
            self._incoming.write(data)
            self._read_into(pieces)
        else:
            view = memoryview(data)
            for at in range(0, len(view), SLICE):
                self._incoming.write(view[at : at + SLICE])
                self._read_into(pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Say close_notify; it becomes output."""
        with suppress(ssl.SSLError):  # it wants to read the peer's, which nobody waits for
            self.tls.unwrap()

    def _read_into(self, pieces: list[bytes]) -> None:
        incoming, read = self._incoming, self._read
        try:
            while piece := read(RECORD):
                pieces.append(piece)
                # Behind a short one and the last byte is nothing: not asking saves the exception that says so.
                if len(piece) < RECORD and not incoming.pending:
                    return
            self._end(None)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._end(error)

    def _end(self, error: ssl.SSLError | None) -> None:
        if not self.is_over:
            self.is_over = True
            self.error = error
