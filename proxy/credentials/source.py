"""One credential's token, got once for everybody who needs it (single-flight).

Law: at most one token request of a credential is in flight (invariant 5). It runs in a task of its own, so that a
client that hangs up cancels nobody's refresh and loses no rotated refresh token (threats 86, 87).
What is decided stands in `lifecycle.py`; this module only acts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.credentials.credential import Report
from proxy.credentials.grant import Grant
from proxy.errors import CredentialError, CredentialRejected, CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Failure, Life, Token, back_off, decide, stale_at, state
from proxy.redact import Secret
from proxy.stores.latch import Latch

log: Final = logging.getLogger("proxy.credentials")

#: A timer of the loop may stand still while the machine sleeps; it looks again at least this often.
LOOK_AGAIN_SECONDS: Final = 60.0


class Events(Protocol):
    """Who wants to know: metrics. Every call is one event of one credential."""

    def token_requested(self, credential: str) -> None:
        """A token request is about to be sent."""
        ...

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        ...

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        ...


class TokenSource:
    """Keeps one token alive.

    `margin`: seconds before the expiry at which a refresh ahead is due. `fits`: can this value be sent in all
    places of the credential? `random` gives a float in [0, 1). `register` masks the secrets of a generation.
    """

    def __init__(
        self,
        name: str,
        grant: Grant,
        *,
        margin: float,
        clock: Clock,
        latch: Latch,
        fits: Callable[[str], bool],
        random: Callable[[], float],
        register: Callable[[Iterable[Secret]], None],
        events: Events,
    ) -> None:
        self.name = name
        self._grant = grant
        self._clock = clock
        self._latch = latch
        self._fits = fits
        self._random = random
        self._register = register
        self._events = events
        self._life = Life(margin)
        self._flight: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._used_at = float("-inf")
        self._closed = False

    # -- the relay's two questions

    async def token(self, wait: float) -> Token:
        """A usable token; within its margin it is refreshed behind the request's back.

        Raises a `CredentialError`: the one that the last attempt ended with, or `CredentialUnavailable` when
        `wait` seconds have passed.
        """
        now = self._used_at = self._clock.now()
        token, refresh = decide(self._life, now)
        if token is not None:
            if refresh:
                self._fly()
            return token
        if refresh or self._flight is not None:
            await self._landed(wait)
            token, _ = decide(self._life, self._clock.now())
        if token is None:
            raise self._error()
        return token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:
        """A token of a later generation than `refused`, None where none can be had within `wait` seconds."""
        token, refresh = decide(self._life, self._clock.now(), after=refused.generation)
        if token is None and ask and (refresh or self._flight is not None):
            try:
                await self._landed(wait)
            except CredentialError:
                return None
            token, _ = decide(self._life, self._clock.now(), after=refused.generation)
        return token

    # -- what people ask for

    async def refresh(self, wait: float) -> None:
        """Get a new token now, whatever the back-off or the latch says. Raises a `CredentialError`."""
        before = self._life.token.generation if self._life.token is not None else 0
        if self._flight is None:
            await self._latch.clear(self.name, self._grant.fingerprint())
            self._life = replace(self._life, failure=None)
        await self._landed(wait)
        token = self._life.token
        if token is None or token.generation <= before:
            raise self._error()

    def report(self) -> Report:
        """The present state."""
        now = self._clock.now()
        token, failure = self._life.token, self._life.failure
        return Report(
            self.name,
            state(self._life, now),
            token.generation if token else 0,
            token.expires_at - now if token and token.expires_at is not None else None,
            token.refresh_expires_at - now if token and token.refresh_expires_at is not None else None,
            failure.error.detail if failure else None,
            failure.retry_at - now if failure and failure.retry_at is not None else None,
        )

    @property
    def problem(self) -> CredentialError | None:
        """Why no token can be had now, None while there is one or nobody has tried in vain."""
        failure = self._life.failure
        return failure.error if failure and state(self._life, self._clock.now()) == "invalid" else None

    async def close(self, wait: float) -> None:
        """Stop refreshing ahead, and let a token request in flight end (threat 111)."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flight is not None:
            await asyncio.wait({self._flight}, timeout=wait)
            if self._flight is not None:
                self._flight.cancel()

    # -- the flight

    def _fly(self) -> asyncio.Task[None]:
        """The token request in flight, begun if there is none."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._obtain(), name=f"token request of {self.name}")
        return self._flight

    async def _landed(self, wait: float) -> None:
        flight = self._fly()
        done, _ = await asyncio.wait({flight}, timeout=wait)
        if not done:
            raise CredentialUnavailable(
                f"The token endpoint of credential {self.name!r} has not answered yet; nothing was sent upstream.",
                retry_after=1.0,
            )
        if flight.cancelled():
            raise CredentialUnavailable("The proxy is shutting down; nothing was sent upstream.")

    async def _obtain(self) -> None:
        """One attempt, from the latch to the published token or the remembered failure. Never raises."""
        try:
            held = self._life.token
            fingerprint = self._grant.fingerprint()
            reason = await self._latch.is_set(self.name, fingerprint)
            if reason is not None and (held is None or held.refresh_token is None):
                self._life = replace(self._life, failure=Failure(CredentialRejected(reason), 1, None))
                return
            sent_at = self._clock.now()
            self._events.token_requested(self.name)
            failure: CredentialError | None = None
            try:
                granted = await self._grant.obtain(held.refresh_token if held else None)
                self._publish(granted, sent_at)
            except CredentialError as error:
                failure = error
            if failure is None:
                await self._latch.clear(self.name, fingerprint)
                return
            if isinstance(failure, CredentialRejected):
                await self._latch.set(self.name, fingerprint, failure.detail, self._clock.wall())
            self._failed(failure, retry=isinstance(failure, CredentialUnavailable))
        except Exception:
            log.exception("a defect in the token request of credential %s", self.name)
            self._failed(
                CredentialUnavailable(f"The token request of credential {self.name!r} failed."), retry=True
            )
        finally:
            self._flight = None

    def _publish(self, granted: Granted, sent_at: float) -> None:
        """Make what was granted the token of the next generation."""
        if not self._fits(granted.token.reveal()):
            raise CredentialUnavailable(
                f"The token that credential {self.name!r} got holds characters that cannot be sent in its place."
            )
        token = Token(
            granted.token,
            self._life.token.generation + 1 if self._life.token else 1,
            sent_at,
            None if granted.lifetime is None else sent_at + granted.lifetime,
            granted.refresh_token,
            self._login_ends_at(granted, sent_at),
        )
        if token.expires_at is not None and token.expires_at <= self._clock.now():
            raise CredentialUnavailable(
                f"The token of credential {self.name!r} was over when it came: check response.lifetime_unit, "
                "and this machine's clock."
            )
        self._register([token.value, *([token.refresh_token] if token.refresh_token else [])])
        self._life = Life(self._life.margin, token)
        self._events.token_obtained(self.name)
        log.info(
            "token_refreshed",
            extra={
                "fields": {"credential": self.name, "generation": token.generation, "lifetime": granted.lifetime}
            },
        )
        self._schedule()

    def _login_ends_at(self, granted: Granted, sent_at: float) -> float | None:
        """When the refresh token ends; what was known at the login holds until a server says otherwise."""
        if granted.refresh_lifetime is not None:
            return sent_at + granted.refresh_lifetime
        return self._life.token.refresh_expires_at if granted.renewed and self._life.token else None

    def _failed(self, error: CredentialError, *, retry: bool) -> None:
        count = (self._life.failure.count if self._life.failure else 0) + 1
        pause = back_off(count, self._random(), error.retry_after) if retry else None
        retry_at = None if pause is None else self._clock.now() + pause
        self._life = replace(self._life, failure=Failure(error, count, retry_at))
        self._events.token_failed(self.name, error.code)
        log.warning(
            "token_refresh_failed" if retry else error.code,
            extra={
                "fields": {"credential": self.name, "error": error.code, "detail": error.detail, "retry_in": pause}
            },
        )
        self._schedule()

    def _error(self) -> CredentialError:
        """The last failure as an answer to one request: a new object, with the seconds that are left."""
        failure = self._life.failure
        if failure is None:
            return CredentialUnavailable(f"Credential {self.name!r} has no token.", retry_after=1.0)
        left = None if failure.retry_at is None else max(1.0, failure.retry_at - self._clock.now())
        return type(failure.error)(failure.error.detail, retry_after=left)

    # -- refresh ahead

    def _schedule(self) -> None:
        """Look again when the refresh ahead, or the next attempt after a failure, is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._due_at()
        if due_at is None or self._closed:
            return
        seconds = min(max(0.0, due_at - self._clock.now()), LOOK_AGAIN_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.look)

    def _due_at(self) -> float | None:
        token, failure = self._life.token, self._life.failure
        due_at = stale_at(token, self._life.margin) if token else None
        if due_at is None or failure is None:
            return due_at
        return None if failure.retry_at is None else max(due_at, failure.retry_at)

    @property
    def next_look(self) -> float | None:
        """Seconds until the timer looks again, None while there is nothing to look for."""
        return None if self._timer is None else self._timer.when() - asyncio.get_running_loop().time()

    def look(self) -> None:
        """The timer's call: refresh if it is time and the credential was used within its last lifetime."""
        self._timer = None
        due_at = self._due_at()
        token = self._life.token
        if due_at is None or token is None or token.expires_at is None:
            return
        now = self._clock.now()
        if now < due_at:
            self._schedule()
        elif self._used_at >= now - (token.expires_at - token.obtained_at):
            self._fly()
