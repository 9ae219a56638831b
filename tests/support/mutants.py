"""Each defence turned off in turn: do the tests that carry its number notice?

Usage: `python -m tests.support.mutants [--starred] [NAME ...]`. A mutant is one edit of the source, in a copy of the
checkout, so that commands which a test starts run with it too. It is caught where a test fails that carries one of
its cases; one that is not caught, or whose text is gone from the source, ends the run with 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import yaml

from tests.support.threats import ROOT, carriers, threats

DATA: Final = ROOT / "tests" / "mutants.yaml"
#: Exit statuses of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html
_PASSED, _FAILED = 0, 1
_LEFT_OUT: Final = shutil.ignore_patterns(
    ".venv", ".git", ".artefacts", ".*_cache", ".hypothesis", "__pycache__", ".coverage*"
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defence that is off: in `file` below proxy/, `put` stands where `find` stood, once."""

    name: str
    cases: tuple[int, ...]
    file: str
    find: str
    put: str

    def problem(self) -> str | None:
        """What is wrong with the edit itself."""
        count = (ROOT / "proxy" / self.file).read_text("utf-8").count(self.find)
        return None if count == 1 else f"its text stands {count} times in proxy/{self.file}"


def mutants() -> list[Mutant]:
    """All that `tests/mutants.yaml` lists."""
    rows: dict[str, dict[str, object]] = yaml.safe_load(DATA.read_text("utf-8"))
    return [
        Mutant(name, tuple(row["cases"]), str(row["file"]), str(row["find"]), str(row["put"]))  # type: ignore[arg-type]
        for name, row in rows.items()
    ]


def _verdict(mutant: Mutant, tree: Path, tests: dict[int, list[str]]) -> str | None:
    """Why the mutant is not caught in `tree`, a copy of the checkout; None where it is."""
    if (problem := mutant.problem()) is not None:
        return problem
    files = sorted({f"tests/{test.partition('::')[0]}.py" for case in mutant.cases for test in tests.get(case, [])})
    if not files:
        return "no test carries its number"
    path = tree / "proxy" / mutant.file
    source = path.read_text("utf-8")
    path.write_text(source.replace(mutant.find, mutant.put), "utf-8")
    try:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-m", ""),
                *("--threat", ",".join(map(str, mutant.cases)), *files),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None  # a defence against waiting for ever was off
    finally:
        path.write_text(source, "utf-8")
    if run.returncode == _FAILED:
        return None
    if run.returncode == _PASSED:
        return f"survives: {' '.join(files)}"
    return f"pytest ended with {run.returncode}: {run.stdout[-500:]}{run.stderr[-500:]}"


def main(names: Iterable[str], *, starred: bool) -> int:
    """Try the mutants called `names` (none: all), of starred cases alone where `starred`."""
    wanted, known, tests = set(names), threats(), carriers()
    chosen = [
        each
        for each in mutants()
        if (not wanted or each.name in wanted) and (not starred or any(known[case].star for case in each.cases))
    ]
    trees: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers := os.cpu_count() or 1) as pool:
        for number in range(workers):
            trees.put(Path(shutil.copytree(ROOT, Path(folder, str(number)), ignore=_LEFT_OUT)))

        def tried(mutant: Mutant) -> str | None:
            tree = trees.get()
            try:
                return _verdict(mutant, tree, tests)
            finally:
                trees.put(tree)

        verdicts = dict(zip((each.name for each in chosen), pool.map(tried, chosen), strict=True))
    for name, verdict in verdicts.items():
        if verdict is not None:
            print(f"not caught: {name}: {re.sub(chr(10), ' ', verdict)}")  # noqa: T201  the list is what this is for
    caught = sum(verdict is None for verdict in verdicts.values())
    print(f"{caught} of {len(verdicts)} mutants caught")  # noqa: T201  same
    return int(caught < len(verdicts) or not verdicts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn each defence off; its tests must notice.")
    parser.add_argument("--starred", action="store_true", help="only defences of starred cases")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    sys.exit(main(arguments.names, starred=arguments.starred))
