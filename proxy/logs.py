"""Logging: one event a line on standard error, JSON or text, ASCII only, redacted as the very last step.

Law: the root handler is the one choke point. It masks the *final* text, traceback included, of every logger of the
process (threats 74, 79).
"""

import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Final, Literal

from proxy.lines import Lines, timestamp
from proxy.redact import Redactor

#: A foreign library may log whole requests; beyond this a line is cut (threat 85).
LINE_LIMIT: Final = 16 * 1024


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
        return self._redactor.line(" ".join(words))[:LINE_LIMIT]

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
    # An uncaught exception is printed by the interpreter itself, past every handler; so is one that ended a thread,
    # and one that nobody can catch (in `__del__`, say).
    sys.excepthook = _tell
    threading.excepthook = lambda ended: _tell(ended.exc_type, ended.exc_value, ended.exc_traceback)
    sys.unraisablehook = lambda lost: _tell(lost.exc_type, lost.exc_value, lost.exc_traceback)


def _tell(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # that ends a thread, and no more
        found = None if value is None else (kind, value, trace)
        logging.getLogger("proxy").critical("uncaught exception", exc_info=found)
