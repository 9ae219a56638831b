"""Logging: one event a line on standard error, JSON or text, ASCII only, redacted as the very last step.

Law: the root handler is the one choke point. It masks the *final* text, traceback included, of every logger of the
process (threats 74, 79).
"""

import asyncio
import json
import logging
import sys
import threading
import time
from collections import deque
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

from proxy.redact import Redactor, printable

#: A foreign library may log whole requests; beyond this a line is cut (threat 85).
LINE_LIMIT: Final = 16 * 1024
#: Characters that wait for the end of a turn at most.
HELD_LIMIT: Final = 64 * 1024


def timestamp(at: float) -> str:
    """The instant `at` (epoch seconds) in UTC with milliseconds, as RFC 3339 writes it."""
    return _moment(int(at * 1000))


# Under load many lines say the same millisecond, and all lines of a second share the rest.
@lru_cache(maxsize=2)
def _moment(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    return f"{_second(second)}.{rest:03d}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


class Lines:
    """Lines on their way to a stream: those of one turn of the event loop are written at once, in their order.

    Stands where a stream is expected. Without a running loop each line is written at once. What a full or closed
    stream does not take is lost: that is no reason to stop serving. Any thread may write.
    """

    __slots__ = ("_due", "_held", "_size", "_stream", "_writing")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: deque[str] = deque()
        self._size = 0
        #: The loop will call `flush`. Looked at after a line is held, cleared before lines are taken: none is left.
        self._due = False
        self._writing = threading.Lock()

    def write(self, text: str) -> None:
        """Hold `text` until this turn ends."""
        self._held.append(text)
        self._size += len(text)
        if not self._due:
            self._wait_for_the_turn()
        elif self._size > HELD_LIMIT:
            self.flush()

    def _wait_for_the_turn(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._due = True
        loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is held.

        Never waits for another who does, since that one looks again when it is done: it may be this very thread,
        where the garbage collector logs something in between.
        """
        self._due = False
        while self._held and self._writing.acquire(blocking=False):
            try:
                take = self._held.popleft
                text = "".join([take() for _ in range(len(self._held))])
                self._size = 0
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                pass
            finally:
                self._writing.release()


class RedactingFormatter(logging.Formatter):
    """Renders a record and masks the result.

    A record's event is its message; named values come as `extra={"fields": {...}}`.
    """

    def __init__(self, redactor: Redactor, *, json_lines: bool) -> None:
        super().__init__()
        self._redactor = redactor
        self._json_lines = json_lines

    def format(self, record: logging.LogRecord) -> str:
        """One line of printable ASCII without a live secret in it."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        message = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        trace = "\n".join(filter(None, (record.exc_text, record.stack_info)))
        # Masked before JSON escapes anything, and the result again: a secret may straddle two parts.
        parts = {key: self._clean(value) for key, value in fields.items() if value is not None}
        if self._json_lines:
            line = json.dumps(
                {
                    "time": timestamp(record.created),
                    "level": record.levelname.lower(),
                    "event": self._clean(message),
                    **parts,
                    **({"logger": record.name} if not record.name.startswith("proxy") else {}),
                    **({"trace": self._clean(trace)} if trace else {}),
                }
            )
            return self._redactor.values(line)
        words = [timestamp(record.created), record.levelname, message]
        words += [f"{key}={value}" for key, value in parts.items()]
        if trace:
            words.append(trace)
        return printable(self._redactor.text(" ".join(words)))[:LINE_LIMIT]

    def _clean(self, value: Any) -> Any:  # noqa: ANN401  whatever a caller put into its fields
        return self._redactor.text(value)[:LINE_LIMIT] if isinstance(value, str) else value


class RedactingHandler(logging.StreamHandler[Lines]):
    """The root handler; its own failures must not print the record they failed on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name that logging calls
        """Say that a line was lost, and nothing of it."""
        self.stream.write(f"a log line of {record.name} could not be written\n")


def set_up(
    redactor: Redactor,
    *,
    level: str = "info",
    style: Literal["text", "json"] = "text",
    lines: Lines | None = None,
) -> None:
    """Send every logger of the process, warnings included, through one redacting handler to `lines`.

    Without `lines` they go to standard error.
    """
    handler = RedactingHandler(lines if lines is not None else Lines(sys.stderr))
    handler.setFormatter(RedactingFormatter(redactor, json_lines=style == "json"))
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # An uncaught exception is printed by the interpreter itself, past every handler.
    sys.excepthook = lambda kind, value, trace: logging.getLogger("proxy").critical(
        "uncaught exception", exc_info=(kind, value, trace)
    )
