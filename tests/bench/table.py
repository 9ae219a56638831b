"""The one table that a run prints, and the verdicts under it: pure, numbers in and text out."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.bench import together
from tests.bench.upstream import Scheme

#: By name of the proxy, then by scheme and name of the number: what each round gave.
Found = Mapping[str, Mapping[tuple[Scheme, str], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scheme: Scheme
    number: str
    title: str
    digits: int = 0


def _rows(scheme: Scheme, title: str) -> tuple[Row, ...]:
    return (
        Row(scheme, "cpu", f"CPU µs per request, {title}", 1),
        Row(scheme, "rps", f"requests/s, 32 connections, {title}"),
        Row(scheme, "p99", f"p99 µs, 32 connections, {title}"),
        Row(scheme, "p50", f"p50 µs, 1 connection, {title}"),
        Row(scheme, "down", f"download MB/s, {title}"),
        Row(scheme, "down cpu", f"download CPU ms per GiB, {title}"),
        Row(scheme, "down memory", f"download, RSS growth MiB, {title}", 1),
        Row(scheme, "up", f"chunked upload MB/s, {title}"),
        Row(scheme, "up cpu", f"chunked upload CPU ms per GiB, {title}"),
        Row(scheme, "up memory", f"chunked upload, RSS growth MiB, {title}", 1),
        Row(scheme, "stop memory", f"reader that stops, RSS growth MiB, {title}", 1),
    )


ROWS: Final = (
    *_rows("plain", "plain"),
    Row("plain", "varied cpu", "CPU µs per request, every request another head, plain", 1),
    Row("plain", "varied rps", "requests/s, every request another head, plain"),
    *(Row("plain", load.name, f"CPU µs per request, {load.title}", 1) for load in together.LOADS),
    *(Row("plain", load.name, f"the same with 5,000 exchanges kept, {load.title}", 1) for load in together.MANY),
    *_rows("tls", "TLS"),
    Row("plain", "instructions", "instructions per request in thousands, kernel excluded", 2),
    Row("plain", "varied instructions", "the same, every request another head", 2),
    Row("plain", "kept", "an exchange that the inspector keeps, KiB, of 5,000", 1),
    Row("plain", "kept growth", "further growth when they are replaced by 5,000 others, MiB", 1),
    Row("plain", "not kept", "the same load where one exchange is kept, KiB each", 1),
    Row("plain", "kept bodies", "an exchange with 64 KiB kept of either body, KiB, of 200", 1),
    Row("plain", "kept growth bodies", "further growth when they are replaced by 200 others, MiB", 1),
    *(
        Row("plain", f"page {width} {number}", f"page with 5,000 exchanges at {width} px, {title}", digits)
        for width in (1280, 400)
        for number, title, digits in (
            ("median", "half of the frames, ms", 1),
            ("p95", "95 % of the frames, ms", 1),
            ("worst", "the longest frame, ms", 1),
            ("long", "tasks longer than 50 ms", 0),
            ("rows", "rows in the document at once", 0),
        )
    ),
    Row("plain", "stream memory", "idle event stream, KiB each", 1),
    Row("plain", "start", "start to listening, ms"),
    Row("plain", "redaction", "share of redaction in the CPU per request, %, plain", 1),
    Row("plain", "varied redaction", "share of redaction, every request another head, %, plain", 1),
    Row("plain", "redactor", "redactor, MB/s of 1 MB of log lines, 200 live secrets", 1),
    Row("plain", "import", '`python -c "import aiohttp"`, ms'),
)


@dataclass(frozen=True, slots=True)
class Must:
    """What has to hold: a number of ours, as a ratio to that of `against` (a proxy) where there is one."""

    title: str
    scheme: Scheme
    number: str
    kind: Literal["at most", "at least"]
    must: float
    aim: float
    against: str | None = None
    #: The number to compare with, where it is another.
    other: str | None = None
    unit: str = "×"
    #: Whose number it is.
    of: str = "ours"
    #: It is within what rounds differ by, so it is judged by the `interval` of their ratios.
    is_close: bool = False


def _growth(scheme: Scheme, what: str, title: str) -> Must:
    return Must(f"RSS growth, {title}", scheme, f"{what} memory", "at most", 16, 4, unit=" MiB")


def _close(title: str, number: str, must: float, aim: float, proxies: tuple[str, str]) -> Must:
    one, other = proxies
    return Must(title, "plain", number, "at most", must, aim, other, of=one, is_close=True)


#: Where requests cost more or less for the inspector's sake, by number.
COUNTED: Final = {"instructions": "plain", "varied instructions": "every request another head"}
CPU_LOADS: Final = {
    "cpu": "32 connections",
    "varied cpu": "the same, every request another head",
    **{load.name: load.title for load in together.LOADS},
}

MUSTS: Final = (
    Must("CPU per request, plain, against Envoy", "plain", "cpu", "at most", 0.90, 0.60, "envoy"),
    Must("CPU per request, plain, against nginx", "plain", "cpu", "at most", 1.9, 1.2, "nginx"),
    Must("CPU per request, TLS, against Envoy", "tls", "cpu", "at most", 1.15, 0.9, "envoy"),
    *(
        _close(f"CPU per request, inspector on, against off, {load}", number, 1.15, 1.1, ("ours", "ours-unseen"))
        for number, load in CPU_LOADS.items()
    ),
    *(
        _close(f"the same with 5,000 kept, {load.title}", load.name, 1.15, 1.1, ("ours", "ours-unseen"))
        for load in together.MANY
    ),
    *(
        _close(f"{what}, inspector off, against none, {load}", number, 1.01, 1.01, ("ours-unseen", "ours-bare"))
        for what, loads in (("CPU per request", CPU_LOADS), ("instructions", COUNTED))
        for number, load in loads.items()
    ),
    Must("p50 at one connection, plain, against nginx", "plain", "p50", "at most", 1.5, 1.1, "nginx"),
    Must("download MB/s, plain, against Envoy", "plain", "down", "at least", 0.8, 1.0, "envoy"),
    Must("download MB/s, TLS, against Envoy", "tls", "down", "at least", 0.8, 1.0, "envoy"),
    Must("chunked upload MB/s, plain, against Envoy", "plain", "up", "at least", 0.6, 0.9, "envoy"),
    Must("chunked upload MB/s, TLS, against Envoy", "tls", "up", "at least", 0.6, 0.9, "envoy"),
    Must("requests/s, plain, against mitmproxy", "plain", "rps", "at least", 20, 30, "mitmproxy"),
    _growth("plain", "down", "download, plain"),
    _growth("plain", "up", "upload, plain"),
    _growth("plain", "stop", "reader that stops, plain"),
    _growth("tls", "down", "download, TLS"),
    _growth("tls", "up", "upload, TLS"),
    _growth("tls", "stop", "reader that stops, TLS"),
    Must("memory per idle event stream", "plain", "stream memory", "at most", 20, 14, unit=" KiB"),
    Must("share of redaction in the CPU, plain", "plain", "redaction", "at most", 8, 4, unit=" %"),
    Must("share of redaction, every request another head", "plain", "varied redaction", "at most", 8, 4, unit=" %"),
    Must("inspector, growth with 5,000 others", "plain", "kept growth", "at most", 4, 1, unit=" MiB"),
    Must("the same with bodies, 200 others", "plain", "kept growth bodies", "at most", 4, 1, unit=" MiB"),
    *(
        Must(
            f"page, {width} px, {what}",
            "plain",
            f"page {width} {number}",
            "at most",
            must,
            aim,
            unit=unit,
        )
        for width in (1280, 400)
        for number, what, must, aim, unit in (
            ("p95", "95 % of frames", 34, 17, " ms"),
            ("worst", "the longest frame", 100, 50, " ms"),
            ("rows", "rows in the document", 100, 50, ""),
        )
    ),
    Must("start, against importing aiohttp", "plain", "start", "at most", 3, 2, "ours", "import"),
)


def table(found: Found, titles: Mapping[str, str]) -> str:
    """A Markdown table of medians, each with its ratio to ours; `titles` are the columns, ours first.

    Rows and columns without a number are left out.
    """
    names = [name for name in titles if found.get(name)]
    lines = ["| | " + " | ".join(titles[name] for name in names) + " |", "|---|" + "---:|" * len(names)]
    for row in ROWS:
        cells = [_cell(found, name, row) for name in names]
        if any(cells):
            lines.append(f"| {row.title} | " + " | ".join(cell or "–" for cell in cells) + " |")
    return "\n".join(lines)


def _cell(found: Found, name: str, row: Row) -> str:
    value = median(found, name, row.scheme, row.number)
    if value is None:
        return ""
    ours = median(found, "ours", row.scheme, row.number)
    ratio = f" ({value / ours:.2f}×)" if name != "ours" and ours is not None and ours > 0 else ""
    return f"{value:,.{row.digits}f}{ratio}"


def median(found: Found, name: str, scheme: Scheme, number: str) -> float | None:
    """The median over the rounds; None where nothing was measured."""
    values = found.get(name, {}).get((scheme, number))
    return statistics.median(values) if values else None


def verdicts(found: Found) -> str:
    """A Markdown table of `MUSTS`, those that this run measured: value, must, aim, and ok or MISSED."""
    lines = ["| | ours | must | aim | |", "|---|---:|---:|---:|---|"]
    for must in MUSTS:
        value = reached(found, must)
        if value is None:
            continue
        sign, _ = SIGNS[must.kind]
        bounds = " | ".join(f"{sign} {bound:g}{must.unit}" for bound in (must.must, must.aim))
        shown = f"{value:.2f}{must.unit}"
        likely = interval(ratios(found, must)) if must.is_close else None
        if likely is not None:
            shown = f"{value:.3f}{must.unit} ({likely[0]:.3f} to {likely[1]:.3f})"
        lines.append(f"| {must.title} | {shown} | {bounds} | {_judged(must, likely or (value, value))} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _judged(must: Must, likely: tuple[float, float]) -> str:
    """What is said of a value that is between these two."""
    _, holds = SIGNS[must.kind]
    if not any(holds(each, must.must) for each in likely):
        return "MISSED"
    if not all(holds(each, must.must) for each in likely):
        return "not told apart: more rounds"
    return "ok, aim reached" if all(holds(each, must.aim) for each in likely) else "ok"


def ratios(found: Found, must: Must) -> list[float]:
    """Of the rounds, one by one: what was measured in the same minute goes together."""
    mine, others = (
        found.get(name or "", {}).get((must.scheme, number), ())
        for name, number in ((must.of, must.number), (must.against, must.other or must.number))
    )
    return [one / other for one, other in zip(mine, others, strict=True)] if len(mine) == len(others) else []


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Between which the median is, in 95 of 100 such series, whatever the distribution: as the sign test has it.

    Of fewer than six it is their least and greatest, which says less; None: there are none.
    """
    if not values:
        return None
    found, count = sorted(values), len(values)
    left_out, chance = 0, 0.5**count
    while chance <= 0.025:
        left_out += 1
        chance += math.comb(count, left_out) * 0.5**count
    least = max(0, left_out - 1)
    return found[least], found[-1 - least]


SIGNS: Final[Mapping[str, tuple[str, Callable[[float, float], bool]]]] = {
    "at most": ("≤", lambda value, bound: value <= bound),
    "at least": ("≥", lambda value, bound: value >= bound),
}


def reached(found: Found, must: Must) -> float | None:
    """The value that `must` is about; None where something of it was not measured."""
    ours = median(found, must.of, must.scheme, must.number)
    if ours is None or must.against is None:
        return ours
    other = median(found, must.against, must.scheme, must.other or must.number)
    if must.is_close and (each := ratios(found, must)):
        return statistics.median(each)
    return None if not other else ours / other
