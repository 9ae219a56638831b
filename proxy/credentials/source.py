"""One credential's token, got once for everybody who needs it (single-flight).

Law: at most one token request of a credential is in flight (invariant 5). It runs in a task of its own, so that a
client that hangs up cancels nobody's refresh and loses no rotated refresh token (threats 86, 87). A new token is in
the store before anybody gets it (threat 90). What is decided stands in `lifecycle.py`; this module only acts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.credentials.accepting import accepted, left, remaining
from proxy.credentials.ahead import Ahead
from proxy.credentials.attempt import attempt
from proxy.credentials.barring import Barring, Fingerprint, Kin
from proxy.credentials.credential import Report, reported
from proxy.credentials.events import Events
from proxy.credentials.grant import Grant
from proxy.credentials.keeping import Keeping
from proxy.credentials.telling import tell_of_failure, tell_of_token
from proxy.errors import CredentialError, CredentialRejected, CredentialUnavailable, StoreOutdated, StoreUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Failure, Life, Token, back_off, decide, state, told
from proxy.redact import Secret
from proxy.stores.base import Store
from proxy.stores.latch import Latch

log: Final = logging.getLogger("proxy.credentials")

#: After a lender had no token it is asked again.
LENDER_SECONDS: Final = 1.0


class TokenSource:
    """Keeps one token alive.

    `margin`: seconds before the expiry at which a refresh ahead is due. `fits`: can this value be sent in all
    places of the credential? `random` gives a float in [0, 1). `register` masks the secrets of a generation.
    `store` keeps the token under `binding`, a digest of what it belongs to; `inherits`: see `Keeping`, and `Kin`.
    """

    def __init__(
        self,
        name: str,
        grant: Grant,
        *,
        fingerprint: Fingerprint,
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
        kin: Kin | None = None,
    ) -> None:
        self.name = name
        self._grant = grant
        self._clock = clock
        self._barring = Barring(name, fingerprint, latch=latch, store=store, clock=clock, kin=kin)
        self._keeping = Keeping(name, store, binding, clock, inherits=inherits)
        self._looking: asyncio.Task[None] | None = None
        self._fits = fits
        self._random = random
        self._register = register
        self._events = events
        self._life = Life(margin)
        self._flight: asyncio.Task[None] | None = None
        self._used_at = float("-inf")
        self.ahead = Ahead(clock, life=lambda: self._life, used_at=lambda: self._used_at, refresh=self._fly)

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
            elif self._keeping.is_due():
                self._look_there()
            return token
        await self._waited(wait, 0, refresh=refresh)
        token, _ = decide(self._life, self._clock.now())
        if token is None:
            raise self._error()
        return token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:
        """A token of a later generation than `refused`, None where none can be had within `wait` seconds."""
        token, refresh = decide(self._life, self._clock.now(), after=refused.generation)
        if token is not None or not ask:
            return token
        try:
            await self._waited(wait, refused.generation, refresh=refresh, at_once=True)
        except CredentialError:
            return None
        token, _ = decide(self._life, self._clock.now(), after=refused.generation)
        return token

    async def _waited(self, wait: float, after: int, *, refresh: bool, at_once: bool = False) -> None:
        """Wait for the flight where `refresh` is due, or a look finds that it is; a look asks for nothing."""
        if not refresh and self._flight is None:
            is_barred = self._barring.is_due(self._life.failure)
            if self._keeping.is_due(at_once=at_once) or is_barred:
                await asyncio.wait({self._look_there()}, timeout=wait)
            token, refresh = decide(self._life, self._clock.now(), after=after)
            if token is not None or not refresh:
                return
        await self._landed(wait)

    async def refresh(self, wait: float) -> None:
        """Get a new token now, whatever the back-off or the latch says. Raises as `token` does."""
        before = self._life.generation
        self._fly(forced=True)
        await self._landed(wait)
        if self._life.failure is not None or self._life.generation <= before:
            raise self._error()

    def report(self) -> Report:
        """The present state."""
        return reported(self.name, self._life, self._clock.now(), persisted=self._keeping.persisted)

    @property
    def problem(self) -> CredentialError | None:
        """Why no token can be had now, None while there is one or nobody has tried in vain."""
        failure = self._life.failure
        return failure.error if failure and state(self._life, self._clock.now()) == "invalid" else None

    def adapt(self, other: "TokenSource") -> asyncio.Task[None] | None:
        """Go on as `other`, unused and of this binding, was made; gives the flight, which ends as it began."""
        self._grant, self._fits = other._grant, other._fits  # noqa: SLF001  its own class
        self._barring.adapt(other._barring)  # noqa: SLF001  its own class
        self._life = replace(self._life, margin=other._life.margin)  # noqa: SLF001  its own class
        return self._flight

    async def close(self, wait: float) -> None:
        """Stop refreshing ahead, and let a token request in flight end (threat 111)."""
        self.ahead.stop()
        if self._looking is not None:
            self._looking.cancel()
        if self._flight is not None:
            await asyncio.wait({self._flight}, timeout=wait)
            if self._flight is not None:
                self._flight.cancel()
        await self._keeping.close(wait)

    # -- the flight

    def _fly(self, *, forced: bool = False) -> asyncio.Task[None]:
        """The token request in flight, begun if there is none; `forced`: whatever the last failure says."""
        if self._flight is None:
            flight = self._obtain(self._life.generation, forced=forced)
            self._flight = asyncio.create_task(flight, name=f"token request of {self.name}")
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

    async def _obtain(self, after: int, *, forced: bool) -> None:
        """One attempt to get what follows `after`, from the store to the token or the failure. Never raises."""
        try:
            async with self._barring.in_turn():
                await self._keeping.in_turn(lambda: self._in_turn(after, forced=forced))
        except StoreUnavailable as error:
            self._failed(error, retry=True)
        except Exception:
            log.exception("a defect in the token request of credential %s", self.name)
            why = f"The token request of credential {self.name!r} failed."
            self._failed(CredentialUnavailable(why), retry=True)
        finally:
            self._flight = None

    async def _in_turn(self, after: int, *, forced: bool) -> None:
        """Take over what somebody else got meanwhile (threat 88); else ask, unless the last failure forbids it."""
        if forced:
            await self._barring.clear()
            self._life = replace(self._life, failure=None)
        await self._follow()
        # Who had no token, and wants a new one, wants another than the one that was stored.
        after = self._life.generation if forced and after == 0 else after
        # Another look, which was under way when the flight began, may have been there before this one.
        if decide(self._life, self._clock.now(), after=after)[1]:
            await self._ask(forced=forced)

    def _look_there(self) -> asyncio.Task[None]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._there(), name=f"look at the store of {self.name}")
        return self._looking

    async def _there(self) -> None:
        if self._flight is None:
            await self._follow()
            failure = self._life.failure
            if await self._barring.is_over(failure) and self._life.failure is failure:
                self._life = replace(self._life, failure=None)
        self._keeping.save_soon()

    async def _follow(self) -> bool:
        """Use a later token from the store, and nothing more where somebody logged out; was there one?"""
        token, held = await self._keeping.newer(), self._life.token
        if token is None or not self._fits(token.value.reveal()):
            if (kept := left(held, self._keeping, self._clock.now())) is not None:
                self._hold(kept)
            return False
        if held is not None and token.generation <= held.generation:
            token = replace(token, generation=held.generation + 1)
        self._mask(token)
        self._use(token)
        log.info("token_adopted", extra={"fields": {"credential": self.name, "generation": token.generation}})
        return True

    async def _ask(self, *, forced: bool) -> None:
        """One token request, from the latch to the published token or the remembered failure."""
        held = self._life.token
        reason = await self._barring.reason(forced=forced)
        if reason is not None and (held is None or not self._grant.can_refresh(held.refresh_token, held.value)):
            self._life = replace(self._life, failure=Failure(CredentialRejected(reason), 1, None))
            return
        await self._keeping.confirm()
        sent_at = self._clock.now()

        def accept(granted: Granted) -> Token:
            now = self._clock.now()
            return accepted(self.name, granted, held, sent_at=sent_at, now=now, fits=self._fits)

        self._events.token_requested(self.name)
        try:
            await self._publish(await attempt(self.name, self._grant, self._keeping, held, accept, barred=reason))
        except CredentialError as error:
            failure = error
        else:
            return
        if (kept := remaining(self.name, held, failure, anew=self._grant.begins_anew)) is not None:
            self._hold(kept)
            await self._keeping.save(kept)
        # What is no passing trouble may be one's own old refresh token, and somebody else's new one (threat 89).
        passes = isinstance(failure, CredentialUnavailable) and not isinstance(failure, StoreOutdated)
        if not passes and await self._follow():
            return
        # One that says when to try again is not held against the secret: it stands on somebody else's token.
        retry = isinstance(failure, CredentialUnavailable) or failure.retry_after is not None or failure.is_lenders
        if isinstance(failure, CredentialRejected) and not retry and reason is None:
            await self._barring.set(failure.detail)
        self._failed(failure, retry=retry)

    async def _publish(self, token: Token) -> None:
        """Make it the one that is used: durable first."""
        self._mask(token)
        await self._keeping.save(token)
        self._use(token)
        self._events.token_obtained(self.name)
        tell_of_token(self.name, token)

    def _use(self, token: Token) -> None:
        self._life = Life(self._life.margin, token)
        self.ahead.schedule()

    def _hold(self, token: Token) -> None:
        self._mask(token)
        self._life = replace(self._life, token=token)

    def _mask(self, token: Token) -> None:
        self._register([token.value, *([token.refresh_token] if token.refresh_token else [])])

    def _failed(self, error: CredentialError, *, retry: bool) -> None:
        count = (self._life.failure.count if self._life.failure else 0) + 1
        pause = None
        if retry:
            # To ask a lender costs nothing: it minds its own pauses.
            pause = LENDER_SECONDS if error.is_lenders else back_off(count, self._random(), error.retry_after)
        retry_at = None if pause is None else self._clock.now() + pause
        self._life = replace(self._life, failure=Failure(error, count, retry_at))
        self._events.token_failed(self.name, error.code)
        tell_of_failure(self.name, error, pause)
        self.ahead.schedule()

    def _error(self) -> CredentialError:
        if self._life.failure is not None:
            return told(self._life.failure, self._clock.now())
        return CredentialUnavailable(f"Credential {self.name!r} has no token.", retry_after=1.0)
