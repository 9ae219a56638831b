"""A body that was sent once can be sent again, byte for byte, up to its two bounds; beyond them nothing is kept."""

import errno
import gc
import logging
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import replay
from proxy.replay import SMALL, Replay


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, for a test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    replay._warn.cache_clear()
    return tmp_path


@pytest.fixture
def small_files() -> Iterator[int]:
    """As if the disk were full: no file grows beyond this many bytes."""
    most = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    yield most
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def whole(kept: Replay, size: int = replay.SLICE) -> bytes:
    """All that is kept."""
    return b"".join(kept.pieces(size))


def number_of(kept: Replay) -> int:
    """The descriptor of the file behind it."""
    assert kept._file is not None
    return kept._file._file.fileno()


def is_open(number: int) -> bool:
    """Is there a file behind this descriptor?"""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.mark.threat(104)
@pytest.mark.parametrize(
    ("length", "memory", "disk", "held"),
    [
        (0, 0, 0, True),
        (1, 0, 0, False),
        (99, 100, 0, True),
        (100, 100, 0, True),
        (101, 100, 0, False),
        (101, 100, 50, True),
        (150, 100, 50, True),
        (151, 100, 50, False),
        (50, 0, 50, True),
        (51, 0, 50, False),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_104_a_body_is_kept_up_to_both_bounds_together(
    length: int, memory: int, disk: int, piece: int, *, held: bool
) -> None:
    """However it is cut: to the byte."""
    body = os.urandom(length)
    kept = Replay(memory, disk)
    for at in range(0, length, piece):
        kept.keep(body[at : at + piece])
    assert kept.is_whole is held
    assert whole(kept) == (body if held else b"")


@pytest.mark.threat(104)
@given(
    st.lists(st.binary(max_size=3000), max_size=20),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(1, 5000),
)
def test_104_any_body_in_any_pieces_comes_back(pieces: list[bytes], memory: int, disk: int, size: int) -> None:
    """As often as it is asked for, at any time in between; memory and disk hold no more than they may."""
    kept = Replay(memory, disk)
    body = b""
    for piece in pieces:
        kept.keep(piece)
        body += piece
        assert kept.is_whole is (len(body) <= memory + disk)
        assert whole(kept, size) == whole(kept, size) == (body if kept.is_whole else b"")
        assert sum(map(len, kept._kept or ())) <= memory
        assert kept._file is None or 0 < kept._file.size <= disk
        assert all(len(each) <= max(size, SMALL, *map(len, pieces)) for each in kept.pieces(size))


def test_one_piece_is_kept_as_it_came() -> None:
    """Most bodies are; they are not copied."""
    piece = b'{"name": "value"}' * 10
    kept = Replay(1024, 1024)
    kept.keep(piece)
    assert next(kept.pieces()) is piece


def test_a_body_in_tiny_pieces_costs_little_more_than_its_length() -> None:
    """Two bytes at a time would be a hundred thousand objects."""
    kept = Replay(1 << 20, 0)
    for _ in range(100_000):
        kept.keep(b"ab")
    assert kept.is_whole
    assert len(kept._kept or ()) <= 200_000 // SMALL + 1
    assert whole(kept) == b"ab" * 100_000


@pytest.mark.threat(121)
def test_104_the_file_has_no_name_and_nobody_else_may_read_it(folder: Path) -> None:
    """And there is none before memory is full."""
    kept = Replay(10, 100)
    kept.keep(b"0123456789")
    assert kept._file is None
    kept.keep(b"x")
    found = os.fstat(number_of(kept))
    assert found.st_nlink == 0
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert not os.get_inheritable(number_of(kept))
    assert folder.stat().st_dev == found.st_dev
    assert list(folder.iterdir()) == []


def test_a_drop_frees_the_file_and_is_as_good_twice() -> None:
    """Nothing is kept from then on."""
    kept = Replay(0, 100)
    kept.keep(b"body")
    number = number_of(kept)
    for _ in range(2):
        kept.drop()
        assert not kept.is_whole
        assert not is_open(number)
        kept.keep(b"more")
        assert whole(kept) == b""


def test_a_body_that_outgrows_its_bounds_frees_the_file() -> None:
    """What was kept of it is of no use."""
    kept = Replay(0, 100)
    kept.keep(b"x" * 100)
    number = number_of(kept)
    kept.keep(b"x")
    assert not is_open(number)


def test_a_body_that_nobody_needs_any_more_frees_its_file() -> None:
    """A request that ended in an error drops nothing by itself."""
    kept = Replay(0, 100)
    kept.keep(b"body")
    number = number_of(kept)
    del kept
    gc.collect()
    assert not is_open(number)


def test_who_reads_it_gets_all_of_it_though_it_is_dropped() -> None:
    """The second answer comes while the second upload still runs; the file goes when that is done."""
    body = os.urandom(1000)
    kept = Replay(100, 1000)
    kept.keep(body)
    number = number_of(kept)
    reading = kept.pieces(64)
    first = next(reading)
    kept.drop()
    assert first + b"".join(reading) == body
    del reading
    assert not is_open(number)


def test_what_is_kept_later_is_not_given_to_who_read_before() -> None:
    """It is what was kept when it was asked for: the rest comes from the client."""
    kept = Replay(4, 100)
    kept.keep(b"ab")
    early = kept.pieces()
    kept.keep(b"cdef")
    later = kept.pieces()
    kept.keep(b"gh")
    assert (b"".join(early), b"".join(later), whole(kept)) == (b"ab", b"abcdef", b"abcdefgh")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of files that failed."""
    return [
        record.__dict__["fields"]["detail"] for record in caplog.records if record.message == "replay_file_failed"
    ]


def test_104_a_full_disk_only_ends_the_keeping(small_files: int, caplog: pytest.LogCaptureFixture) -> None:
    """Part of a piece fits and the rest does not; the log says so once, however many bodies it happens to."""
    for _ in range(3):
        kept = Replay(10, 10 * small_files)
        for _ in range(4):
            kept.keep(b"x" * (small_files // 3))
        assert not kept.is_whole
        assert whole(kept) == b""
    [detail] = warnings_in(caplog)
    assert "replay.memory" in detail
    assert os.strerror(errno.EFBIG) in detail


def test_104_a_folder_that_takes_no_file_only_ends_the_keeping(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Small bodies are kept all the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    for _ in range(2):
        kept = Replay(10, 100)
        kept.keep(b"0123456789")
        assert whole(kept) == b"0123456789"
        kept.keep(b"x")
        assert not kept.is_whole
    assert len(warnings_in(caplog)) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    """Never a body that looks complete (invariant 8)."""
    kept = Replay(0, 100)
    kept.keep(b"x" * 100)
    reading = kept.pieces(10)
    next(reading)
    os.ftruncate(number_of(kept), 15)
    assert next(reading) == b"x" * 5
    with pytest.raises(OSError, match="Input/output"):
        next(reading)
