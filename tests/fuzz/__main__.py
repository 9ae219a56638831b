"""`python -m tests.fuzz`: every target for some seconds, as many at once as there are cores; 1 if one finds any.

`--on FILE …` runs inputs through one target instead, which needs nothing but the tests' own packages: that is how a
find is tried again.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: Nothing is written into the checkout itself.
FINDS: Final = ROOT / ".artefacts" / "fuzz"
NAMES: Final = tuple(sorted(each.name for each in (Path(__file__).parent / "corpus").iterdir()))
#: To start, and to read the corpus.
PATIENCE_SECONDS: Final = 120
#: Behind this stands what was raised; all that was said is in output.log.
UNCAUGHT: Final = "=== Uncaught Python exception"
SHOWN: Final = 4000


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ends the process if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Look for inputs that break something."
    )
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; none: all of them")
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--on", nargs="+", type=Path, metavar="FILE", help="run these inputs through one target")
    options = parser.parse_args(given)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there is {', '.join(NAMES)}")
    if options.on and len(options.names) != 1:
        parser.error("--on takes one target")
    return options


def replay(name: str, files: Sequence[Path]) -> int:
    """Run the inputs in `files`; what does not hold is raised."""
    from tests.fuzz.targets import TARGETS

    for file in files:
        TARGETS[name].check(file.read_bytes())
    return 0


def fuzz(name: str, seconds: int) -> tuple[bool, str]:
    """Does the target hold, and what is there to say?"""
    folder = FINDS / name
    folder.mkdir(parents=True, exist_ok=True)
    known = set(folder.glob("*-*"))
    command = [sys.executable, "-m", "tests.fuzz.engine", name, str(seconds), str(folder)]
    # What one input does is not measured: that would take longer than the input.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_PROCESS")}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{name}: did not end"
    said = done.stdout + done.stderr
    (folder / "output.log").write_text(said)
    count = re.search(r"number_of_executed_units: (\d+)", said)
    finds = sorted(set(folder.glob("*-*")) - known)
    if done.returncode == 0 and count is not None and not finds:
        return True, f"{name}: {int(count[1]):,} inputs, all as it should be"
    again = [
        f"try it again: {Path(sys.executable)} -m tests.fuzz {name} --on {find.relative_to(ROOT)}" for find in finds
    ]
    return False, "\n".join(
        [f"{name}: exit status {done.returncode}", done.stdout.rpartition(UNCAUGHT)[2][:SHOWN], *again]
    )


def main() -> int:
    """Exit status: 1 where something was found, or where what must fuzz cannot."""
    options = arguments()
    if options.on:
        return replay(options.names[0], options.on)
    if find_spec("atheris") is None:
        print("Nothing is fuzzed: atheris is not installed, which has no wheel for every Python and machine.")
        return 1 if os.environ.get("CI") == "true" else 0
    names = options.names or NAMES
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = list(pool.map(lambda name: fuzz(name, options.seconds), names))
    for _, said in results:
        print(said)
    return int(not all(held for held, _ in results))


if __name__ == "__main__":
    sys.exit(main())
