"""Makes the table of docs/metrics.md of what the code exposes.

Usage: `python -m tests.support.metricspage`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.accesslog import Exchange
from proxy.admin.machinery import Machinery
from proxy.admin.metrics import Metrics
from proxy.credentials.credential import Report
from proxy.errors import HostNotAllowed

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
_TABLE: Final = re.compile(r"(<!-- metrics -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD: Final = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
_SAMPLE: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? \S+")


def exposed() -> bytes:
    """A scrape after everything that is counted has happened."""
    machinery = Machinery(lambda: {"api": {"size": 1, "idle": 0, "busy": 0, "waiting": 0}})
    report = Report("crm", "fresh", 1, 40.0, persisted=True)
    metrics = Metrics(lambda: [report], lambda: 0.0, machinery.families)
    for values in (
        {"status": 200, "refusals": 1, "retried": True, "echoes": 1, "token_in_body": True},
        {"status": 403, "error": HostNotAllowed.code},
    ):
        exchange = Exchange("GET", "127.0.0.1", 0.0)
        for name, value in {"route": "api", **values}.items():
            setattr(exchange, name, value)
        metrics.observe(exchange)
    metrics.token_requested("crm")
    metrics.token_obtained("crm")
    metrics.token_failed("crm", "credential_rejected")
    return metrics.text()


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Name, type, labels and meaning of each metric, in the order in which it is exposed."""
    about: dict[str, tuple[str, str]] = {}
    labels: dict[str, list[str]] = {}
    explanation = name = ""
    for line in exposed().decode("utf-8").splitlines():
        if line.startswith("# HELP "):
            _, _, name, explanation = line.split(" ", 3)
        elif line.startswith("# TYPE "):
            about[name] = (line.rpartition(" ")[2], explanation)
        elif (sample := _SAMPLE.fullmatch(line)) is not None:
            found = re.findall(r'(\w+)="', sample["labels"] or "")
            labels.setdefault(name, [each for each in found if each != "le"])
    for each, (kind, meaning) in about.items():
        yield each, kind, ", ".join(f"`{label}`" for label in labels[each]), meaning


def page(text: str) -> str:
    """`text` of the page with its table made anew."""
    table = "".join(f"| `{name}` | {kind} | {labels} | {meaning} |\n" for name, kind, labels, meaning in rows())
    return _TABLE.sub(lambda match: f"{match[1]}{_HEAD}{table}{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
