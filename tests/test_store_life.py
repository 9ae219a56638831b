"""Tokens that outlive the process, as clients and vendors see it: restarts, several instances, broken disks."""

import asyncio
import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import build
from proxy.config import Config, Source, load
from proxy.demo.teletracker import TeleTracker
from proxy.redact import Secret
from proxy.stores.base import Record, Store
from tests.support.api import api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.vendors import Vendor


class Stored:
    """Starts proxies to TeleTracker that keep their tokens in one folder."""

    def __init__(
        self, proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, folder: Path, key: str
    ) -> None:
        self._proxying = proxying
        self._clock = clock
        self.tracker = tracker
        self.folder = folder
        self.environ = {**tracker.environ, "STORE_KEY": key}

    def config(self, **changes: Any) -> dict[str, Any]:
        """The short form, with a store of files."""
        store = {"kind": "file", "path": str(self.folder), "key": {"env": "STORE_KEY"}}
        return {**self.tracker.config, "store": store, **changes}

    def proxy(self, config: dict[str, Any] | None = None) -> Any:
        """`async with stored.proxy() as proxy`: one run of the proxy."""
        return self._proxying(config or self.config(), environ=self.environ, clock=self._clock)

    def loaded(self) -> Config:
        """The configuration, as a command that runs beside the proxy loads it."""
        return load(Source(yaml.safe_dump(self.config()), "text", None, "test"), environ=self.environ)

    @property
    def token_requests(self) -> dict[str, int]:
        """How many of each kind the vendor has seen."""
        return dict(self.tracker.double.token_requests)


@pytest.fixture
def stored(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, tmp_path: Path, canaries: Canaries
) -> Stored:
    """All that is in the folder at the end is searched for canaries, the key among them."""
    key = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(key, "key")
    return Stored(proxying, tracker, clock, tmp_path / "tokens", key)


async def asked(proxy: Proxy) -> int:
    """The status of one request."""
    answer = await proxy.ask("GET", "/calls")
    return int(answer.status)


async def state(proxy: Proxy) -> dict[str, Any]:
    """What `/api/credentials` says of the one credential."""
    [found] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
    return dict(found)


async def test_a_restart_goes_on_with_the_stored_token(stored: Stored) -> None:
    """Zero token requests; its end and its number are those that it had."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        before = await state(proxy)
        assert before["persisted"] is True
    async with stored.proxy() as proxy:
        assert (await state(proxy))["persisted"] is None
        assert await asked(proxy) == 200
        assert await state(proxy) == before
        [line] = proxy.lines("token_adopted")
        assert (line["credential"], line["generation"]) == ("default", 1)
    assert stored.token_requests == {"login": 1}


async def test_a_stored_token_that_is_over_is_renewed_by_its_refresh_token(
    stored: Stored, clock: HeldClock
) -> None:
    """By the last one of those that were rotated, restart after restart."""
    for count in range(3):
        async with stored.proxy() as proxy:
            assert await asked(proxy) == 200
            assert (await state(proxy))["generation"] == count + 1
            assert stored.token_requests == {"login": 1} | ({"refresh": count} if count else {})
        clock.move(3601)
    assert stored.tracker.double.refresh_reuses == 0


async def test_a_stored_token_that_the_upstream_refuses_is_renewed_as_any_other(stored: Stored) -> None:
    """It was revoked while nothing ran."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    stored.tracker.double.expire()
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.threat(132)
async def test_a_stored_refresh_token_that_is_refused_leads_to_a_login(stored: Stored, clock: HeldClock) -> None:
    """The file was lost and came back from a backup, say (132)."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    kept = (stored.folder / "default.token").read_bytes()
    clock.move(3601)
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    (stored.folder / "default.token").write_bytes(kept)
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 2, "refresh": 2}


async def test_132_an_old_file_that_is_put_back_under_a_running_proxy_is_replaced(
    stored: Stored, clock: HeldClock
) -> None:
    """By the token that it uses, before anybody redeems an old refresh token: one login, no reuse."""
    path = stored.folder / "default.token"
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        kept = path.read_bytes()
        clock.move(3601)
        assert await asked(proxy) == 200
        path.write_bytes(kept)
        os.utime(path, ns=(1, 1))

        async def replaced() -> bool:
            clock.move(2.5)
            assert await asked(proxy) == 200
            return path.read_bytes() != kept

        while not await replaced():
            pass
        [line] = proxy.lines("stored_token_older")
        assert (line["credential"], line["generation"], line["stored"]) == ("default", 2, 1)
    clock.move(3601)
    async with stored.proxy() as proxy:
        # Nobody knows whether somebody had replaced it in between.
        assert await asked(proxy) == 200
        assert len(proxy.lines("token_rotation_lost")) == 1
    assert stored.token_requests == {"login": 2, "refresh": 1}
    assert stored.tracker.double.refresh_reuses == 0


@pytest.mark.threat(53)
async def test_053_another_upstream_never_gets_the_stored_token(stored: Stored) -> None:
    """Not even once: the record is bound to the origins that it was got for."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    before = stored.tracker.double.issued
    async with api() as other:
        async with stored.proxy(stored.config(upstream=other.url)) as proxy:
            assert await asked(proxy) == 200
            assert len(proxy.lines("stored_token_unusable")) == 1
        [seen] = other.seen
        assert not any(token in value for token in before for _, value in seen.headers)
    assert stored.token_requests == {"login": 2}


