"""A token endpoint that rotates refresh tokens strictly, as a test reads and changes it; no wire is between."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.errors import CredentialUnavailable
from proxy.grants.request import Granted
from proxy.redact import Secret
from tests.support.harness import HeldClock

LIFETIME: Final = 3600.0


class Reused(Protocol):
    """Told when a token came twice; `excused`: nobody could know that it would."""

    def __call__(self, refresh_token: str, *, excused: bool) -> None:
        """Note it."""
        ...


@dataclass
class Endpoint:
    """A server that rotates refresh tokens, and ends the whole family of one that comes twice (RFC 9700 4.14)."""

    clock: HeldClock
    #: Told when a token came twice of which nobody had said that it may.
    reused: Reused
    fate: str = "fine"
    issued: int = 0
    families: dict[str, int] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    #: When an access token is over, on the clock that nobody sets.
    ends_at: dict[str, float] = field(default_factory=dict)
    #: Refresh tokens that may come again: it was told that nobody knows.
    excused: set[str] = field(default_factory=set)
    #: Those that were put back where they had been replaced: who reads them there cannot know.
    put_back: set[str] = field(default_factory=set)

    def begin(self) -> Granted:
        """A login: a family of its own."""
        return self._issue(self.issued + 1)

    def lives(self, refresh_token: str) -> bool:
        """Would it be taken?"""
        return self.families[refresh_token] not in self.ended and refresh_token not in self.spent

    def redeem(self, refresh_token: str, *, excused: bool = False) -> Granted | None:
        """The next of its family; None: it is not taken. `excused`: nobody could know that it comes twice."""
        family = self.families[refresh_token]
        if family in self.ended:
            return None
        if refresh_token in self.spent:
            self.ended.add(family)
            if refresh_token not in self.excused:
                self.reused(refresh_token, excused=excused)
            return None
        self.spent.add(refresh_token)
        return self._issue(family, renewed=True)

    def _issue(self, family: int, *, renewed: bool = False) -> Granted:
        self.issued += 1
        token, refresh_token = f"access-{self.issued:08}", f"refresh-{self.issued:08}"
        self.families[refresh_token] = family
        self.ends_at[token] = self.clock.now() + LIFETIME
        return Granted(Secret(token), Secret(refresh_token), LIFETIME, renewed=renewed)


def undecided(rotated: Secret | None) -> CredentialUnavailable:
    """What is raised where it may have redeemed; `rotated` is all that could be read of the answer."""
    failure = CredentialUnavailable("no answer")
    failure.undecided, failure.rotated = True, rotated
    return failure
