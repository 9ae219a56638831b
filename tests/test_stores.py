"""Where tokens rest: what is sealed opens for its own key and binding only, and a crash leaves old or new."""

import asyncio
import errno
import fcntl
import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import StoreUnavailable
from proxy.redact import Secret
from proxy.stores import files
from proxy.stores.base import Missing, Record, Store
from proxy.stores.file import FILE_LIMIT, FileStore
from proxy.stores.records import dump, parse
from proxy.stores.seal import NONCE_BYTES, Ring
from tests.support.leaks import Artefacts, Canaries
from tests.support.waiting import until

KEY, NEWER = b"k" * 32, b"n" * 32
BINDING, OTHER = b"b" * 32, b"o" * 32
CONTENT = b"what must not be read"


def ring(*keys: bytes) -> Ring:
    """A ring with real nonces."""
    return Ring(keys or (KEY,), random=os.urandom)


# -- the seal


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens(content: bytes, binding: bytes) -> None:
    """With the same key and binding; what is sealed twice never looks the same."""
    first, second = ring().seal(content, binding), ring().seal(content, binding)
    assert ring().open(first, binding) == ring().open(second, binding) == content
    assert first != second


@pytest.mark.threat(132)
def test_132_every_changed_bit_is_noticed() -> None:
    """In the header, the nonce, the content and the tag."""
    sealed = ring().seal(CONTENT, BINDING)
    for at in range(len(sealed)):
        for bit in range(8):
            damaged = sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
            assert ring().open(damaged, BINDING) is None


@pytest.mark.threat(132)
def test_132_what_is_cut_or_longer_does_not_open() -> None:
    """At every length."""
    sealed = ring().seal(CONTENT, BINDING)
    assert [size for size in range(len(sealed)) if ring().open(sealed[:size], BINDING) is not None] == []
    assert ring().open(sealed + b"\0", BINDING) is None


def test_132_bytes_in_another_order_do_not_open() -> None:
    """Any two neighbours exchanged."""
    sealed = ring().seal(bytes(range(64)), BINDING)
    for at in range(len(sealed) - 1):
        if sealed[at] != sealed[at + 1]:
            swapped = sealed[:at] + sealed[at + 1 : at + 2] + sealed[at : at + 1] + sealed[at + 2 :]
            assert ring().open(swapped, BINDING) is None


@given(st.binary(max_size=300))
def test_what_was_never_sealed_does_not_open(found: bytes) -> None:
    """Nothing is raised either, with a header of ours before it or not."""
    header = ring().seal(b"", BINDING)[: -NONCE_BYTES - 16]
    assert ring().open(found, BINDING) is None
    assert ring().open(header + found, BINDING) is None


@pytest.mark.threat(53)
def test_053_another_binding_does_not_open() -> None:
    """Another account, another upstream."""
    sealed = ring().seal(CONTENT, BINDING)
    assert ring().open(sealed, OTHER) is None
    assert ring().open(sealed, BINDING + b"x") is None
    assert ring().open(sealed, b"") is None


@pytest.mark.threat(133)
def test_133_the_first_key_seals_and_all_open() -> None:
    """A rotation; without the old key what it sealed is lost, and only that."""
    old = ring(KEY).seal(CONTENT, BINDING)
    rotating = ring(NEWER, KEY)
    new = rotating.seal(CONTENT, BINDING)
    assert rotating.open(old, BINDING) == rotating.open(new, BINDING) == CONTENT
    assert ring(NEWER).open(new, BINDING) == CONTENT
    assert ring(NEWER).open(old, BINDING) is None
    assert ring(KEY).open(new, BINDING) is None


def test_133_what_another_key_sealed_is_told_from_what_is_none_of_ours() -> None:
    """By its header alone; what was damaged has a key, and so has what was got for somebody else."""
    sealed = ring(KEY).seal(CONTENT, BINDING)
    assert ring(NEWER).lacks_key_of(sealed)
    assert ring(NEWER).lacks_key_of(sealed[:32])
    others = [sealed[:-1], sealed + b"x", sealed[:31]]
    assert not any(ring(NEWER, KEY).lacks_key_of(each) for each in (sealed, *others))
    foreign = [b"", b"token: x\n", sealed[:31], sealed.replace(b" 1 ", b" 2 "), sealed.upper()]
    assert not any(ring(NEWER).lacks_key_of(each) for each in foreign)


