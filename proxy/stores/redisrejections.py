"""Rejected secrets on a Redis or Valkey server, for all who share it.

Law: they are sealed before they leave the process, as tokens are; what does not open counts as none. A credential
has one key for all of its rejections, `PREFIX:{NAME}:rejected`.
"""

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from proxy.stores.rejections import Rejection, dump, parse
from proxy.stores.seal import Ring

#: So that nothing else that the ring seals opens as rejections.
_BOUND: Final = b"rejections of "


class RejectedOnServer:
    """`call` sends a command, `key(name)` is the key of a credential. Whoever writes has the credential's turn."""

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

    async def read(self, name: str) -> tuple[Rejection, ...]:
        """What opens."""
        sealed = await self._call("GET", self._key(name))
        content = None if sealed is None else self._ring.open(sealed, self._bound + name.encode())
        return () if content is None else _parse(content)

    async def add(self, name: str, rejection: Rejection, instead: Collection[Rejection]) -> None:
        """Behind those that are there."""
        await self._put(name, [*(each for each in await self.read(name) if each not in instead), rejection])

    async def remove(self, name: str, some: Collection[Rejection]) -> None:
        """Leave the others."""
        await self._put(name, [each for each in await self.read(name) if each not in some])

    async def _put(self, name: str, rejections: list[Rejection]) -> None:
        if not rejections:
            await self._call("DEL", self._key(name))
            return
        content = json.dumps([dump(each).decode("ascii") for each in rejections]).encode("ascii")
        await self._call("SET", self._key(name), self._ring.seal(content, self._bound + name.encode()))


def _parse(content: bytes) -> tuple[Rejection, ...]:
    """Another version of this program may have sealed it."""
    try:
        return tuple(parse(each.encode()) for each in json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return ()
