"""The store of tokens, and what its records belong to."""

import hashlib
import json
import os
from collections.abc import Callable

from proxy.config import Config
from proxy.config.addresses import origin_text
from proxy.config.model import owner_of
from proxy.stores.base import Store
from proxy.stores.memory import MemoryStore


def store(config: Config, *, random: Callable[[int], bytes] = os.urandom) -> Store:
    """The store that the configuration describes; `random` gives that many random bytes."""
    given = config.store
    if given.path is None:
        return MemoryStore()
    from proxy.stores.file import FileStore  # noqa: PLC0415  no other store needs the cryptography behind it
    from proxy.stores.seal import Ring  # noqa: PLC0415  same

    return FileStore(given.path, Ring(given.keys(), random=random))


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
