"""Fixtures for processes that share a store, in a folder or on a server, and a vendor with strict rotation."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.instances import Fleet, fleet
from tests.support.leaks import Artefacts, Canaries
from tests.support.redisserver import RedisServer, needs_redis, serving
from tests.support.vendors import Vendor

Starting = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def starting(tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts) -> Starting:
    """Starts real processes that have the given configuration; they end with the block."""
    return lambda config: fleet(tmp_path, config, tracker.environ, artefacts)


@pytest.fixture
def store_key(tmp_path: Path, canaries: Canaries) -> Path:
    """The file with the key that seals the store."""
    path = tmp_path / "store.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(canaries.mint("token")[:32].encode()).decode())
    return path


@pytest.fixture
def shared(tmp_path: Path, tracker: Vendor[TeleTracker], store_key: Path) -> dict[str, Any]:
    """The configuration of all of them: a folder on this machine."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    # These are real processes: nobody moves their clocks.
    return {**tracker.config, "store": {"kind": "file", "path": str(folder), "key": {"file": str(store_key)}}}


@pytest.fixture
def fleet_server(tmp_path: Path, artefacts: Artefacts) -> Iterator[RedisServer]:
    """A real server for their tokens; all that it holds at the end is searched for canaries."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with serving(folder) as made:
        yield made
        artefacts.add("redis", made.everything())


@pytest.fixture
def by_server(tracker: Vendor[TeleTracker], fleet_server: RedisServer, store_key: Path) -> dict[str, Any]:
    """The configuration of all of them: a server."""
    return {**tracker.config, "store": {"kind": "redis", "url": fleet_server.url, "key": {"file": str(store_key)}}}


@pytest.fixture(params=["shared", pytest.param("by_server", marks=needs_redis)], ids=["file", "redis"])
def either(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The configuration of all of them, once with a folder and once with a server."""
    config: dict[str, Any] = request.getfixturevalue(request.param)
    return config