CHANGED: dict[str, dict[str, Any]] = {
    "another account": {"account_id": 4712},
    "a further origin": {"origins": ["https://elsewhere.example"]},
}


@pytest.mark.threat(53)
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
async def test_053_a_stored_token_serves_only_the_credential_that_got_it(
    stored: Stored, change: dict[str, Any]
) -> None:
    """After an edit of the configuration it counts as none, and the next one takes its place."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    changed = stored.config(credential={**stored.tracker.credential, **change})
    for _ in range(2):
        async with stored.proxy(changed) as proxy:
            assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 2}


@pytest.mark.threat(133)
async def test_133_a_lost_key_costs_a_login(stored: Stored) -> None:
    """And is told."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    stored.environ["STORE_KEY"] = base64.b64encode(os.urandom(32)).decode()
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        assert len(proxy.lines("stored_token_unusable")) == 1
    assert stored.token_requests == {"login": 2}


@pytest.mark.threat(88)
async def test_088_a_second_instance_takes_over_what_the_first_one_got(stored: Stored, clock: HeldClock) -> None:
    """At the start, and each time the token is over: one token request for both."""
    async with stored.proxy() as one, stored.proxy() as two:
        for count in range(3):
            first, second = (one, two) if count % 2 else (two, one)
            assert await asked(first) == 200
            assert await asked(second) == 200
            assert [(await state(each))["generation"] for each in (one, two)] == [count + 1] * 2
            clock.move(3601)
    assert stored.token_requests == {"login": 1, "refresh": 2}
    assert stored.tracker.double.refresh_reuses == 0


@pytest.mark.threat(88)
async def test_088_two_instances_that_need_a_token_at_once_ask_once(stored: Stored, clock: HeldClock) -> None:
    """The second one waits for its turn, reads again, and has nothing to ask for any more."""
    double = stored.tracker.double
    async with stored.proxy() as one, stored.proxy() as two:
        assert (await asked(one), await asked(two)) == (200, 200)
        clock.move(3601)
        double.set(token_endpoint="slow")
        both = asyncio.gather(asked(one), asked(two))
        await double.holding()
        double.set(token_endpoint="up")
        double.release()
        assert list(await both) == [200, 200]
    assert stored.token_requests == {"login": 1, "refresh": 1}
    assert double.refresh_reuses == 0


async def test_088_a_token_that_was_refused_is_replaced_by_the_one_that_another_instance_got(
    stored: Stored,
) -> None:
    """Both were refused the same token; the second finds the newer one in the store."""
    async with stored.proxy() as one, stored.proxy() as two:
        assert (await asked(one), await asked(two)) == (200, 200)
        stored.tracker.double.expire()
        assert (await asked(one), await asked(two)) == (200, 200)
    assert stored.token_requests == {"login": 1, "refresh": 1}


