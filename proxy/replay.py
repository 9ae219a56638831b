"""Temporary until the real one is merged."""

from collections.abc import Iterator


class Replay:
    """Keeps pieces."""

    __slots__ = ("_memory", "_pieces", "_size", "is_whole")

    def __init__(self, memory: int, disk: int) -> None:
        self._memory = memory + disk
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_whole = True

    def keep(self, piece: bytes) -> None:
        """Keep."""
        if not self.is_whole:
            return
        self._size += len(piece)
        if self._size > self._memory:
            self.drop()
        else:
            self._pieces.append(piece)

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Again."""
        return iter(tuple(self._pieces))

    def drop(self) -> None:
        """Forget."""
        self.is_whole = False
        self._pieces = []