def test_a_sealed_text_says_its_version_and_key_and_nothing_else() -> None:
    """One line for people, by which a later version knows it."""
    header, _, rest = Ring((KEY,), random=lambda size: b"x" * size).seal(CONTENT, BINDING).partition(b"\n")
    magic, version, key_id = header.split(b" ")
    assert (magic, version, len(key_id)) == (b"bearer-proxy", b"1", 16)
    assert rest.startswith(b"x" * NONCE_BYTES)
    assert len(rest) == NONCE_BYTES + len(CONTENT) + 16
    assert CONTENT not in rest


@pytest.mark.parametrize("keys", [(), (b"short",), (KEY, b"k" * 33)])
def test_a_ring_takes_whole_keys_only(keys: tuple[bytes, ...]) -> None:
    """And at least one."""
    with pytest.raises(ValueError, match="at least one key, each of 32 bytes"):
        Ring(keys, random=os.urandom)


# -- records

instants = st.floats(allow_nan=False, allow_infinity=False)
tokens = st.text(min_size=1, max_size=30).map(Secret)
records = st.builds(
    Record,
    generation=st.integers(min_value=1),
    token=tokens,
    obtained_at=instants,
    expires_at=st.none() | instants,
    refresh_token=st.none() | tokens,
    refresh_expires_at=st.none() | instants,
    redeeming=st.booleans(),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    """Whatever it holds; numbers to the last bit, so that a record equals itself."""
    assert parse(dump(record)) == record


WHOLE = json.loads(dump(Record(1, Secret("token"), 1.0, 2.0, Secret("refresh"), 3.0)))


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("value", [[], {}, True, -1, 0, "", float("nan"), float("inf")], ids=repr)
def test_a_record_of_another_make_is_none(key: str, value: object) -> None:
    """A later version may have written it with the same key."""
    if key == "redeeming" and value is True:
        value = "yes"
    assert parse(json.dumps(WHOLE | {key: value}).encode()) is None


def test_a_record_of_another_version_is_none() -> None:
    """Whatever it means there."""
    assert parse(json.dumps(WHOLE).encode()) is not None
    assert parse(json.dumps(WHOLE | {"version": 2}).encode()) is None


@pytest.mark.parametrize("key", WHOLE)
def test_a_record_with_a_part_missing_is_none(key: str) -> None:
    """Every part is written, also where it is null."""
    assert parse(json.dumps({name: value for name, value in WHOLE.items() if name != key}).encode()) is None


@given(st.binary(max_size=50))
def test_what_is_no_record_is_none(content: bytes) -> None:
    """Nothing is raised."""
    assert parse(content) is None
    assert parse(b"[" * 100_000) is None


# -- both stores


@pytest.fixture
def folder(tmp_path: Path, artefacts: Artefacts) -> Path:
    """The folder of the store, which does not exist yet; no file in it may show a canary."""
    artefacts.watch_tree(tmp_path)
    return tmp_path / "deep" / "tokens"


@pytest.fixture
def record(canaries: Canaries) -> Record:
    """A record of canaries."""
    return Record(4, Secret(canaries.mint()), 1.8e9, 1.8e9 + 3600, Secret(canaries.mint("uuid")), 1.9e9)


async def held(store: Store, name: str = "c") -> bool:
    """Does somebody hold the turn?"""
    try:
        async with asyncio.timeout(0.2), store.turn(name):
            return False
    except TimeoutError:
        return True


# -- files


@pytest.mark.threat(131)
async def test_131_a_file_is_private_and_shows_nothing(folder: Path, record: Record) -> None:
    """The canaries in it are searched for at the end of this test; modes are those of ssh."""
    store = FileStore(folder, ring())
    async with store.turn("c"):
        await store.save("c", BINDING, record)
    assert sorted(path.name for path in folder.iterdir()) == ["c.lock", "c.token"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", ".", ".tmp", "a\nb", "%2F", "c.lock"])
async def test_no_name_leaves_the_folder(folder: Path, record: Record, name: str) -> None:
    """Names are quoted, and different names stay different."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)
    async with store.turn(name):
        await store.save(name, BINDING, replace(record, generation=9))
    assert len(list(folder.iterdir())) == 3
    assert list(folder.parent.parent.iterdir()) == [folder.parent]
    assert await store.load(name, BINDING) == replace(record, generation=9)
    assert await store.load("c", BINDING) == record


@pytest.mark.threat(132)
async def test_132_a_file_under_another_name_does_not_open(folder: Path, record: Record) -> None:
    """Two credentials of one account: the files exchanged."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)
    await store.save("d", BINDING, replace(record, generation=9))
    (folder / "c.token").rename(folder / "x")
    (folder / "d.token").rename(folder / "c.token")
    (folder / "x").rename(folder / "d.token")
    assert [await store.load(name, BINDING) for name in "cd"] == [Missing.UNREADABLE] * 2


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)
    (path / "kept").write_text("by somebody")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": _flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_bytes(b"token: x\n"),
    "too large": lambda path: path.write_bytes(path.read_bytes() + bytes(FILE_LIMIT)),
    "open to the group": lambda path: path.chmod(0o640),
    "open to all": lambda path: path.chmod(0o604),
    "a link": _link,
    "a pipe": _pipe,
    "of another user": lambda path: os.chown(path, 12345, -1),
    "a folder": _folder,
}


