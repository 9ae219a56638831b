"""The rejection latch: survives restarts, holds for one secret only, and trusts no file but its own."""

import hashlib
import json
import logging
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.stores.latch import Latch

FINGERPRINT = hashlib.sha256(b"kanarie-9a77").digest()
OTHER = hashlib.sha256(b"another").digest()
SALT = b"s" * 16
DIGEST = hashlib.scrypt(FINGERPRINT, salt=SALT, n=2**14, r=8, p=1, maxmem=2**26, dklen=32)
REASON = "The token endpoint rejects the credential 'billing'."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A latch of `billing`, whatever its salt."""
    return tmp_path / "state" / "rejected" / f"billing@{(b's' * 16).hex()}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state folder, which does not exist yet."""
    return tmp_path / "state"


def files(folder: Path) -> list[Path]:
    """Everything in the folder of latches."""
    return sorted((folder / "rejected").iterdir())


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every slow digest."""
    counted: list[int] = []
    scrypt = hashlib.scrypt

    def count(*args: Any, **kwargs: Any) -> bytes:
        counted.append(1)
        return scrypt(*args, **kwargs)

    monkeypatch.setattr(hashlib, "scrypt", count)
    return counted


@pytest.mark.threat(107)
async def test_a_latch_survives_a_restart_and_holds_for_its_secret_only(folder: Path) -> None:
    """A changed secret is tried; the old one back is still known to be wrong."""
    before = Latch(folder)
    assert await before.is_set("billing", FINGERPRINT) is None
    await before.set("billing", FINGERPRINT, REASON, 1.7e9)
    for latch in (before, Latch(folder)):
        assert await latch.is_set("billing", FINGERPRINT) == REASON
        assert await latch.is_set("billing", OTHER) is None
        assert await latch.is_set("billing", FINGERPRINT) == REASON
        assert await latch.is_set("other", FINGERPRINT) is None


async def test_clear_forgets_exactly_the_fingerprint_that_it_is_given(folder: Path) -> None:
    """On disk and in memory."""
    latch = Latch(folder)
    await latch.set("billing", FINGERPRINT, REASON, 1.7e9)
    await latch.clear("billing", OTHER)
    assert await latch.is_set("billing", FINGERPRINT) == REASON
    await latch.clear("billing", FINGERPRINT)
    assert await latch.is_set("billing", FINGERPRINT) is None
    assert await Latch(folder).is_set("billing", FINGERPRINT) is None
    assert files(folder) == []
    await latch.clear("billing", FINGERPRINT)


async def test_two_credentials_of_one_name_do_not_make_each_other_forgotten(folder: Path) -> None:
    """Two configurations on one machine both call theirs `default`; in a restart loop each is tried once."""
    await Latch(folder).set("default", FINGERPRINT, REASON, 1.7e9)
    await Latch(folder).set("default", OTHER, "the other", 1.8e9)
    for _ in range(3):
        assert await Latch(folder).is_set("default", FINGERPRINT) == REASON
        assert await Latch(folder).is_set("default", OTHER) == "the other"
    latch = Latch(folder)
    await latch.clear("default", OTHER)
    assert await latch.is_set("default", FINGERPRINT) == REASON
    assert await latch.is_set("default", OTHER) is None


async def test_the_newest_rejections_of_a_name_are_kept_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that is changed every day does not fill the state folder."""
    monkeypatch.setattr("proxy.stores.latch.KEPT", 3)
    latch = Latch(folder)
    for number in range(5):
        await latch.set("billing", bytes([number]), f"reason {number}", 1.7e9)
    assert len(files(folder)) == 3
    found = [await Latch(folder).is_set("billing", bytes([number])) for number in range(5)]
    assert found == [None, None, "reason 2", "reason 3", "reason 4"]


async def test_what_another_process_does_is_noticed(folder: Path) -> None:
    """Two instances share a state folder."""
    one, two = Latch(folder), Latch(folder)
    assert await two.is_set("billing", FINGERPRINT) is None
    await one.set("billing", FINGERPRINT, REASON, 1.7e9)
    assert await two.is_set("billing", FINGERPRINT) == REASON
    await two.clear("billing", FINGERPRINT)
    assert await one.is_set("billing", FINGERPRINT) is None


async def test_an_unchanged_fingerprint_costs_one_slow_digest(folder: Path, digests: list[int]) -> None:
    """Whether it is set or not."""
    await Latch(folder).set("billing", FINGERPRINT, REASON, 1.7e9)
    for fingerprint in (FINGERPRINT, OTHER):
        digests.clear()
        latch = Latch(folder)
        for _ in range(5):
            await latch.is_set("billing", fingerprint)
        assert len(digests) == 1


async def test_the_file_is_private_and_holds_no_trace_of_the_secret(folder: Path) -> None:
    """A salted slow digest; the same secret never looks the same twice."""
    latch = Latch(folder)
    contents = []
    for _ in range(2):
        await latch.set("billing", FINGERPRINT, REASON, 1.7e9)
        [file] = files(folder)
        contents.append(file.read_text())
        assert FINGERPRINT.hex() not in contents[-1]
        assert "kanarie" not in contents[-1]
    first, second = (json.loads(content) for content in contents)
    assert first["digest"] != second["digest"]
    assert (first["reason"], first["wall"]) == (REASON, 1.7e9)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file.parent)] == [0o700, 0o700]