def _a_file_in_the_way(folder: Path) -> None:
    folder.write_text("in the way")


def _open_to_others(folder: Path) -> None:
    folder.mkdir(mode=0o755)


@pytest.mark.threat(91)
@pytest.mark.parametrize("spoil", [_a_file_in_the_way, _open_to_others])
async def test_091_where_nothing_can_be_written_tokens_serve_from_memory(
    stored: Stored, clock: HeldClock, spoil: Callable[[Path], None]
) -> None:
    """It is said once, and `/api/credentials` shows it; refresh tokens work as with a store in memory."""
    async with stored.proxy() as proxy:
        spoil(stored.folder)
        for _ in range(3):
            assert await asked(proxy) == 200
            clock.move(3601)
        assert (await state(proxy))["persisted"] is False
        [line] = proxy.lines("token_not_persisted")
        assert line["level"] == "warning"
        assert "store.path" in line["detail"]
        assert len(proxy.lines("store_unavailable")) == 1
    assert stored.token_requests == {"login": 1, "refresh": 2}


async def test_091_what_could_not_be_written_is_tried_again_at_the_end(stored: Stored, clock: HeldClock) -> None:
    """The disk was full for a while; the rotated refresh token is not lost with the process."""
    async with stored.proxy() as proxy:
        stored.folder.write_text("in the way")
        assert await asked(proxy) == 200
        stored.folder.unlink()
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        clock.move(3601)
        assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 1, "refresh": 1}


async def test_a_forced_refresh_asks_also_after_a_restart(stored: Stored) -> None:
    """What the store holds is where it begins, and not what it gives."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    async with stored.proxy() as proxy:
        answer = await proxy.admin("POST", "/api/credentials/default/refresh")
        assert (answer.status, answer.json()["generation"]) == (200, 2)
    assert stored.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.threat(102)
async def test_102_a_record_that_somebody_removed_is_used_no_more(stored: Stored, clock: HeldClock) -> None:
    """Its refresh token neither: this one logs in anew, with a later number."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        await build.store(stored.loaded()).forget("default")
        answer = await proxy.admin("POST", "/api/credentials/default/refresh")
        assert (answer.status, answer.json()["generation"]) == (200, 2)
        clock.move(3601)
        assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 2, "refresh": 1}


# -- what a command beside the proxy needs, `login` above all


def beside(stored: Stored) -> tuple[Store, bytes]:
    """The store, and what the credential's records are bound to, as `build` gives them."""
    config = stored.loaded()
    return build.store(config), build.binding_of("default", config)


async def test_what_a_command_stores_is_used_by_a_proxy_that_was_rejected(stored: Stored, clock: HeldClock) -> None:
    """Noticed within two seconds, by itself, and without a token request."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
        token = stored.tracker.double.issued[0]
    shutil.rmtree(stored.folder)
    stored.environ["TRACKER_PASSWORD"] = "wrong-for-this-one"
    store, binding = beside(stored)
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 502
        assert await asked(proxy) == 502
        async with store.turn("default"):
            await store.save("default", binding, Record(1, Secret(token), clock.wall(), clock.wall() + 60))
        clock.move(1.9)
        assert await asked(proxy) == 502
        clock.move(0.1)
        assert await asked(proxy) == 200
    assert stored.token_requests == {"login": 2}


async def test_a_command_reads_what_the_proxy_stored(stored: Stored, clock: HeldClock) -> None:
    """By the same binding; instants are of the wall."""
    async with stored.proxy() as proxy:
        assert await asked(proxy) == 200
    store, binding = beside(stored)
    record = await store.load("default", binding)
    assert isinstance(record, Record)
    assert (record.generation, record.obtained_at, record.expires_at) == (1, clock.wall(), clock.wall() + 3600)
    assert record.token.reveal() == stored.tracker.double.issued[0]
    assert record.refresh_token is not None