@pytest.mark.threat(92)
@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
async def test_092_a_file_that_is_not_as_it_was_written_does_not_open(
    folder: Path, record: Record, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], object]
) -> None:
    """It is said once and not removed; the next token takes its place."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)
    try:
        harm(folder / "c.token")
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give files away")
    for _ in range(3):
        assert await store.load("c", BINDING) is Missing.UNREADABLE
    assert [(each.levelname, each.message) for each in caplog.records] == [("WARNING", "stored_token_unusable")]
    assert os.path.lexists(folder / "c.token")
    await store.save("c", BINDING, record)
    assert await store.load("c", BINDING) == record
    assert len(caplog.records) == 1


async def test_132_a_file_of_which_any_byte_was_changed_is_no_record(folder: Path, record: Record) -> None:
    """Nor one of which two were exchanged: nothing of it is used, and the next token takes its place."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)
    path = folder / "c.token"
    whole = path.read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :] for at in range(len(whole))]
    for one, other in zip(range(len(whole)), [*range(1, len(whole)), 0], strict=True):
        swapped = bytearray(whole)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        changed.append(bytes(swapped))
    for content in changed:
        path.write_bytes(content)
        is_whole = content == whole
        assert isinstance(await store.load("c", BINDING), Record) == is_whole
    await store.save("c", BINDING, record)
    assert await store.load("c", BINDING) == record


