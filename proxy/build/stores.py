"""The store of tokens, and what its records belong to."""

import hashlib
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from proxy.build.belonging import kin_of, turn_of
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.config.addresses import origin_text
from proxy.config.model import owner_of
from proxy.config.store import StoreConfig
from proxy.errors import ConfigError
from proxy.stores.base import Store
from proxy.stores.latch import Latch
from proxy.stores.local import LocalStore
from proxy.stores.memory import MemoryStore
from proxy.stores.rejections import RejectedFolder
from proxy.tls import client_context

if TYPE_CHECKING:
    from proxy.stores.redisclient import RedisClient


def store(
    config: Config,
    *,
    clock: Clock | None = None,
    random: Callable[[int], bytes] = os.urandom,
    state: Path | None = None,
) -> Store:
    """The store that the configuration describes; close it. Raises `ConfigError`.

    `clock` counts suspend, None: the system's; `random` gives that many random bytes; `state` is the folder for
    what outlives the process, where the processes of this machine take turns that have no store.
    """
    given = config.store
    if given.kind == "redis":
        return _on_redis(given, clock or SystemClock(), random)
    if given.path is None:
        return MemoryStore() if state is None else LocalStore(state / "turns", _locks(config))
    from proxy.stores.file import FileStore  # noqa: PLC0415  no other store needs the cryptography behind it
    from proxy.stores.seal import Ring  # noqa: PLC0415  same

    return FileStore(given.path, Ring(given.keys(), random=random))


def latch(config: Config, state: Path, store: Store) -> Latch:
    """What was rejected before, by all who share `store`, or else the folder `state`."""
    given = config.store
    if given.kind == "redis":
        from proxy.stores.redis import RedisStore  # noqa: PLC0415  an extra, which few need

        return Latch(state, shared=store.rejections if isinstance(store, RedisStore) else None)
    return Latch(state, shared=None if given.path is None else RejectedFolder(given.path / "rejected"))


def follow(store: Store, config: Config) -> None:
    """Let the credentials of another configuration take their turns in `store`, too."""
    if isinstance(store, LocalStore):
        store.locks = {**store.locks, **_locks(config)}


def _locks(config: Config) -> dict[str, str]:
    """The lock files of those who log in: two configurations may call credentials of different servers alike."""
    found = {}
    for name, given in config.credentials.items():
        urls = sorted(given.urls().values())
        kin = kin_of(name, config)
        if urls:
            server = hashlib.sha256(json.dumps(urls).encode()).hexdigest()[:16]
            found[name] = f"{quote(name, safe='')}-{server}.lock"
            if kin is not None and kin.turn == turn_of(name):
                found[kin.turn] = f"{quote(kin.turn, safe='')}-{server}.lock"
    return found


def _on_redis(given: StoreConfig, clock: Clock, random: Callable[[int], bytes]) -> Store:
    """A store for a fleet; it connects when it is first used."""
    from proxy.stores.redis import RedisStore  # noqa: PLC0415  an extra, which few need
    from proxy.stores.seal import Ring  # noqa: PLC0415  same

    ring = Ring(given.keys(), random=random)
    return RedisStore(redis_client(given), ring, prefix=given.prefix, random=random, now=clock.now)


def redis_client(given: StoreConfig) -> "RedisClient":
    """Who speaks to the server of `given`, which has one; close it. Raises `ConfigError`."""
    from proxy.stores.redisclient import RedisClient, Server  # noqa: PLC0415  an extra, which few need

    at = given.server
    server = Server(
        at.host,
        at.port,
        at.socket,
        at.database,
        given.username,
        None if given.password is None else given.password.value,
        _context(given) if at.tls else None,
    )
    return RedisClient(server)


def _context(given: StoreConfig) -> ssl.SSLContext:
    try:
        return client_context(given.tls.ca, cert=given.tls.cert, key=given.tls.key)
    except (OSError, ssl.SSLError):
        mend = "write PEM files that this user can read, and a key without a passphrase that fits the certificate"
        raise ConfigError([f"store.tls: the files cannot be used: {mend}."]) from None


def bound(name: str, config: Config, fingerprint: bytes) -> bytes:
    """The binding of the credential `name`: a digest of its grant's fingerprint and of the origins that may get it.

    A record that was got by another account, elsewhere, or for another upstream does not open with it (threat 53).
    It is a fast hash over secrets: keep it in memory.
    """
    users = [route for route in config.routes if owner_of(config.credentials, route.credential or "") == name]
    origins = {route.upstream_origin for route in users}
    origins.update(config.credentials[name].origins)
    text = json.dumps([fingerprint.hex(), sorted(map(origin_text, origins))])
    return hashlib.sha256(text.encode()).digest()
