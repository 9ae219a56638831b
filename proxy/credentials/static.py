"""A credential that cannot change: a personal access token, an API key."""

import time

from proxy.clock import Clock
from proxy.credentials.credential import Report
from proxy.errors import CredentialRejected
from proxy.lifecycle import Life, Token, state


class StaticSource:
    """Always the same token; nothing newer can be had."""

    __slots__ = ("_clock", "_name", "_refused_at", "_token")

    def __init__(self, name: str, token: Token, clock: Clock) -> None:
        self._name = name
        self._token = token
        self._clock = clock
        #: In epoch seconds.
        self._refused_at: float | None = None

    async def token(self, wait: float) -> Token:  # noqa: ARG002  the contract's; nothing is waited for
        """The token, also past its end: whether it still serves is for the upstream to say."""
        return self._token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> None:  # noqa: ARG002  same
        """Never, but people are told that it was refused."""
        self._refused_at = self._clock.wall()

    async def refresh(self, wait: float) -> None:  # noqa: ARG002  same
        """Cannot be done."""
        raise CredentialRejected(
            f"Credential {self._name!r} is a fixed token: make a new one at the vendor and put it in its place."
        )

    def report(self) -> Report:
        """Its state, as far as the token itself tells its expiry, and whether an upstream said that it is bad.

        The state is none of the upstream's: what refuses it on one path may take it on all others.
        """
        now = self._clock.now()
        expires_at = self._token.expires_at
        left = None if expires_at is None else expires_at - now
        error = None
        if self._refused_at is not None:
            error = (
                f"At {time.strftime('%H:%M:%SZ, %Y-%m-%d', time.gmtime(self._refused_at))}, an upstream said that "
                f"the fixed token of credential {self._name!r} is bad: make a new one at the vendor, "
                "and put it in its place."
            )
        life = Life(token=self._token)
        return Report(self._name, state(life, now), life.generation, left, last_error=error)

    @property
    def problem(self) -> CredentialRejected | None:
        """That it is over, where the token itself tells.

        An upstream's refusal is none: the next path may take the token, and an instance that is not ready gets no
        request that could show so.
        """
        if self.report().state != "invalid":
            return None
        return CredentialRejected(
            f"The fixed token of credential {self._name!r} has expired: make a new one at the vendor."
        )

    async def close(self, wait: float) -> None:
        """Nothing to end."""