@pytest.mark.threat(90)
@pytest.mark.parametrize("step", ["mkstemp", "fsync", "replace"])
async def test_090_a_write_that_breaks_off_leaves_the_old_record_and_nothing_beside_it(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Wherever it does; the reason is told, without a path of Python's."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "x")

    with monkeypatch.context() as patched:
        owner = {"mkstemp": files.tempfile, "fsync": os, "replace": Path}[step]  # type: ignore[attr-defined]  # a module
        patched.setattr(owner, step, full)
        with pytest.raises(
            StoreUnavailable, match=r"\(store\.path\) cannot be written \(No space left on device\)"
        ):
            await store.save("c", BINDING, replace(record, generation=5))
    assert [path.name for path in folder.iterdir()] == ["c.token"]
    assert await store.load("c", BINDING) == record


async def test_090_a_crash_before_the_rename_leaves_the_old_record(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been written lies beside it, sealed as well; the next one who has the turn removes it."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda _path, _to: None)
        await store.save("c", BINDING, replace(record, generation=5))
    assert len(list(folder.iterdir())) == 2
    assert await store.load("c", BINDING) == record
    newer = replace(record, generation=6)
    async with store.turn("c"):
        assert sorted(each.name for each in folder.iterdir()) == ["c.lock", "c.token"]
        await store.save("c", BINDING, newer)
    assert await FileStore(folder, ring()).load("c", BINDING) == newer


@pytest.mark.threat(90)
async def test_a_save_is_on_the_disk_before_and_after_the_rename(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, rename, folder, in this order."""
    steps: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(number: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "content")
        sync(number)

    def rename(path: Path, to: Path) -> Path:
        steps.append("rename")
        return move(path, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    await FileStore(folder, ring()).save("c", BINDING, record)
    assert steps == ["content", "rename", "folder"]


@pytest.mark.threat(93)
async def test_093_a_lock_file_that_was_removed_locks_nobody_out(folder: Path) -> None:
    """Nor two in: the turn is that of the file which is there."""
    store = FileStore(folder, ring())
    async with store.turn("c"):
        (folder / "c.lock").unlink()
        async with store.turn("c"):
            assert await held(store)
    assert not await held(store)


@pytest.mark.threat(93)
async def test_093_a_lock_file_that_is_replaced_between_opening_and_locking_is_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that nobody else will open is worth nothing."""
    store = FileStore(folder, ring())
    lock = fcntl.flock
    calls: list[int] = []

    def replaced(number: int, operation: int) -> None:
        if not calls:
            (folder / "c.lock").unlink()
        calls.append(number)
        lock(number, operation)

    monkeypatch.setattr(fcntl, "flock", replaced)
    async with store.turn("c"):
        assert len(calls) == 2
        assert (folder / "c.lock").exists()


async def test_the_loop_goes_on_while_somebody_waits_for_a_turn(folder: Path) -> None:
    """No thread is held up either."""
    store = FileStore(folder, ring())
    async with store.turn("c"):
        waiting = asyncio.create_task(held(FileStore(folder, ring())))
        ticks = 0
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0)
        assert ticks > 3
    await until(waiting.done)


def _open_to_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)


def _in_the_way(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("in the way")


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "open to others": (_open_to_all, "is not this user's alone: run `chmod 700` on it"),
    "a file": (_in_the_way, r"cannot be written \(File exists\)"),
}


@pytest.mark.parametrize(("make", "said"), UNUSABLE.values(), ids=UNUSABLE)
async def test_a_folder_that_cannot_be_used_is_told(
    folder: Path, record: Record, make: Callable[[Path], None], said: str
) -> None:
    """With what to do, and for each thing that is tried."""
    make(folder)
    store = FileStore(folder, ring())
    with pytest.raises(StoreUnavailable, match=said):
        await store.save("c", BINDING, record)
    with pytest.raises(StoreUnavailable, match=said):
        async with store.turn("c"):
            pass


async def test_a_folder_that_cannot_be_read_is_no_empty_one(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails says nothing about the record."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)

    def broken(*_args: object) -> bytes:
        raise OSError(errno.EIO, "x")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", broken)
        with pytest.raises(StoreUnavailable, match=r"cannot be read \(Input/output error\)"):
            await store.load("c", BINDING)
    assert await store.load("c", BINDING) == record


async def test_what_cannot_be_locked_or_removed_is_told(
    folder: Path, record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system without locks; and no descriptor is left open."""
    store = FileStore(folder, ring())
    await store.save("c", BINDING, record)

    def without(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOLCK, "x")

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", without)
        patched.setattr(Path, "replace", without)
        with pytest.raises(StoreUnavailable, match="No locks available"):
            async with store.turn("c"):
                pass
        with pytest.raises(StoreUnavailable, match="No locks available"):
            await store.forget("c")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    with caplog.at_level(logging.DEBUG):
        assert await store.load("c", BINDING) == record
    assert caplog.records == []
