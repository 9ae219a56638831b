"""One credential's token, got once for everybody who needs it (single-flight).

Law: at most one token request of a credential is in flight (invariant 5). It runs in a task of its own, so that a
client that hangs up cancels nobody's refresh and loses no rotated refresh token (threats 86, 87). A new token is in
the store before anybody gets it (threat 90).
What is decided stands in `lifecycle.py`; this module only acts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.credentials.accepting import accepted
from proxy.credentials.credential import Report, reported
from proxy.credentials.events import Events
from proxy.credentials.grant import Grant
from proxy.credentials.keeping import Keeping
from proxy.errors import CredentialError, CredentialRejected, CredentialUnavailable, StoreOutdated, StoreUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Failure, Life, Token, back_off, decide, may_ask, refresh_due_at, state
from proxy.redact import Secret
from proxy.stores.base import Store
from proxy.stores.latch import Latch

log: Final = logging.getLogger("proxy.credentials")

#: A timer of the loop may stand still while the machine sleeps; it looks again at least this often.
LOOK_AGAIN_SECONDS: Final = 60.0


class TokenSource:
    """Keeps one token alive.

    `margin`: seconds before the expiry at which a refresh ahead is due. `fits`: can this value be sent in all
    places of the credential? `random` gives a float in [0, 1). `register` masks the secrets of a generation.
    `store` keeps the token under `binding`, a digest of what it belongs to; `inherits`: see `Keeping`.
    """

    def __init__(
        self,
        name: str,
        grant: Grant,
        *,
        margin: float,
        clock: Clock,
        latch: Latch,
        store: Store,
        binding: bytes,
        fits: Callable[[str], bool],
        random: Callable[[], float],
        register: Callable[[Iterable[Secret]], None],
        events: Events,
        inherits: bool = False,
    ) -> None:
        self.name = name
        self._grant = grant
        self._clock = clock
        self._latch = latch
        self._keeping = Keeping(name, store, binding, clock, inherits=inherits)
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
        if refresh or self._flight is not None or self._keeping.has_changed():
            await self._landed(wait)
            token, _ = decide(self._life, self._clock.now())
        if token is None:
            raise self._error()
        return token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:
        """A token of a later generation than `refused`, None where none can be had within `wait` seconds."""
        token, refresh = decide(self._life, self._clock.now(), after=refused.generation)
        if token is not None or not ask:
            return token
        if refresh or self._flight is not None or self._keeping.has_changed(at_once=True):
            try:
                await self._landed(wait)
            except CredentialError:
                return None
            token, _ = decide(self._life, self._clock.now(), after=refused.generation)
        return token

    # -- what people ask for

    async def refresh(self, wait: float) -> None:
        """Get a new token now, whatever the back-off or the latch says. Raises a `CredentialError`."""
        if self._life.token is None:
            await self._adopt()
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
        return reported(self.name, self._life, self._clock.now(), persisted=self._keeping.persisted)

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
        await self._keeping.close(wait)

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
        """One attempt, from the store to the published token or the remembered failure. Never raises."""
        try:
            await self._keeping.in_turn(self._in_turn)
        except StoreUnavailable as error:
            self._failed(error, retry=True)
        except Exception:
            log.exception("a defect in the token request of credential %s", self.name)
            self._failed(
                CredentialUnavailable(f"The token request of credential {self.name!r} failed."), retry=True
            )
        finally:
            self._flight = None

    async def _in_turn(self) -> None:
        """Take over what somebody else got meanwhile (threat 88); else ask, unless the last failure forbids it."""
        adopted = await self._adopt()
        now, held = self._clock.now(), self._life.token
        if held is not None and self._keeping.forgotten:
            ended = replace(held, expires_at=now, refresh_token=None, refresh_expires_at=None)
            self._life = replace(self._life, token=ended)
        if adopted and state(self._life, now) == "fresh":
            return
        if may_ask(self._life, now):
            await self._ask()

    async def _adopt(self) -> bool:
        """Make a later token from the store the one that is used; was there one?"""
        token = await self._keeping.newer()
        if token is None or not self._fits(token.value.reveal()):
            return False
        held = self._life.token
        if held is not None and token.generation <= held.generation:
            token = replace(token, generation=held.generation + 1)
        self._mask(token)
        self._use(token)
        log.info("token_adopted", extra={"fields": {"credential": self.name, "generation": token.generation}})
        return True

    async def _ask(self) -> None:
        """One token request, from the latch to the published token or the remembered failure."""
        held = self._life.token
        fingerprint = self._grant.fingerprint()
        reason = await self._latch.is_set(self.name, fingerprint)
        if reason is not None and (held is None or held.refresh_token is None):
            self._life = replace(self._life, failure=Failure(CredentialRejected(reason), 1, None))
            return
        await self._keeping.confirm()
        sent_at = self._clock.now()
        self._events.token_requested(self.name)
        failure: CredentialError | None = None
        try:
            await self._publish(await self._grant.obtain(held.refresh_token if held else None), sent_at)
        except CredentialError as error:
            failure = error
        if failure is None:
            await self._latch.clear(self.name, fingerprint)
            return
        # What is no passing trouble may be one's own old refresh token, and somebody else's new one (threat 89).
        passes = isinstance(failure, CredentialUnavailable) and not isinstance(failure, StoreOutdated)
        if not passes and await self._adopt():
            return
        # One that says when to try again is not held against the secret: it stands on somebody else's token.
        may_retry = isinstance(failure, CredentialUnavailable) or failure.retry_after is not None
        if isinstance(failure, CredentialRejected) and not may_retry:
            await self._latch.set(self.name, fingerprint, failure.detail, self._clock.wall())
        self._failed(failure, retry=may_retry)

    async def _publish(self, granted: Granted, sent_at: float) -> None:
        """Make what was granted the token of the next generation: durable first, then in use."""
        token = accepted(
            self.name, granted, self._life.token, sent_at=sent_at, now=self._clock.now(), fits=self._fits
        )
        self._mask(token)
        await self._keeping.save(token)
        self._use(token)
        self._events.token_obtained(self.name)
        fields = {"credential": self.name, "generation": token.generation, "lifetime": granted.lifetime}
        log.info("token_refreshed", extra={"fields": fields})

    def _use(self, token: Token) -> None:
        self._life = Life(self._life.margin, token)
        self._schedule()

    def _mask(self, token: Token) -> None:
        self._register([token.value, *([token.refresh_token] if token.refresh_token else [])])

    def _failed(self, error: CredentialError, *, retry: bool) -> None:
        count = (self._life.failure.count if self._life.failure else 0) + 1
        pause = back_off(count, self._random(), error.retry_after) if retry else None
        retry_at = None if pause is None else self._clock.now() + pause
        self._life = replace(self._life, failure=Failure(error, count, retry_at))
        self._events.token_failed(self.name, error.code)
        fields = {"credential": self.name, "error": error.code, "detail": error.detail, "retry_in": pause}
        log.warning(
            "token_refresh_failed" if retry else error.code, extra={"fields": {**fields, **dict(error.said)}}
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
        due_at = refresh_due_at(self._life)
        if due_at is None or self._closed:
            return
        seconds = min(max(0.0, due_at - self._clock.now()), LOOK_AGAIN_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.look)

    @property
    def next_look(self) -> float | None:
        """Seconds until the timer looks again, None while there is nothing to look for."""
        return None if self._timer is None else self._timer.when() - asyncio.get_running_loop().time()

    def look(self) -> None:
        """The timer's call: refresh if it is time and the credential was used within its last lifetime."""
        self._timer = None
        due_at = refresh_due_at(self._life)
        token = self._life.token
        if due_at is None or token is None or token.expires_at is None:
            return
        now = self._clock.now()
        if now < due_at:
            self._schedule()
        elif self._used_at >= now - (token.expires_at - token.obtained_at):
            self._fly()
