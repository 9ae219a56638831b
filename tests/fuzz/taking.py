"""Reads choices and texts off the bytes of an input, the same each time."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Taking:
    """An input, taken from its beginning; behind its end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def byte(self) -> int:
        """The next one."""
        first, self._data = self._data[:1], self._data[1:]
        return first[0] if first else 0

    def choice(self, of: Sequence[T]) -> T:
        """One of these."""
        return of[self.byte() % len(of)]

    def some(self, most: int) -> bytes:
        """So many, or what is left."""
        taken, self._data = self._data[:most], self._data[most:]
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.some(len(self._data))
