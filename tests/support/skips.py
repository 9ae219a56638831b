"""Lists the skipped tests of a run with their reasons; with CI=true only what the machine cannot do is excused.

A program that is missing there is no excuse: `.ci/run` installs what the tests ask for.

Usage: `python tests/support/skips.py JUNIT_XML`. Reads the report that `pytest --junitxml` wrote.
"""

import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

#: A reason that begins like this says that the machine cannot run the test, and what it lacks.
EXCUSED: Final = "this machine"
#: One that goes on like this says that a program is missing; the two parts of a system cannot be installed.
PROGRAM: Final = re.compile(f"{EXCUSED} has no (?!/proc|IPv6)")


def skipped(report: Path) -> list[tuple[str, str]]:
    """`(test, reason)` of each skipped test in the report, in its order."""
    root = ET.parse(report).getroot()  # noqa: S314  pytest wrote it a moment ago
    return [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message", ""))
        for case in root.iter("testcase")
        for skip in case.iter("skipped")
    ]


def main(report: Path, *, strict: bool) -> int:
    """Print the list; 1 if `strict` and a reason does not say what the machine lacks, or names a program."""
    found = skipped(report)
    for test, reason in found:
        print(f"skipped: {test}: {reason}")  # noqa: T201  the list is what this is for
    unexplained = [test for test, reason in found if not reason.startswith(EXCUSED)]
    lacking = [test for test, reason in found if PROGRAM.match(reason)]
    for tests, mend in (
        (unexplained, f"a reason must begin with {EXCUSED!r}"),
        (lacking, "install the program that its reason names, as .ci/run does"),
    ):
        if strict and tests:
            print(f"{len(tests)} skipped without need: {mend}")  # noqa: T201  same
    return int(strict and bool(unexplained or lacking))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), strict=os.environ.get("CI") == "true"))
