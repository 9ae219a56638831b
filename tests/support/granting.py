"""A grant that a test answers by hand, and ears for what a token source tells."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.grants.request import Granted
from proxy.redact import Secret


@dataclass
class Script:
    """A grant: each attempt waits for what the test puts in; an exception is raised."""

    outcomes: asyncio.Queue[Granted | BaseException] = field(default_factory=asyncio.Queue)
    asked_with: list[Secret | None] = field(default_factory=list)
    can_begin: bool = False

    async def obtain(
        self, refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """One attempt."""
        self.asked_with.append(refresh_token)
        outcome = await self.outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def begins_anew(self) -> bool:
        """As the test says."""
        return self.can_begin

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token."""
        return refresh_token is not None


@dataclass
class Heard:
    """What the source told its surroundings."""

    events: list[str] = field(default_factory=list)
    registered: list[Secret] = field(default_factory=list)

    def token_requested(self, credential: str) -> None:
        """A request is about to be sent."""
        self.events.append(f"{credential} requested")

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        self.events.append(f"{credential} obtained")

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        self.events.append(f"{credential} {code}")

    def register(self, secrets: Iterable[Secret]) -> None:
        """Mask these."""
        self.registered += secrets