async def test_the_digest_is_scrypt_of_the_fingerprint(folder: Path, file: Path) -> None:
    """With the salt that the given random source made."""
    await Latch(folder, random=lambda size: b"s" * size).set("billing", FINGERPRINT, REASON, 1.7e9)
    record = json.loads(file.read_text())
    assert record["salt"] == (b"s" * 16).hex()
    expected = hashlib.scrypt(FINGERPRINT, salt=b"s" * 16, n=2**14, r=8, p=1, maxmem=2**26, dklen=32)
    assert record["digest"] == expected.hex()


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", ".", "ü", "a\nb", "%2F"])
async def test_no_name_leaves_the_folder(folder: Path, name: str) -> None:
    """Names are quoted, and different names stay different."""
    await Latch(folder).set(name, FINGERPRINT, REASON, 1.7e9)
    assert await Latch(folder).is_set(name, FINGERPRINT) == REASON
    assert len(list((folder / "rejected").glob("*.json"))) == 1
    assert list(folder.parent.iterdir()) == [folder]


async def test_a_long_or_odd_reason_is_still_kept(folder: Path) -> None:
    """In printable ASCII, as much as fits."""
    await Latch(folder).set("billing", FINGERPRINT, "é\n" + "x" * 10_000, 1.7e9)
    reason = await Latch(folder).is_set("billing", FINGERPRINT)
    assert reason is not None
    assert reason.startswith("\\xe9\\nxxx")
    assert len(reason) == 1000


def _record(**changes: object) -> bytes:
    """A record that matches `FINGERPRINT`, with some members changed."""
    record = {"version": 1, "salt": SALT.hex(), "digest": DIGEST.hex(), "reason": REASON, "wall": 1.7e9}
    return json.dumps({**record, **changes}).encode()


async def test_the_record_of_the_table_below_counts_when_it_is_whole(folder: Path, file: Path) -> None:
    """Else the table would prove nothing."""
    file.parent.mkdir(parents=True)
    file.write_bytes(_record())
    assert await Latch(folder).is_set("billing", FINGERPRINT) == REASON


def _link(path: Path) -> None:
    other = path.with_name("elsewhere")
    other.write_bytes(_record())
    path.symlink_to(other)


def _foreign(path: Path) -> None:
    path.write_bytes(_record())
    os.chown(path, 12345, -1)


PLANTED: dict[str, bytes | Callable[[Path], None]] = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe\xff",
    "an array": b"[]",
    "null": b"null",
    "deep": b"[" * 4000,
    "another version": _record(version=2),
    "without a salt": _record(salt=None),
    "a short salt": _record(salt="00"),
    "a salt that is not hexadecimal": _record(salt="zz" * 16),
    "a digest that is not hexadecimal": _record(digest="zz" * 32),
    "a short digest": _record(digest="00"),
    "a reason that is no text": _record(reason=5),
    "a reason of two lines": _record(reason="a\nb"),
    "an instant that is none": _record(wall="then"),
    "an instant that no float holds": _record(wall=10**400),
    "an instant without end": _record(wall=math.inf),
    "too large": _record() + b" " * 5000,
    "a link": _link,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "of another user": _foreign,
}


@pytest.mark.threat(92)
@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
async def test_what_is_not_our_file_counts_as_not_set_and_is_moved_aside(
    folder: Path, file: Path, planted: bytes | Callable[[Path], None]
) -> None:
    """And the place is free for the next rejection."""
    file.parent.mkdir(parents=True)
    if isinstance(planted, bytes):
        file.write_bytes(planted)
    elif planted is _foreign and os.geteuid() != 0:
        pytest.skip("this machine's user is not root, and only root can give files away")
    else:
        planted(file)
    latch = Latch(folder)
    assert await latch.is_set("billing", FINGERPRINT) is None
    assert not os.path.lexists(file)
    assert os.path.lexists(file.with_name(f"{file.name}.corrupt"))
    await latch.set("billing", FINGERPRINT, REASON, 1.7e9)
    assert await Latch(folder).is_set("billing", FINGERPRINT) == REASON


async def test_where_nothing_can_be_written_memory_holds_it_and_one_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only container still does not hammer the account until it restarts."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    latch = Latch(blocked)
    with caplog.at_level(logging.DEBUG):
        for name in ("billing", "other"):
            await latch.set(name, FINGERPRINT, REASON, 1.7e9)
            assert await latch.is_set(name, FINGERPRINT) == REASON
            assert await latch.is_set(name, OTHER) is None
    assert [(record.name, record.levelname) for record in caplog.records] == [("proxy.latch", "WARNING")]
    assert caplog.messages == ["state_not_kept"]
    assert "cannot be written" in caplog.records[0].fields["detail"]  # type: ignore[attr-defined]  # of our logging


async def test_an_unsaved_latch_can_be_cleared(tmp_path: Path) -> None:
    """Memory is all there is."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    latch = Latch(blocked)
    await latch.set("billing", FINGERPRINT, REASON, 1.7e9)
    await latch.clear("billing", FINGERPRINT)
    assert await latch.is_set("billing", FINGERPRINT) is None


async def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, for one."""
    await Latch(folder).set("billing", FINGERPRINT, REASON, 1.7e9)
    [file] = files(folder)
    old = file.read_bytes()

    def full(_number: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    latch = Latch(folder)
    await latch.set("billing", OTHER, "another reason", 1.8e9)
    assert file.read_bytes() == old
    assert list(file.parent.iterdir()) == [file]
    assert await latch.is_set("billing", OTHER) == "another reason"
