"""Lines reach their stream in order, at once or with the turn of the loop; none is lost or doubled on the way."""

import asyncio
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from proxy import logs
from proxy.lines import HELD_LIMIT, Lines, timestamp
from proxy.redact import Redactor, Secret
from tests.support.hooks import hooks_kept


class Stream(io.StringIO):
    """Remembers each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str, /) -> int:
        """Keep `text`."""
        self.writes.append(text)
        return super().write(text)


@pytest.fixture
def stream() -> Stream:
    """Where lines go."""
    return Stream()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, whatever is done to it put right afterwards."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    with hooks_kept():
        yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_timestamp_is_rfc_3339_with_milliseconds() -> None:
    """In UTC, also where the clock goes back."""
    for at, text in (
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
        (1_800_000_001.0, "2027-01-15T08:00:01.000Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250Z"),
    ):
        assert timestamp(at) == text


async def test_lines_of_one_turn_are_one_write(stream: Stream) -> None:
    """And those of the next turn another."""
    lines = Lines(stream)
    for text in ("one\n", "two\n", "three\n"):
        lines.write(text)
    assert stream.writes == []
    await asyncio.sleep(0)
    assert stream.writes == ["one\ntwo\nthree\n"]
    lines.write("four\n")
    await asyncio.sleep(0)
    assert stream.writes == ["one\ntwo\nthree\n", "four\n"]


def test_without_a_loop_a_line_is_there_at_once(stream: Stream) -> None:
    """Before the loop runs, and after it."""
    lines = Lines(stream)
    lines.write("one\n")
    assert stream.getvalue() == "one\n"


async def test_no_more_than_a_bound_waits_for_the_turn(stream: Stream) -> None:
    """A turn may be long."""
    lines = Lines(stream)
    line = "x" * 1023 + "\n"
    for _ in range(3 * HELD_LIMIT // 1024):
        lines.write(line)
    assert len(stream.getvalue()) > HELD_LIMIT
    assert max(map(len, stream.writes)) <= HELD_LIMIT + len(line)
    await asyncio.sleep(0)
    assert len(stream.getvalue()) == 3 * HELD_LIMIT


def test_what_a_loop_left_behind_is_written_by_the_next_flush(stream: Stream) -> None:
    """A loop that is stopped makes no further turn; logging flushes its handlers when the interpreter ends."""
    lines = Lines(stream)
    for text in ("one\n", "two\n"):
        loop = asyncio.new_event_loop()
        loop.call_soon(lines.write, text)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        lines.flush()
    assert stream.writes == ["one\n", "two\n"]


async def test_other_records_are_written_at_once_behind_what_is_held(root: logging.Logger, stream: Stream) -> None:
    """The order of events is the order of lines."""
    lines = Lines(stream)
    redactor = Redactor()
    redactor.register(Secret("a-registered-value"))
    logs.set_up(redactor, lines=lines)
    lines.write("request 1\n")
    root.info("event a-registered-value")
    lines.write("request 2\n")
    assert [line.rpartition(" INFO ")[2] for line in stream.getvalue().splitlines()] == ["request 1", "event ***"]
    await asyncio.sleep(0)
    assert stream.getvalue().endswith("event ***\nrequest 2\n")


def closed() -> TextIO:
    """A stream that is closed."""
    made = io.StringIO()
    made.close()
    return made


def full() -> TextIO:
    """A device without space."""
    return Path("/dev/full").open("w", buffering=1, encoding="ascii")


@pytest.mark.parametrize("make", [closed, full])
async def test_a_stream_that_takes_nothing_only_loses_lines(
    make: Callable[[], TextIO], root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who logs does not notice, the loop neither, and nothing piles up."""
    stream = make()
    lines = Lines(stream)
    logs.set_up(Redactor(), lines=lines)
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    for _ in range(3):
        lines.write("request\n")
        root.error("event")
        lines.write("request\n")
        await asyncio.sleep(0)
    assert failed == []
    assert not lines._held
    assert capsys.readouterr() == ("", "")
    if not stream.closed:
        with pytest.raises(OSError, match="No space"):
            stream.close()


def test_what_is_logged_in_the_midst_of_a_write_comes_out_once(stream: Stream) -> None:
    """The garbage collector may log from inside any function; a lock that waits for itself would hang here."""
    nested = iter(["two\n", "three\n"])

    class Logging(Stream):
        """Has something to say about being written to."""

        def write(self, text: str, /) -> int:
            for line in nested:
                lines.write(line)
                lines.flush()
            return stream.write(text)

    lines = Lines(Logging())
    lines.write("one\n")
    assert stream.getvalue() == "one\ntwo\nthree\n"


async def test_lines_of_several_threads_all_come_out(stream: Stream) -> None:
    """Each once, and those of one thread in their order."""
    lines = Lines(stream)

    def work(name: str) -> None:
        for count in range(500):
            lines.write(f"{name} {count}\n")
            lines.flush()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for count in range(500):
        lines.write(f"loop {count}\n")
        await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    written = stream.getvalue().splitlines()
    assert len(written) == 2000
    for name in ("a", "b", "c", "loop"):
        assert [line for line in written if line.startswith(name)] == [f"{name} {count}" for count in range(500)]


@pytest.mark.threat(74)
def test_074_escapes_of_a_line_do_not_spell_a_secret() -> None:
    """As somebody's bytes do that were read as Latin-1."""
    redactor = Redactor()
    redactor.register(Secret("pässwort-geheim-4711"))
    record = logging.LogRecord("proxy", logging.INFO, "", 0, "a %s b", (), None)
    record.args = ("pässwort-geheim-4711".encode().decode("latin-1"),)
    assert logs.RedactingFormatter(redactor, json_lines=False).format(record).endswith(" a *** b")


@pytest.mark.threat(75)
@pytest.mark.usefixtures("root")
def test_075_what_nobody_caught_goes_through_the_one_handler(
    stream: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the program itself, in a thread, and where nobody can catch it; a thread that just ends says nothing."""
    redactor = Redactor()
    redactor.register(Secret("a-registered-value"))
    logs.set_up(redactor, lines=Lines(stream))

    class Failing:
        def __del__(self) -> None:
            raise ValueError("a-registered-value in a finalizer")

    def fail(error: type[BaseException]) -> None:
        raise error("a-registered-value in a thread")

    Failing()
    for error in (ValueError, SystemExit):
        ending = threading.Thread(target=fail, args=[error])
        ending.start()
        ending.join()
    failure = ValueError("a-registered-value at the end")
    sys.excepthook(ValueError, failure, None)
    said = stream.getvalue()
    assert [
        said.count(f"ValueError: *** {where}") for where in ("in a finalizer", "in a thread", "at the end")
    ] == [1] * 3
    assert said.count("uncaught exception") == 3
    assert "a-registered-value" not in said
    assert capsys.readouterr() == ("", "")
