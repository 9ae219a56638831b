"""Rejected secrets on a Redis or Valkey server, for all who share it.

Law: they are sealed before they leave the process, as tokens are; what does not open counts as lost. A credential
has one key for all of its rejections, `PREFIX:{NAME}:rejected`; whoever removes the last one leaves a sealed list
of none, so that this is told from a server that has lost its data. A write that others come before begins anew.
"""

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from proxy.errors import StoreBusy
from proxy.stores.rejections import Rejection, dump, parse
from proxy.stores.seal import Ring

#: So that nothing else that the ring seals opens as rejections.
_BOUND: Final = b"rejections of "
#: Each time somebody else has written; far more often than turns that were lost explain.
_ATTEMPTS: Final = 16
#: ARGV: what was read, what to put in its place. Sent twice, it says the same.
_REPLACE: Final = """
local found = redis.call('GET', KEYS[1]) or ''
if found == ARGV[2] then return 1 end
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class RejectedOnServer:
    """`call` sends a command, `key(name)` is the key of a credential."""

    def __init__(
        self,
        call: Callable[..., Awaitable[Any]],
        ring: Ring,
        key: Callable[[str], str],
        *,
        bound: bytes = _BOUND,
    ) -> None:
        self._call = call
        self._ring = ring
        self._key = key
        self._bound = bound

    async def read(self, name: str) -> tuple[Rejection, ...] | None:
        """What opens. Raises `StoreUnavailable`, as all of it does."""
        return (await self._read(name))[1]

    async def add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        """Behind those that are there."""
        await self._put(name, rejection, without=instead)

    async def remove(self, name: str, some: Collection[Rejection]) -> None:
        """Leave the others."""
        await self._put(name, without=some)

    async def _read(self, name: str) -> tuple[bytes, tuple[Rejection, ...] | None]:
        """What is there, empty for nothing, and what it says."""
        sealed = await self._call("GET", self._key(name))
        content = None if sealed is None else self._ring.open(sealed, self._bound + name.encode())
        return sealed or b"", None if content is None else _parse(content)

    async def _put(self, name: str, *made: Rejection, without: Collection[Rejection]) -> None:
        removed = {each.salt for each in without}
        for _ in range(_ATTEMPTS):
            before, found = await self._read(name)
            every = [*(each for each in found or () if each.salt not in removed), *made]
            content = json.dumps([dump(each).decode("ascii") for each in every]).encode("ascii")
            sealed = self._ring.seal(content, self._bound + name.encode())
            if await self._call("EVAL", _REPLACE, 1, self._key(name), before, sealed):
                return
        raise StoreBusy


def _parse(content: bytes) -> tuple[Rejection, ...] | None:
    """None: another version of this program may have sealed it."""
    try:
        return tuple(parse(each.encode()) for each in json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return None
