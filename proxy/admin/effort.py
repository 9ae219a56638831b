"""How much work a text that is looked through may make: counted and not timed, so that it is the same each time."""

from typing import Final

#: Characters, each time that one is looked at. So many take some 0.3 s, and only what is made to takes them all.
MOST: Final = 3 << 20
#: What takes a step of its own, as a string, a tag or an escape does, is as much as so many characters.
PIECE: Final = 8


class TooMuchError(Exception):
    """A text makes more work than it may: nobody knows what is in it."""


class Effort:
    """What is left of the work that may be done."""

    __slots__ = ("_left",)

    def __init__(self, most: int = MOST) -> None:
        self._left = most

    def spend(self, pieces: int, characters: int = 0) -> None:
        """Before these are looked at. Raises `TooMuchError`."""
        self._left -= PIECE * pieces + characters
        if self._left < 0:
            raise TooMuchError
