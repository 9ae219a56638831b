"""The folder of a store, its locks and what lies in it: what is not as it must be is told; the loop never waits."""

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from proxy.errors import StoreUnavailable
from proxy.redact import Secret
from proxy.stores import file, files
from proxy.stores.base import Missing, Record
from proxy.stores.file import FileStore
from proxy.stores.files import file_system, sweep
from proxy.stores.seal import Ring
from tests.support.leaks import Artefacts, Canaries
from tests.support.mounting import READ_ONLY, cannot_mount
from tests.support.waiting import until

BINDING: Final = b"b" * 32


@pytest.fixture
def folder(tmp_path: Path, artefacts: Artefacts) -> Path:
    """The folder of the store, which does not exist yet; no file in it may show a canary."""
    artefacts.watch_tree(tmp_path)
    return tmp_path / "deep" / "tokens"


@pytest.fixture
def record(canaries: Canaries) -> Record:
    """A record of canaries."""
    return Record(4, Secret(canaries.mint()), 1.8e9, 1.8e9 + 3600, Secret(canaries.mint("uuid")), 1.9e9)


def opened(folder: Path, *, patience: float = 30.0) -> FileStore:
    """One more process, as far as the files can see."""
    return FileStore(folder, Ring([b"k" * 32], random=os.urandom), patience=patience)


# -- what it must be like, each time it is used


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o777, 0o750, 0o701])
async def test_a_folder_that_is_opened_to_others_later_is_not_used_any_more(
    folder: Path, record: Record, mode: int
) -> None:
    """For nothing: what it holds by then, others may have put there."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    folder.chmod(mode)
    with pytest.raises(StoreUnavailable, match="is not this user's alone: run `chmod 700`"):
        await store.load("c", BINDING)
    with pytest.raises(StoreUnavailable, match="is not this user's alone"):
        await store.save("c", BINDING, record)
    with pytest.raises(StoreUnavailable, match="is not this user's alone"):
        await store.forget("c")
    folder.chmod(0o700)
    assert await store.load("c", BINDING) == record


async def test_a_folder_that_others_can_replace_is_not_used(folder: Path, record: Record) -> None:
    """One above it is open to all; the sticky bit, as that of /tmp, keeps them from it."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    folder.parent.chmod(0o777)
    with pytest.raises(StoreUnavailable, match=f"all can write to {folder.parent}: run `chmod o-w "):
        await store.load("c", BINDING)
    with pytest.raises(StoreUnavailable, match="Others can put another folder in place"):
        async with store.turn("c"):
            pass
    folder.parent.chmod(0o1777)
    assert await store.load("c", BINDING) == record


