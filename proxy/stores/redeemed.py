"""Remembers of a refresh token of the configuration that it was redeemed: it comes back with each start.

Law: it is known by the credential's name and a slow salted digest of the token, and by nothing else: whatever is
changed of the credential, and whatever becomes of its record, it is the same token (threats 88, 90). Whoever asks
holds the credential's turn.
"""

import asyncio
import enum
import hmac
import os
from collections.abc import Callable
from typing import Final

from proxy.redact import Secret
from proxy.stores.latch import digest, replaced
from proxy.stores.rejections import SALT_BYTES, Home, Rejection


class Redemption(enum.Enum):
    """How far it came; the value is what rests."""

    #: Somebody was about to redeem it, and has not said how that ended.
    BEGUN = "begun"
    #: Another one is in its place.
    SPENT = "spent"


_ORDER: Final = (Redemption.SPENT, Redemption.BEGUN)


class Redeemed:
    """What became of `token` of the credential `name`, as `home` knows it. Everything raises `StoreUnavailable`.

    `wall` gives the present instant, in epoch seconds; `random` gives that many random bytes.
    """

    def __init__(
        self,
        home: Home,
        name: str,
        token: Secret,
        *,
        wall: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._home = home
        self._name = name
        self._token = token
        self._wall = wall
        self._random = random
        #: Of `_digested`, by the salts that were read last: each costs some 50 ms. What is borrowed may change.
        self._digests: dict[str, str] = {}
        self._digested = Secret("")

    async def state(self) -> Redemption | None:
        """None: nobody has redeemed it, as far as anybody has noted."""
        found = {each.reason for each in await self._mine(await self._read())}
        return next((each for each in _ORDER if each.value in found), None)

    async def note(self, state: Redemption) -> None:
        """Durable when this returns."""
        before = await self._read()
        mine = await self._mine(before)
        salt = self._random(SALT_BYTES).hex()
        self._digests[salt] = await _digest(self._digested, salt)
        made = Rejection(salt, self._digests[salt], state.value, self._wall())
        await self._home.add(self._name, made, replaced(before, mine))

    async def forget(self) -> None:
        """It was not redeemed."""
        await self._home.remove(self._name, await self._mine(await self._read()))

    async def _read(self) -> tuple[Rejection, ...]:
        return await self._home.read(self._name) or ()

    async def _mine(self, some: tuple[Rejection, ...]) -> list[Rejection]:
        token = Secret(self._token.reveal())
        known = self._digests if token == self._digested else {}
        digests = {each.salt: known.get(each.salt) or await _digest(token, each.salt) for each in some}
        self._digests, self._digested = digests, token
        return [each for each in some if hmac.compare_digest(each.digest, digests[each.salt])]


async def _digest(token: Secret, salt: str) -> str:
    return await asyncio.to_thread(digest, token.reveal().encode("utf-8", "surrogatepass"), salt)
