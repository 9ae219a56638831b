"""Where tokens rest, as several processes open it."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from proxy.stores.base import Store
from proxy.stores.file import FileStore
from proxy.stores.memory import MemoryStore
from proxy.stores.redis import RedisStore, Timing
from proxy.stores.redisclient import RedisClient, Server
from proxy.stores.seal import Ring
from tests.support.harness import HeldClock
from tests.support.redisserver import RedisServer

OLDER, NEWER = b"k" * 32, b"n" * 32
#: A machine that is busy is no defect.
PATIENCE: Final = 20.0
#: What runs out here, runs out soon.
SHORT: Final = Timing(lease=0.5, patience=PATIENCE)


class Place(Protocol):
    """`kind` is what the configuration calls it."""

    kind: str

    def open(self, *keys: bytes, patience: float = PATIENCE) -> Store:
        """The store as one more process has it; nobody waits for longer than `patience` seconds for a turn."""
        ...


def ring(*keys: bytes) -> Ring:
    """A ring with real nonces."""
    return Ring(keys or (OLDER,), random=os.urandom)


class MemoryPlace:
    """One process: there is no other one that could open it."""

    kind = "memory"

    def __init__(self) -> None:
        self._store = MemoryStore()

    def open(self, *_keys: bytes, patience: float = PATIENCE) -> MemoryStore:  # noqa: ARG002  the contract
        """The only one."""
        return self._store


@dataclass
class FolderPlace:
    """A folder, which need not exist yet."""

    folder: Path
    kind: str = "file"

    def open(self, *keys: bytes, patience: float = PATIENCE) -> FileStore:
        """One more."""
        return FileStore(self.folder, ring(*keys), patience=patience)


@dataclass
class ServerPlace:
    """A real server; each store is a process, as far as that can see."""

    server: RedisServer
    clock: HeldClock = field(default_factory=HeldClock)
    stores: list[RedisStore] = field(default_factory=list)
    kind: str = "redis"

    def open(
        self, *keys: bytes, patience: float = PATIENCE, lease: float = SHORT.lease, **options: Any
    ) -> RedisStore:
        """One more; `options` are those of the `Server`."""
        client = RedisClient(Server(**({"path": str(self.server.socket)} | options)))
        timing = Timing(lease=lease, patience=patience)
        made = RedisStore(client, ring(*keys), prefix="fleet", random=os.urandom, now=self.clock.now, timing=timing)
        self.stores.append(made)
        return made

    async def close(self) -> None:
        """End all of them."""
        for each in self.stores:
            await each.close()
