"""Lists the skipped tests of a run with their reasons; with CI=true only what the machine cannot do is excused.

Usage: `python tests/support/skips.py JUNIT_XML`. Reads the report that `pytest --junitxml` wrote.
"""

import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

#: A reason that begins like this says that the machine cannot run the test, and what it lacks.
EXCUSED: Final = "this machine"


def skipped(report: Path) -> list[tuple[str, str]]:
    """`(test, reason)` of each skipped test in the report, in its order."""
    root = ET.parse(report).getroot()  # noqa: S314  pytest wrote it a moment ago
    return [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message", ""))
        for case in root.iter("testcase")
        for skip in case.iter("skipped")
    ]


def main(report: Path, *, strict: bool) -> int:
    """Print the list; 1 if `strict` and a reason does not say what the machine lacks."""
    found = skipped(report)
    for test, reason in found:
        print(f"skipped: {test}: {reason}")  # noqa: T201  the list is what this is for
    inexcusable = [test for test, reason in found if not reason.startswith(EXCUSED)]
    if strict and inexcusable:
        print(f"{len(inexcusable)} skipped without need: a reason must begin with {EXCUSED!r}")  # noqa: T201  same
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), strict=os.environ.get("CI") == "true"))
