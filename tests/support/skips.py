"""Lists the skipped tests of a run with their reasons; with CI=true only those of a closed list are excused.

A program that is missing is no excuse there, for `.ci/run` installs what the tests ask for; nor is another system.

Usage: `python tests/support/skips.py JUNIT_XML`. Reads the report that `pytest --junitxml` wrote.
"""

import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

#: What a Linux machine without a person cannot mend: as whom it runs, what its kernel or its container allows,
#: its processor, and the release of its distribution. Each is a whole reason.
EXCUSED: Final = (
    r"this machine runs the tests as root, who may do everything",
    r"this machine's user is not root, and only root can give (a file|files|folders) away",
    r"this machine lets the tests be no other user",
    r"this machine runs the tests without root, which mount namespaces need",
    r"this machine does not let (this user|root) make a mount namespace",
    r"this machine lets nobody make network namespaces \(.+\)",
    r"this machine lets the tests make no namespace of time",
    r"this machine has no IPv6( loopback)?",
    r"this machine allows too few open files",
    r"this machine writes these tables in another byte order",
    r"this machine has (nginx|haproxy) [0-9.]+, and the list is of [0-9.]+",
)


def skipped(report: Path) -> list[tuple[str, str]]:
    """`(test, reason)` of each skipped test in the report, in its order."""
    root = ET.parse(report).getroot()  # noqa: S314  pytest wrote it a moment ago
    return [
        (f"{case.get('classname')}::{case.get('name')}", skip.get("message", ""))
        for case in root.iter("testcase")
        for skip in case.iter("skipped")
    ]


def excused(reason: str) -> bool:
    """Does it stand in `EXCUSED`?"""
    return any(re.fullmatch(each, reason) for each in EXCUSED)


def main(report: Path, *, strict: bool) -> int:
    """Print the list; 1 if `strict` and a reason is not in `EXCUSED`: those are printed once more, as failures."""
    found = skipped(report)
    for test, reason in found:
        print(f"skipped: {test}: {reason}")  # noqa: T201  the list is what this is for
    failures = [(test, reason) for test, reason in found if strict and not excused(reason)]
    for test, reason in failures:
        print(f"skipped without need: {test}: {reason}")  # noqa: T201  same
    if failures:
        print("Install what is missing, as .ci/run does; what may be skipped stands in tests/support/skips.py.")  # noqa: T201  same
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), strict=os.environ.get("CI") == "true"))
