"""A turn that a server on the network gives: for a while, to whoever can show that it was given to them.

Law: who has lost it finds out before it counts, and takes or ends nobody else's (threat 94). What a lease cannot
promise is that its holder goes on in time; `docs/adr/0011-a-store-for-a-fleet.md` says what follows from that.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from proxy.errors import StoreUnavailable, TurnLost

#: Each script may be sent twice, where the answer to the first was lost, and says the same then.
_TAKE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_LET_GO: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
#: How often a turn of somebody else's is asked for: first, and at last; a pause is up to a half shorter or longer.
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 0.5
#: It is renewed so often that one failure does no harm, and what is left is always enough for a token request.
_SHARE: Final = 3

Call = Callable[..., Awaitable[Any]]
Sleep = Callable[[float], Awaitable[None]]


class Lease:
    """One attempt at the turn in `key`, for `seconds` at a time; `owner` is a word that nobody else can know.

    `now` is on a clock that counts suspend, `jitter` gives floats in [0, 1).
    """

    def __init__(
        self,
        call: Call,
        key: str,
        owner: str,
        *,
        seconds: float,
        now: Callable[[], float],
        sleep: Sleep,
        jitter: Callable[[], float],
    ) -> None:
        self.owner = owner
        self._call = call
        self._key = key
        self._seconds = seconds
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        #: Could the server hold it for us? Also where its answer was lost.
        self._may_be_held = False
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_taken(self) -> bool:
        """Was it ours, for some time at least?"""
        return self._beating is not None

    async def take(self) -> None:
        """Wait until it is ours, and keep it from running out. Raises `StoreUnavailable`."""
        pause = _FIRST_PAUSE
        while not await self._taken():
            await self._sleep(pause * (0.5 + self._jitter()))
            pause = min(pause * 2, _LAST_PAUSE)
        self._beating = asyncio.create_task(self._beat(), name=f"lease of {self._key}")

    async def confirm(self) -> None:
        """See that it is ours for long enough. Raises `TurnLost`, `StoreUnavailable`."""
        asked_at = self._now()
        if not await self._renewed() or self._now() - asked_at > self._seconds / _SHARE:
            raise TurnLost

    async def let_go(self) -> bool:
        """End it, unless it is somebody else's by now. False where the server could not be told; never raises."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
        if self._may_be_held:
            with suppress(StoreUnavailable):
                await self._call("EVAL", _LET_GO, 1, self._key, self.owner)
                self._may_be_held = False
        return not self._may_be_held

    async def _taken(self) -> bool:
        self._may_be_held = True
        self._may_be_held = bool(await self._call("EVAL", _TAKE, 1, self._key, self.owner, self._milliseconds))
        return self._may_be_held

    async def _renewed(self) -> bool:
        return bool(await self._call("EVAL", _RENEW, 1, self._key, self.owner, self._milliseconds))

    @property
    def _milliseconds(self) -> int:
        return round(self._seconds * 1000)

    async def _beat(self) -> None:
        """Renew until it is lost. One that is lost stays lost: somebody else may have had it meanwhile."""
        held = True
        while held:
            await self._sleep(self._seconds / _SHARE)
            with suppress(StoreUnavailable):
                held = await self._renewed()
