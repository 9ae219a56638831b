"""Renders the states of credentials for people."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from proxy.cli.looks import painted

_HEADINGS: Final = ("CREDENTIAL", "STATE", "GENERATION", "EXPIRES IN", "RE-LOGIN BY", "LAST ERROR")
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def lines(reports: Iterable[Mapping[str, Any]], wall: float) -> Iterator[str]:
    """A table with one line a report (as `/api/credentials` gives them); `wall` is now in epoch seconds."""
    rows = [_HEADINGS, *(_row(report, wall) for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        cells[1] = painted(cells[1], row[1])
        yield "  ".join(cells).rstrip()


def _row(report: Mapping[str, Any], wall: float) -> tuple[str, ...]:
    expires_in, refresh_expires_in = report["expires_in"], report["refresh_expires_in"]
    if not report["generation"]:
        left = "no token yet"
    elif expires_in is None:
        left = "unknown"
    else:
        left = duration(expires_in) if expires_in > 0 else f"{duration(-expires_in)} ago"
    return (
        report["name"],
        report["state"],
        str(report["generation"]),
        left,
        "-" if refresh_expires_in is None else instant(wall + refresh_expires_in),
        report["last_error"] or "-",
    )


def duration(seconds: float) -> str:
    """The two largest units: `29d 23h`, `1h 5m`, `42s`."""
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append((count, unit))
    return " ".join(f"{count}{unit}" for count, unit in parts[:2] if count or len(parts) == 1)


def instant(wall: float) -> str:
    """Epoch seconds as date and time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(wall))
