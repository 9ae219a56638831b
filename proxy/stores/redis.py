"""Keeps tokens on a Redis or Valkey server, so that a fleet of instances on many machines shares them.

Law: values are sealed before they leave the process; whoever has the turn may write a token. Anybody else may only
where nobody has written since they read, and so may whoever notes that a refresh token is about to be redeemed: of
all who read it one may (threats 88, 94).

A token has two keys: `PREFIX:{NAME}:token`, a hash of `tag` (a word that is new with each write) and `sealed`,
and `PREFIX:{NAME}:turn`, who has the turn. A record that was removed leaves a tag that begins with a minus, and no
seal: so a logout is told from a server that has lost its data. Beside them are `:rejected` and `:redeemed`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from proxy.errors import StoreBusy, StoreOutdated
from proxy.stores.base import Missing, Record
from proxy.stores.lease import Lease, Sleep
from proxy.stores.records import UNUSABLE, open_record, seal_record
from proxy.stores.redisclient import RedisClient
from proxy.stores.redisrejections import RejectedOnServer
from proxy.stores.seal import Ring
from proxy.stores.servertime import ServerTime

log: Final = logging.getLogger("proxy.stores")

_TAG_BYTES: Final = 16
_LATE_SHARE: Final = 10
_GONE: Final = "-"
#: In place of whose turn it is: whoever is about to redeem, whatever the turn; nobody here. And the tag of nothing.
_REDEEMER: Final = "-"
_NOBODY: Final = ""
_NOTHING: Final = ""
#: ARGV: whose turn it is here, the tag that was read, the new tag, the record. Sent twice, it says the same. Where
#: nothing is, the server has forgotten all: a token that comes late is not lost, but nothing is redeemed.
_SAVE: Final = """
local tag = redis.call('HGET', KEYS[1], 'tag') or ''
if tag == ARGV[3] then return 1 end
if tag ~= ARGV[2] and (ARGV[1] == '-' or tag ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'tag', ARGV[3], 'sealed', ARGV[4])
return 1
"""
#: A record, and when it was read, by the clock that all go by who share it.
_LOAD: Final = """
return {redis.call('TIME'), redis.call('HMGET', KEYS[1], 'tag', 'sealed')}
"""
_FORGET: Final = """
redis.call('HDEL', KEYS[1], 'sealed')
return redis.call('HSET', KEYS[1], 'tag', ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds.

    `lease`: a turn, until it is renewed; a token request takes 20 at most. `patience`: how long to wait for the
    turn, longer than for that of one who died.
    """

    lease: float = 30.0
    patience: float = 45.0


class RedisStore:
    """Sealed records on the server of `client`; all its keys begin with `prefix`.

    `random` gives that many random bytes; `now` is on a clock that counts suspend.
    """

    lasting = True
    needs_turn = True

    def __init__(
        self,
        client: RedisClient,
        ring: Ring,
        *,
        prefix: str,
        random: Callable[[int], bytes],
        now: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
        timing: Timing = Timing(),
    ) -> None:
        self._client = client
        self._ring = ring
        self._prefix = prefix
        self._random = random
        self._now = now
        self._time = ServerTime(now)
        self._sleep = sleep
        self._timing = timing
        #: The turns of this process: one at a time of a name, whatever the server thinks.
        self._locks: dict[str, asyncio.Lock] = {}
        self._leases: dict[str, Lease] = {}
        #: The tag of what was read or written here last, which a write replaces.
        self._read: dict[str, str] = {}
        self._unusable: dict[str, str] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def load(self, name: str, binding: bytes) -> Record | Missing:
        """What the server holds, or why it cannot be used. Raises `StoreUnavailable`."""
        asked_at = self._now()
        time, (tag, sealed) = await self._client.call("EVAL", _LOAD, 1, self._key(name, "token"))
        self._time.hear(time, asked_at)
        read = self._read[name] = "" if tag is None else tag.decode("utf-8", "replace")
        if sealed is None:
            return Missing.LOGGED_OUT if read.startswith(_GONE) else Missing.NOTHING
        found = open_record(self._ring, name, binding, sealed)
        if isinstance(found, Missing) and self._unusable.get(name) != read:
            self._unusable[name] = read
            log.warning("stored_token_unusable", extra={"fields": {"credential": name, "detail": UNUSABLE[found]}})
        return found

    async def save(self, name: str, binding: bytes, record: Record, *, again: bool = False) -> None:
        """Replace what is there, unless others have written since. Raises `StoreOutdated`, `StoreUnavailable`.

        `again`: it may have been there, and been redeemed by somebody else before the server lost it. So it is not
        put where nothing is.
        """
        lease, read = self._leases.get(name), self._read.get(name, _NOTHING)
        tag = self._random(_TAG_BYTES).hex()
        # Who had the turn before may be late, and note the same refresh token.
        owner = _REDEEMER if record.redeeming else _NOBODY if lease is None else lease.owner
        if again:
            owner, read = _REDEEMER, read or _GONE
        written = await self._client.call(
            *("EVAL", _SAVE, 2, self._key(name, "token"), self._key(name, "turn")),
            *(owner, read, tag, seal_record(self._ring, name, binding, record)),
        )
        if not written:
            raise StoreOutdated
        self._read[name] = tag

    async def forget(self, name: str) -> None:
        """Remove the record, so that others see that it was removed. Raises `StoreUnavailable`."""
        tag = f"{_GONE}{self._random(_TAG_BYTES).hex()}"
        await self._client.call("EVAL", _FORGET, 1, self._key(name, "token"), tag)
        self._read[name] = tag

    @property
    def rejections(self) -> RejectedOnServer:
        """What is known here of secrets that were rejected."""
        return RejectedOnServer(self._client.call, self._ring, lambda name: self._key(name, "rejected"))

    @property
    def redeemed(self) -> RejectedOnServer:
        """What is known here of refresh tokens of the configuration."""
        return RejectedOnServer(
            self._client.call, self._ring, lambda name: self._key(name, "redeemed"), bound=b"redemptions of "
        )

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """A lease. Raises `StoreBusy` after `patience` seconds, and `StoreUnavailable`."""
        return self._turn(name)

    def epoch(self, wall: float) -> float:
        """By the server's clock, as it was with the last answer."""
        return self._time.epoch(wall)

    async def ask_time(self) -> None:
        """Ask the server, unless it has said it with a record. Raises `StoreUnavailable`."""
        if not self._time.is_known:
            asked_at = self._now()
            self._time.hear(await self._client.call("TIME"), asked_at)

    async def confirm(self, name: str) -> None:
        """Is the turn that was taken here still ours? Raises `TurnLost`, `StoreUnavailable`."""
        lease = self._leases.get(name)
        if lease is not None:
            await lease.confirm()

    async def close(self) -> None:
        """Let go of what is held, and close the connections."""
        for task in self._late:
            task.cancel()
        if self._late or self._ending:
            await asyncio.wait({*self._late, *self._ending})
        await self._client.close()

    def _key(self, name: str, kind: str) -> str:
        """Quoted, so that no name looks like another's key; what is in braces keeps both keys on one node."""
        return f"{self._prefix}:{{{quote(name, safe='')}}}:{kind}"

    # -- turns

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(name, asyncio.Lock())
        lease = self._lease(name)
        try:
            try:
                async with asyncio.timeout(self._timing.patience):
                    await lock.acquire()
                    self._leases[name] = lease
                    await lease.take()
            except TimeoutError:
                raise StoreBusy from None
            yield
        finally:
            # From here on nobody's lock is released but ours, and nobody's lease ended.
            if self._leases.get(name) is lease:
                del self._leases[name]
                try:
                    await self._end(lease)
                finally:
                    lock.release()

    def _lease(self, name: str) -> Lease:
        return Lease(
            self._client.call,
            self._key(name, "turn"),
            self._random(_TAG_BYTES).hex(),
            seconds=self._timing.lease,
            now=self._now,
            sleep=self._sleep,
            jitter=lambda: self._random(1)[0] / 256,
        )

    async def _end(self, lease: Lease) -> None:
        """Let go also where the holder is cancelled: others would wait until the lease runs out.

        It is waited for where the turn was had, and not where the server may be away.
        """
        task = asyncio.create_task(self._let_go(lease), name="end of a turn")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        if lease.is_taken:
            await asyncio.shield(task)

    async def _let_go(self, lease: Lease) -> None:
        if not await lease.let_go():
            late = asyncio.create_task(self._end_late(lease), name="late end of a turn")
            self._late.add(late)
            late.add_done_callback(self._late.discard)

    async def _end_late(self, lease: Lease) -> None:
        """The server was away; when it is back, nobody has to wait until the lease runs out.

        Time enough to store what could not be stored, before somebody else redeems what was redeemed for it.
        """
        ends_at = self._now() + self._timing.lease
        while self._now() < ends_at:
            await self._sleep(self._timing.lease / _LATE_SHARE)
            if await lease.let_go():
                break
