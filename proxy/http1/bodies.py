"""Takes bodies out of a stream of bytes: of a declared length, in chunks, or up to its end (RFC 9112 section 6).

Each decoder has the same three names: `feed` gives the body bytes in `data`, `done` says that the body ended, and
`rest` is what came behind it.
"""

from typing import Final

from proxy.http1.section import TEXT, Malformed, Section, TooMany, has_bare_lf

#: A chunk's size with its extension, which is dropped (RFC 9112 section 7.1.1); 16 hex digits and some.
SIZE_LINE: Final = 4096
_SIZE_DIGITS: Final = 15
_HEX: Final = b"0123456789abcdefABCDEF"


class Decoder:
    """Takes all."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`. Raises `Malformed`."""
        return data


class UntilEnd(Decoder):
    """A body that ends with the connection, which only the connection can say."""

    __slots__ = ()


class Sized(Decoder):
    """A body of `length` bytes."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`."""
        left = self.left = self.left - len(data)
        if left > 0:
            return data
        self.done = True
        self.left = 0
        if left == 0:
            return data
        self.rest = data[left:]
        return data[:left]


class Chunked(Decoder):
    """A body in chunks. `trailers` is the section at its end, once it is `done`.

    `barren` bounds in bytes what comes without a byte of the body: extensions, trailers (threat 64).

    Sizes are bare hexadecimal digits, lines end with CRLF, nothing stands between a chunk and its end: every other
    reading is one that two parsers may not share (threats 35, 37).
    """

    __slots__ = ("_barren", "_barren_most", "_buffer", "_in_trailers", "_left", "trailers")

    def __init__(self, barren: int) -> None:
        super().__init__()
        self._barren_most = barren
        self._buffer = b""
        #: Bytes of the present chunk that are to come; with 2 for the CRLF behind them. 0: a size line is next.
        self._left = 0
        self._barren = 0
        self._in_trailers = False
        self.trailers: Section | None = None

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`. Raises `Malformed`."""
        if self._left > 2 and len(data) <= self._left - 2 and not self._buffer:
            self._left -= len(data)  # all of it lies within one chunk
            self._barren = 0
            return data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[memoryview | bytes] = []
        at = 0
        view = memoryview(data)
        while at < len(data) and not self.done:
            at = self._chunk(data, view, at, pieces) if self._left else self._line(data, at)
            if at < 0:
                break
        if len(pieces) == 1:
            return bytes(pieces[0])
        return b"".join(pieces)

    def _chunk(self, data: bytes, view: memoryview, at: int, pieces: list[memoryview | bytes]) -> int:
        """Take of the present chunk what is there; where `data` goes on, -1: nowhere."""
        take = min(self._left - 2, len(data) - at)
        if take > 0:
            pieces.append(view[at : at + take])
            self._left -= take
            at += take
            self._barren = 0
        if self._left > 2 or at == len(data):
            return at
        end = data[at : at + 2]
        if end == b"\r\n":
            self._left = 0
            return at + 2
        if end == b"\r":
            self._buffer = end
            return -1
        raise Malformed

    def _line(self, data: bytes, at: int) -> int:
        """Take a size line or the trailers; where `data` goes on, -1: they are not all here."""
        if self._in_trailers:
            return self._trailer_section(data, at)
        end = data.find(b"\r\n", at, at + SIZE_LINE)
        if end < 0:
            if len(data) - at >= SIZE_LINE or b"\n" in data[at:]:
                raise Malformed
            self._wait(data, at)
            return -1
        self._count(end + 2 - at)
        size = _size(data[at:end])
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True
        return end + 2

    def _trailer_section(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            end, behind = at, at + 2
        else:
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                if len(data) - at > self._barren_most:
                    raise TooMany
                if has_bare_lf(data[at:]):
                    raise Malformed  # or the end would be waited for
                self._wait(data, at)
                return -1
            behind = end + 4
        self._count(behind - at)
        self.trailers = Section(data[at:end])
        self.done = True
        self.rest = data[behind:]
        return behind

    def _wait(self, data: bytes, at: int) -> None:
        self._buffer = data[at:]

    def _count(self, barren: int) -> None:
        self._barren += barren
        if self._barren > self._barren_most:
            raise TooMany


def _size(line: bytes) -> int:
    """The number of a size line. Raises `Malformed`."""
    digits, mark, extension = line.partition(b";")
    if mark:
        digits = digits.rstrip(b" \t")  # BWS of RFC 9112 section 7.1.1
        if extension.translate(None, TEXT):
            raise Malformed
    if not digits or len(digits) > _SIZE_DIGITS or digits.strip(_HEX):
        raise Malformed
    return int(digits, 16)


def chunk(piece: bytes) -> tuple[bytes, bytes, bytes]:
    """`piece`, which is not empty, as one chunk; not joined, since it may be large."""
    return b"%x\r\n" % len(piece), piece, b"\r\n"


LAST_CHUNK: Final = b"0\r\n\r\n"