async def test_a_volume_that_is_open_to_all_is_used_and_warned_of_once(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As an emptyDir of Kubernetes is; a folder above it is another matter."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path == folder.parent)
    folder.parent.mkdir(exist_ok=True)
    folder.parent.chmod(0o777)
    store = opened(folder)
    for _ in range(2):
        async with store.turn("c"):
            await store.save("c", BINDING, record)
    assert [(each.levelname, each.message) for each in caplog.records] == [("WARNING", "store_on_open_volume")]
    above = folder.parent.parent
    mode = above.stat().st_mode
    above.chmod(0o777)
    with pytest.raises(StoreUnavailable, match=f"all can write to {above}: run `chmod o-w "):
        await store.load("c", BINDING)
    above.chmod(mode)


@pytest.mark.threat(92)
@pytest.mark.parametrize(("owner", "is_used"), [(12345, False), (65534, True)], ids=["another user", "nobody"])
async def test_092_a_folder_below_one_of_another_user_is_not_used(
    folder: Path, record: Record, caplog: pytest.LogCaptureFixture, owner: int, *, is_used: bool
) -> None:
    """Its owner can rename what is in it, whatever its mode; one without a number may be a container's root."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    assert caplog.messages == []
    try:
        os.chown(folder.parent, owner, -1)
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give folders away")
    if is_used:
        other = opened(folder)
        assert await other.load("c", BINDING) == record
        await other.save("c", BINDING, record)
        assert caplog.messages == ["store_on_open_volume"]
    else:
        with pytest.raises(StoreUnavailable, match=f"{folder.parent} is another user's .12345.: name one below"):
            await store.load("c", BINDING)
    os.chown(folder.parent, os.geteuid(), -1)
    assert await store.load("c", BINDING) == record


async def test_a_write_that_failed_may_have_been_done(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the rename; whoever tries again reads first."""

    def failing(_folder: Path) -> None:
        raise OSError(errno.EIO, "")

    store = opened(folder)
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_folder", failing)
        with pytest.raises(StoreUnavailable):
            await store.save("c", BINDING, record)
    assert await store.load("c", BINDING) == record


async def test_what_counts_are_the_folders_above_the_real_one(folder: Path, record: Record, tmp_path: Path) -> None:
    """The path may lead over a link."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "deep").mkdir(mode=0o700)
    folder.parent.symlink_to(shared / "deep")
    with pytest.raises(StoreUnavailable, match=f"all can write to {shared}"):
        await opened(folder).save("c", BINDING, record)


async def test_folders_that_are_made_on_the_way_are_private(tmp_path: Path, record: Record) -> None:
    """All of them, whatever the umask is; what was there stays as it is."""
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    umask = os.umask(0)
    try:
        await opened(tmp_path / "a" / "b" / "c").save("c", BINDING, record)
    finally:
        os.umask(umask)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [stat.S_IMODE(each.stat().st_mode) for each in made] == [0o700] * 3
    assert stat.S_IMODE(tmp_path.stat().st_mode) == before


async def test_a_folder_that_is_gone_is_no_logout(folder: Path, record: Record) -> None:
    """Nor is it made by whoever looks for a record."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    shutil.rmtree(folder)
    assert await store.load("c", BINDING) is Missing.NOTHING
    assert not folder.exists()
    await store.forget("c")
    assert await store.load("c", BINDING) is Missing.LOGGED_OUT


async def test_102_a_logout_is_known_to_those_with_another_key(folder: Path, record: Record) -> None:
    """It shows nothing, and the next record takes its place."""
    await opened(folder).save("c", BINDING, record)
    other = FileStore(folder, Ring([b"o" * 32], random=os.urandom))
    assert await other.load("c", BINDING) is Missing.OTHER_KEY
    await other.forget("c")
    assert await opened(folder).load("c", BINDING) is Missing.LOGGED_OUT
    assert (folder / "c.token").read_bytes() == b"bearer-proxy logged out\n"
    await opened(folder).save("c", BINDING, record)
    assert await opened(folder).load("c", BINDING) == record


# -- what lies in it


async def test_090_what_a_crash_left_is_removed_by_the_next_holder(folder: Path, record: Record) -> None:
    """Of this credential alone: another one's may be being written."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    left = [folder / ".c.token.abcd_123.tmp", folder / ".c.token.00000000.tmp"]
    others = [
        folder / ".c.token.token.abcd_123.tmp",
        folder / ".d.token.abcd_123.tmp",
        folder / ".c.token.ABCD_123.tmp",
        folder / "c.token.abcd_123.tmp",
    ]
    for each in (*left, *others):
        each.write_text("sealed")
    async with store.turn("c"):
        assert [each for each in left if each.exists()] == []
    assert [each for each in others if not each.exists()] == []


@pytest.mark.parametrize("name", ["c", "a.b", "../x", "c.token"])
def test_090_a_write_that_breaks_off_leaves_what_is_found_again(folder: Path, name: str) -> None:
    """A process that is killed in the middle of it, for real."""
    folder.mkdir(parents=True, mode=0o700)
    program = (
        "import os, sys; from pathlib import Path; from proxy.stores import files\n"
        "os.fsync = lambda _number: os.kill(os.getpid(), 9)\n"
        "files.write_whole(Path(sys.argv[1]), b'sealed')"
    )
    path = FileStore(folder, Ring([b"k" * 32], random=os.urandom))._path(name, "token")
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    [left] = folder.iterdir()
    assert left.name.endswith(".tmp")
    sweep(path)
    assert list(folder.iterdir()) == []


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("by somebody")


ODD: dict[str, Callable[[Path], object]] = {
    "a folder": _folder,
    "a link": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
async def test_092_what_is_no_file_is_moved_aside_by_the_next_token(
    folder: Path, record: Record, make: Callable[[Path], object]
) -> None:
    """And not removed: it is somebody's."""
    store = opened(folder)
    folder.mkdir(parents=True, mode=0o700)
    for times in (1, 2):
        (folder / "c.token").unlink(missing_ok=True)
        make(folder / "c.token")
        assert await store.load("c", BINDING) is Missing.UNREADABLE
        await store.save("c", BINDING, record)
        assert await store.load("c", BINDING) == record
        aside = [each for each in folder.iterdir() if each.name.startswith("c.token.corrupt-")]
        assert len(aside) == times
        assert not any(stat.S_ISREG(each.lstat().st_mode) for each in aside)


# -- locks


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
async def test_093_a_lock_that_is_no_file_is_told_and_left(folder: Path, make: Callable[[Path], object]) -> None:
    """To replace it would let in two, where two find it so at once."""
    folder.mkdir(parents=True, mode=0o700)
    make(folder / "c.lock")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"{folder}/c.lock is no file of this program's: remove it"):
            async with opened(folder).turn("c"):
                pass
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not stat.S_ISREG((folder / "c.lock").lstat().st_mode)


