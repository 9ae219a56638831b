"""Several that share a store, where one of them cannot use it as the others do: no refresh token is used twice."""

import base64
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.instances import Fleet, Running
from tests.support.leaks import Canaries
from tests.support.mounting import READ_ONLY, cannot_mount
from tests.support.sharing import Starting
from tests.support.vendors import Vendor


@pytest.fixture
def newer_key(tmp_path: Path, canaries: Canaries) -> Path:
    """The file with the key that is to seal the store from now on."""
    path = tmp_path / "newer.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(canaries.mint("token")[:32].encode()).decode())
    return path


def sealed_with(config: Mapping[str, Any], *keys: Path) -> dict[str, Any]:
    """The same store with these keys."""
    return {"store": {**config["store"], "key": [{"file": str(key)} for key in keys]}}


async def expired(tracker: TeleTracker, *all_of_them: Running) -> None:
    """Every token is over, twice, so that each of two may be the first; no refresh token is used twice."""
    for order in (all_of_them, tuple(reversed(all_of_them))):
        tracker.expire()
        for each in order:
            assert (await each.get()).status == 200
            assert tracker.refresh_reuses == 0


async def replaced(instances: Fleet, one: Running, **options: Any) -> Running:
    """It ends as it should, and another one with other settings takes its place."""
    one.process.terminate()
    assert await one.process.wait() == 0
    instances.running.remove(one)
    return await instances.start(**options)


@pytest.mark.slow
async def test_133_keys_are_rotated_under_load_in_three_steps(
    either: dict[str, Any], store_key: Path, newer_key: Path, tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """The new one behind the old one everywhere, then in front of it, then alone: nobody notices, and one login."""
    steps = [(store_key, newer_key), (newer_key, store_key), (newer_key,)]
    async with starting(either) as instances:
        running = await instances.start_all(2)
        await expired(tracker.double, *running)
        for keys in steps:
            for number in range(2):
                running[number] = await replaced(instances, running[number], also=sealed_with(either, *keys))
                await expired(tracker.double, *running)
        assert [line for each in running for line in each.all("stored_token_unusable")] == []
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests == {"login": 1, "refresh": 13}


async def test_133_a_new_key_before_all_others_have_it_costs_logins_and_no_refresh_token(
    either: dict[str, Any], store_key: Path, newer_key: Path, tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """Who cannot open what is stored redeems nothing that it may have replaced, and says which key is missing."""
    async with starting(either) as instances:
        old, other = await instances.start_all(2)
        await expired(tracker.double, old, other)
        early = await instances.start(also=sealed_with(either, newer_key, store_key))
        for _ in range(3):
            await expired(tracker.double, early, old, other)
        [line, *_] = old.all("stored_token_unusable")
        assert "sealed with a key that is not here: store.key" in line["detail"]
        assert early.all("stored_token_unusable") == []
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests["login"] > 1


async def test_a_folder_that_was_removed_is_no_logout(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """What is in memory is stored again, and that is told; who can log in anew does, once for all."""
    folder = Path(shared["store"]["path"])
    async with starting(shared) as instances:
        one, two = await instances.start_all(2)
        assert await instances.asked() == [200, 200]
        shutil.rmtree(folder)
        await expired(tracker.double, one, two)
        assert (folder / "default.token").exists()
        [line] = one.all("stored_token_lost")
        assert "what is in memory is stored again" in line["detail"]
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}


@pytest.mark.threat(88, 124)
async def test_088_instances_on_one_port_refresh_once_for_all(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """The kernel deals out the connections; each expiry costs one token request."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        listen = {"tcp": f"127.0.0.1:{reserved.getsockname()[1]}", "reuse_port": True}
        async with starting({**shared, "listen": listen}) as instances:
            one, two = await instances.start_all(2)
            assert one.url == two.url
            for generation in range(1, 4):
                statuses = [(await one.get()).status for _ in range(8)]
                while not (one.had(generation) and two.had(generation)):
                    statuses.append((await one.get()).status)
                assert set(statuses) == {200}
                tracker.double.expire()
    assert tracker.double.token_requests == {"login": 1, "refresh": 2}
    assert tracker.double.refresh_reuses == 0


@pytest.mark.parametrize("between", [0, 1], ids=["what the other has", "older than what the other has"])
async def test_132_what_is_redeemed_again_after_an_old_file_was_put_back_is_told(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting, between: int
) -> None:
    """Who sees that it is old logs in anew; who cannot know is told by the vendor, and tells."""
    file, double = Path(shared["store"]["path"], "default.token"), tracker.double
    async with starting(shared) as instances:
        one, two = await instances.start_all(2)
        assert await instances.asked() == [200, 200]
        copy = file.read_bytes()
        for _ in range(between):
            await expired(double, one, two)
        double.expire()
        assert (await one.get()).status == 200
        file.write_bytes(copy)
        double.expire()
        assert (await two.get()).status == 200
        told = [each["event"] for each in two.lines if each["level"] == "warning" and "credential" in each]
    if between:
        assert told == ["stored_token_older", "token_rotation_lost"]
        assert double.refresh_reuses == 0
    else:
        assert told == ["refresh_token_refused"]
        assert double.refresh_reuses == 1
    assert double.token_requests["login"] == 2


def _link(folder: Path) -> None:
    (folder / "default.lock").unlink()
    (folder / "default.lock").symlink_to("nowhere")


def _unlink(folder: Path) -> None:
    (folder / "default.lock").unlink()


SPOILT: Final = {
    "open to others": (lambda folder: folder.chmod(0o755), lambda folder: folder.chmod(0o700)),
    "a lock that is a link": (_link, _unlink),
}


@pytest.mark.parametrize(("spoil", "mend"), SPOILT.values(), ids=SPOILT)
async def test_093_without_turns_nobody_redeems_what_others_have(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting, spoil: Any, mend: Any
) -> None:
    """Each logs in for itself until there are turns again; then they share, as before."""
    folder, double = Path(shared["store"]["path"]), tracker.double
    async with starting(shared) as instances:
        one, two = await instances.start_all(2)
        await expired(double, one, two)
        spoil(folder)
        await expired(double, one, two)
        assert [len(each.all("store_unavailable")) for each in (one, two)] == [1, 1]
        assert double.refresh_reuses == 0
        mend(folder)
        before = dict(double.token_requests)
        await expired(double, one, two)
        assert double.token_requests == {**before, "refresh": before["refresh"] + 2}
    assert double.refresh_reuses == 0


async def test_091_who_cannot_write_what_others_can_redeems_nothing_of_theirs(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """Its file system alone takes no writes: it has its turns, but could tell nobody of what it redeemed."""
    if (reason := cannot_mount()) is not None:
        pytest.skip(reason)
    folder, double = Path(shared["store"]["path"]), tracker.double
    async with starting(shared) as instances:
        writer = await instances.start()
        await expired(double, writer)
        reader = await instances.start("unshare", "--mount", "sh", "-c", READ_ONLY, str(folder))
        assert (await reader.get()).status == 200
        assert reader.all("token_adopted")
        for _ in range(3):
            await expired(double, reader, writer)
        [line] = reader.all("token_not_persisted")
        assert "Read-only file system" in line["detail"]
        assert reader.all("store_unavailable") == []
    assert double.refresh_reuses == 0
