"""Notices a token in an answer's body as it passes, and changes no byte of it (threat 62)."""

from collections.abc import Callable, Sequence


class TokenGuard:
    """Calls `found`, once, where one of `echoes`, a token in the forms in which it may stand in text, has passed.

    Also across the borders of pieces: it keeps less than one token of what has passed.
    """

    __slots__ = ("_echoes", "_found", "_kept", "_tail")

    def __init__(self, echoes: Sequence[bytes], found: Callable[[], None]) -> None:
        self._echoes = echoes
        self._found: Callable[[], None] | None = found
        self._kept = max(map(len, echoes), default=1) - 1
        self._tail = b""

    def see(self, piece: bytes) -> None:
        """The next bytes of the body."""
        if self._found is None:
            return
        seen = self._tail + piece
        if any(echo in seen for echo in self._echoes):
            self._found()
            self._found = None
        else:
            self._tail = seen[max(0, len(seen) - self._kept) :]