async def test_093_a_lock_of_another_user_is_told(folder: Path) -> None:
    """They could hold it for as long as they like."""
    store = opened(folder)
    async with store.turn("c"):
        pass
    try:
        os.chown(folder / "c.lock", 12345, -1)
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give files away")
    with pytest.raises(StoreUnavailable, match="is no file of this program's"):
        async with store.turn("c"):
            pass


HOLD: Final = """
import asyncio, os, sys
from pathlib import Path
from proxy.errors import StoreUnavailable
from proxy.stores.file import FileStore
from proxy.stores.seal import Ring

async def main():
    store = FileStore(Path(sys.argv[1]), Ring([b"k" * 32], random=os.urandom))
    try:
        await store.forget("c")
    except StoreUnavailable as error:
        print(error.detail, error.for_all, flush=True)
    async with store.turn("c"):
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_091_a_file_system_that_takes_no_writes_is_locked_all_the_same(folder: Path) -> None:
    """By one process that sees it so: the others wait for it."""
    if (reason := cannot_mount()) is not None:
        pytest.skip(reason)
    store, hurried = opened(folder), opened(folder, patience=0.2)
    async with store.turn("c"):
        pass
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", READ_ONLY, str(folder), sys.executable, "-c", HOLD, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        said = (await holder.stdout.readline()).decode()
        assert said == f"The folder {folder} (store.path) cannot be written (Read-only file system). False\n"
        assert await holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreUnavailable, match="does not let go"):
            async with hurried.turn("c"):
                pass
        await holder.communicate(b"\n")
        async with store.turn("c"):
            pass
    finally:
        if holder.returncode is None:
            holder.kill()
            await holder.wait()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
async def test_091_where_there_is_no_lock_file_and_none_can_be_made_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Why it could not be made, and not that it is not there."""
    folder.mkdir(parents=True, mode=0o700)
    real = os.open

    def refusing(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, "x")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreUnavailable, match=os.strerror(number)):
        async with opened(folder).turn("c"):
            pass


@pytest.mark.parametrize(
    ("number", "for_all"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, True), (errno.EMFILE, False), (errno.EROFS, False)],
)
async def test_what_is_wrong_for_all_is_told_apart(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch, number: int, *, for_all: bool
) -> None:
    """A disk that is full is full for all; a process without descriptors is alone with that."""

    def failing(*_args: object, **_options: object) -> None:
        raise OSError(number, "x")

    monkeypatch.setattr(files.tempfile, "mkstemp", failing)  # type: ignore[attr-defined]  # a module
    with pytest.raises(StoreUnavailable) as caught:
        await opened(folder).save("c", BINDING, record)
    assert caught.value.for_all is for_all


# -- the loop


