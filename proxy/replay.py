"""Keeps a request body while it is sent for the first time, so that it can be sent once more (threat 104).

First in memory, then in an unlinked temporary file, then not at all: a body beyond both bounds cannot be repeated.
What is on disk is what a client uploads, never a token.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, Final

log: Final = logging.getLogger("proxy")

#: Pieces are joined up to this size: a client that sends byte by byte must not cost forty times what it sends.
SMALL: Final = 2048
#: How much of the file is read at a time.
SLICE: Final = 64 * 1024


class Replay:
    """What of one body was read so far; at most `memory` bytes in memory, and `disk` beyond them in a file.

    A file that cannot be made or written to only means that the body cannot be repeated. Writing and reading block,
    since they touch no more than the page cache: 64 KiB take about 25 µs to write and 12 µs to read.
    """

    __slots__ = ("_file", "_kept", "_memory", "_room", "is_whole")

    def __init__(self, memory: int, disk: int) -> None:
        #: Bytes that memory and disk still take.
        self._memory = memory
        self._room = memory + disk
        self._kept: list[bytes] | None = None
        self._file: _Unlinked | None = None
        #: All that was given is here. Once something is missing, nothing is.
        self.is_whole = True

    def keep(self, piece: bytes) -> None:
        """Keep the next piece of the body, or let everything go where it does not fit."""
        if not self.is_whole or not piece:
            return
        self._room -= len(piece)
        if self._room < 0:
            self.drop()
        elif len(piece) <= self._memory:
            self._memory -= len(piece)
            self._remember(piece)
        else:
            self._spill(piece)

    def _remember(self, piece: bytes) -> None:
        kept = self._kept
        if kept is None:
            self._kept = [piece]
        elif len(kept[-1]) + len(piece) <= SMALL:
            kept[-1] += piece
        else:
            kept.append(piece)

    def _spill(self, piece: bytes) -> None:
        """What memory has no room for goes to the file, and everything after it."""
        head, self._memory = self._memory, 0
        if head:
            self._remember(piece[:head])
        try:
            if self._file is None:
                self._file = _Unlinked(_temporary_file())
            self._file.append(memoryview(piece)[head:])
        except OSError as error:
            _warn(error.errno)
            self.drop()

    def pieces(self, size: int = SLICE) -> Iterator[bytes]:
        """What is kept now, from its start: pieces as they came, then slices of the file of up to `size` bytes.

        A `drop` meanwhile takes nothing from who reads it. Raises `OSError` where the file cannot be read.
        """
        file = self._file
        return _given(tuple(self._kept or ()), file, 0 if file is None else file.size, size)

    def drop(self) -> None:
        """Keep nothing, and free what was kept. Once is as good as twice."""
        self.is_whole = False
        self._kept = None
        self._file = None


def _given(kept: tuple[bytes, ...], file: "_Unlinked | None", length: int, size: int) -> Iterator[bytes]:
    yield from kept
    at = 0
    while file is not None and at < length:
        piece = file.read(min(size, length - at), at)
        at += len(piece)
        yield piece


def _temporary_file() -> BinaryIO:
    """A file without a name, for us alone (0600). Raises `OSError`."""
    return tempfile.TemporaryFile(buffering=0)


class _Unlinked:
    """What of a body is in a file; the file is closed with its last owner, a `Replay` or who reads from it."""

    __slots__ = ("_file", "size")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def append(self, piece: memoryview) -> None:
        """Write all of `piece`. Raises `OSError`."""
        while piece:
            written = self._file.write(piece)
            piece = piece[written:]
            self.size += written

    def read(self, size: int, at: int) -> bytes:
        """Up to `size` bytes, at least one, from the offset `at`. Raises `OSError`."""
        piece = os.pread(self._file.fileno(), size, at)
        if not piece:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return piece

    def __del__(self) -> None:
        self._file.close()


@cache
def _warn(reason: int | None) -> None:
    """Say once that request bodies cannot be kept on disk, for each reason."""
    why = "" if reason is None else f" ({os.strerror(reason)})"
    detail = (
        f"Request bodies over replay.memory cannot be sent again after a refused token, since the temporary folder "
        f"does not take them{why}. Make room there, or set TMPDIR to another folder."
    )
    log.warning("replay_file_failed", extra={"fields": {"detail": detail}})
