"""A store that takes no writes, for real (threat 91): clients notice nothing, people are told, nothing is lost."""

import asyncio
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from proxy import adminclient, runfile
from proxy.demo.teletracker import TeleTracker
from tests.support.instances import Running
from tests.support.mounting import MOUNTED, cannot_mount
from tests.support.sharing import Starting
from tests.support.vendors import Vendor


@contextmanager
def _limited(instance: Running, _folder: Path) -> Iterator[None]:
    """No file may be longer than some bytes."""
    pid = instance.process.pid
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (16, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def _full(_instance: Running, folder: Path) -> Iterator[None]:
    """Nothing is left of the file system."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    yield
    filler.unlink()


@contextmanager
def _read_only(instance: Running, folder: Path) -> Iterator[None]:
    """The file system takes no writes."""
    inside = "/" / folder.relative_to(f"/proc/{instance.process.pid}/root")
    remount = ["nsenter", f"--target={instance.process.pid}", "--mount", "mount", "-o"]
    subprocess.run([*remount, "remount,ro", str(inside)], check=True)
    yield
    subprocess.run([*remount, "remount,rw", str(inside)], check=True)


FAULTS: Final = {"limit": _limited, "full": _full, "read-only": _read_only}
SAYS: Final = {"limit": "File too large", "full": "No space left on device", "read-only": "Read-only file system"}


def asked(instance: Running, home: Path, path: str) -> tuple[int, dict[str, Any]]:
    """What its admin listener says."""
    environ = {"XDG_RUNTIME_DIR": str(home)}
    found = runfile.find(str(home / "config.yaml"), environ)
    assert found.pid == instance.process.pid
    return adminclient.ask(found, "GET", path, wait=10.0)


@pytest.mark.parametrize(
    "fault", ["full", *(pytest.param(each, marks=pytest.mark.slow) for each in ("limit", "read-only"))]
)
async def test_091_a_store_that_takes_no_writes_is_told_and_mended_and_costs_nobody_a_request(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting, tmp_path: Path, fault: str
) -> None:
    """The old file stays whole meanwhile; as soon as there is room the token in memory is saved."""
    if fault != "limit" and (reason := cannot_mount()):
        pytest.skip(reason)
    given, home = Path(shared["store"]["path"]), tmp_path / "instance-1"
    mounted = [] if fault == "limit" else ["unshare", "--mount", "sh", "-c", MOUNTED, str(given)]
    async with starting(shared) as instances:
        instance = await instances.start(*mounted)
        folder = Path(f"/proc/{instance.process.pid}/root{given}") if mounted else given

        async def persisted() -> object:
            status, answer = await asyncio.to_thread(asked, instance, home, "/api/credentials")
            assert status == 200
            return answer["credentials"][0]["persisted"]

        assert (await instance.get()).status == 200
        assert await persisted() is True
        before = (folder / "default.token").read_bytes()
        with FAULTS[fault](instance, folder):
            tracker.double.expire()
            assert (await instance.get()).status == 200
            assert await persisted() is False
            [said] = instance.all("token_not_persisted")
            assert f"(store.path) cannot be written ({SAYS[fault]})" in said["detail"]
            # Nothing is wrong with the token; but for a restart it is.
            status, health = await asyncio.to_thread(asked, instance, home, "/readyz")
            assert (status, health["ready"], health["not_persisted"]) == (200, True, ["default"])
            tracker.double.expire()
            assert (await instance.get()).status == 200
            assert (folder / "default.token").read_bytes() == before
            assert list(folder.glob(".*.tmp")) == []
        async with asyncio.timeout(30):
            while await persisted() is not True:
                assert (await instance.get()).status == 200
        assert (folder / "default.token").read_bytes() != before
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}
    assert tracker.double.refresh_reuses == 0


async def test_091_what_could_not_be_saved_is_saved_at_the_end(
    shared: dict[str, Any], tracker: Vendor[TeleTracker], starting: Starting
) -> None:
    """The next process goes on with it, and redeems nothing twice."""
    folder = Path(shared["store"]["path"])
    async with starting(shared) as instances:
        instance = await instances.start()
        assert (await instance.get()).status == 200
        with _limited(instance, folder):
            tracker.double.expire()
            assert (await instance.get()).status == 200
            await instance.event("token_not_persisted")
        instance.process.terminate()
        assert await instance.process.wait() == 0
        heir = await instances.start()
        assert (await heir.get()).status == 200
        tracker.double.expire()
        assert (await heir.get()).status == 200
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}
    assert tracker.double.refresh_reuses == 0