class Hanging:
    """A disk that hangs: whatever is put in place of `act` waits in its thread until it may go on."""

    def __init__(self, act: Callable[..., object]) -> None:
        self.act = act
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.threads: list[str] = []
        self.ended = 0

    def __call__(self, *arguments: object, **options: object) -> object:
        """As `act`, later."""
        self.threads.append(threading.current_thread().name)
        self.began.set()
        assert self.may_go_on.wait(60)
        try:
            return self.act(*arguments, **options)
        finally:
            self.ended += 1


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str], Hanging]:
    """Makes one function of a module or class hang."""

    def hang(owner: object, name: str) -> Hanging:
        made = Hanging(getattr(owner, name))
        monkeypatch.setattr(owner, name, made)
        return made

    return hang


async def test_093_a_disk_that_hangs_stops_nobody_else(
    folder: Path, record: Record, hanging: Callable[[object, str], Hanging]
) -> None:
    """Whatever is done: each waits in a thread of the store, and the threads that find addresses stay free."""
    store = opened(folder)
    await store.save("c", BINDING, record)
    disk = hanging(file, "exposed")
    waiting = [
        asyncio.create_task(store.load("c", BINDING)),
        asyncio.create_task(store.save("e", BINDING, record)),
        asyncio.create_task(store.forget("d")),
        asyncio.create_task(store.turn("c").__aenter__()),
    ]
    await until(lambda: len(disk.threads) == len(waiting))
    assert not any(each.done() for each in waiting)
    assert await asyncio.to_thread(threading.get_ident) is not None
    disk.may_go_on.set()
    await asyncio.gather(*waiting)
    assert {each.partition("_")[0] for each in disk.threads} == {"store"}


async def test_a_write_whose_writer_was_cancelled_ends_before_the_turn(
    folder: Path, record: Record, hanging: Callable[[object, str], Hanging]
) -> None:
    """Else its late rename would cover what the next holder wrote."""
    store, other = opened(folder), opened(folder)
    disk = hanging(file, "write_whole")

    async def write() -> None:
        async with store.turn("c"):
            await store.save("c", BINDING, record)

    writing = asyncio.create_task(write())
    await until(disk.began.is_set)
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()

    async def follow() -> Record | Missing:
        async with other.turn("c"):
            return await other.load("c", BINDING)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(0.5), opened(folder).turn("d"):
        pass
    done, _ = await asyncio.wait({following}, timeout=0.3)
    assert not done
    disk.may_go_on.set()
    assert await following == record


async def test_a_lock_that_comes_when_nobody_waits_any_more_is_let_go(
    folder: Path, hanging: Callable[[object, str], Hanging]
) -> None:
    """Who asked for it has hung up meanwhile."""
    store = opened(folder)
    disk = hanging(fcntl, "flock")
    asking = asyncio.create_task(store.turn("c").__aenter__())
    await until(disk.began.is_set)
    asking.cancel()
    await asyncio.wait({asking})
    disk.may_go_on.set()
    await until(lambda: disk.ended)
    async with asyncio.timeout(10), store.turn("c"):
        pass


# -- the network

MOUNTS: Final = """
21 27 0:21 / /proc rw,relatime - proc proc rw
36 35 {device} / / rw,noatime shared:1 master:7 - {kind} server:/x rw
broken line
"""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p"])
async def test_093_a_folder_on_another_machine_is_warned_of_once(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """It is used all the same."""
    monkeypatch.setattr(file, "file_system", lambda _path: kind)
    store = opened(folder)
    for _ in range(2):
        async with store.turn("c"):
            await store.save("c", BINDING, record)
    assert [(each.levelname, each.message) for each in caplog.records] == [("WARNING", "store_on_network")]


def test_the_kind_of_a_file_system_is_that_of_its_mount(tmp_path: Path) -> None:
    """By the number of the device; where the machine does not say it, nobody knows."""
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(device=f"{os.major(device)}:{os.minor(device)}", kind="nfs4"))
    assert file_system(tmp_path, mounts) == "nfs4"
    mounts.write_text(MOUNTS.format(device="8:99", kind="nfs4"))
    assert file_system(tmp_path, mounts) is None
    assert file_system(tmp_path, tmp_path / "none") is None
    assert file_system(Path("/proc")) == "proc"
