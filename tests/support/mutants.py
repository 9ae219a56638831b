"""Each defence turned off in turn: do the tests that carry its number notice?

Usage: `python -m tests.support.mutants [--starred] [NAME ...]`. A mutant is one edit of the source, in a copy of
the checkout, so that commands which a test starts run with it too. It is caught where a test fails that carries one
of its cases; one that is not caught, or whose text is gone from the source, ends the run with 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import yaml

from tests.support.threats import ROOT, carriers, threats

DATA: Final = ROOT / "tests" / "mutants.yaml"
#: Exit statuses of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html
_PASSED, _FAILED, _NONE = 0, 1, 5
#: A mutant that hangs is no caught one: whoever waits for it cannot tell it from a slow machine.
_SECONDS: Final = 300
#: These start programs again and again; most mutants are caught without them.
_LAST: Final = frozenset(
    {"test_browser", "test_cli", "test_clients", "test_crashes", "test_dockerfile", "test_instances"}
)
_LEFT_OUT: Final = shutil.ignore_patterns(
    ".venv", ".git", ".artefacts", ".*_cache", ".hypothesis", "__pycache__", ".coverage*"
)


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file` below proxy/, `put` stands where `find` stood, once."""

    file: str
    find: str
    put: str

    def problem(self) -> str | None:
        """What is wrong with it."""
        count = (ROOT / "proxy" / self.file).read_text("utf-8").count(self.find)
        return None if count == 1 else f"its text stands {count} times in proxy/{self.file}"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defence that is off, by one edit, or by several where it stands twice."""

    name: str
    cases: tuple[int, ...]
    edits: tuple[Edit, ...]

    def problem(self) -> str | None:
        """What is wrong with the edits themselves."""
        return next((problem for edit in self.edits if (problem := edit.problem()) is not None), None)


def mutants() -> list[Mutant]:
    """All that `tests/mutants.yaml` lists."""
    rows: dict[str, dict[str, Any]] = yaml.safe_load(DATA.read_text("utf-8"))
    return [Mutant(name, tuple(row["cases"]), tuple(_edits(row))) for name, row in rows.items()]


def _edits(row: dict[str, Any]) -> Iterator[Edit]:
    for edit in (row, *row.get("and", ())):
        yield Edit(edit["file"], edit["find"], edit["put"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is the mutant caught? `why`: by which test, or why not."""

    caught: bool
    why: str


def _verdict(mutant: Mutant, tree: Path, tests: dict[int, list[str]]) -> Verdict:
    """What becomes of the mutant in `tree`, a copy of the checkout."""
    if (problem := mutant.problem()) is not None:
        return Verdict(caught=False, why=problem)
    stems = {test.partition("::")[0] for case in mutant.cases for test in tests.get(case, [])}
    files = [f"tests/{stem}.py" for stem in sorted(stems, key=lambda stem: (stem in _LAST, stem))]
    if not files:
        return Verdict(caught=False, why="no test carries its number")
    kept = {path: path.read_text("utf-8") for path in {tree / "proxy" / edit.file for edit in mutant.edits}}
    for edit in mutant.edits:
        path = tree / "proxy" / edit.file
        path.write_text(path.read_text("utf-8").replace(edit.find, edit.put), "utf-8")
    try:
        # The slow ones only where none of the others notices.
        verdicts = (_run(mutant.cases, files, tree, which) for which in ("not slow", "slow"))
        return next((each for each in verdicts if each is not None), Verdict(caught=False, why="survives"))
    finally:
        for path, source in kept.items():
            path.write_text(source, "utf-8")


def _run(cases: tuple[int, ...], files: list[str], tree: Path, which: str) -> Verdict | None:
    """What the tests of these cases say; None where all of them pass."""
    try:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"),
                *("-m", which, "--threat", ",".join(map(str, cases)), *files),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(caught=False, why=f"is not through in {_SECONDS} s")
    if run.returncode in (_PASSED, _NONE):
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    if run.returncode == _FAILED and failed is not None:
        return Verdict(caught=True, why=failed[1])
    return Verdict(caught=False, why=f"pytest ended with {run.returncode}: {run.stdout[-500:]}{run.stderr[-500:]}")


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

        def tried(mutant: Mutant) -> Verdict:
            tree = trees.get()
            try:
                verdict = _verdict(mutant, tree, tests)
            finally:
                trees.put(tree)
            said = f"{'caught' if verdict.caught else 'NOT CAUGHT'}: {mutant.name}: {verdict.why}"
            print(said.replace("\n", " "), flush=True)  # noqa: T201  the list is what this is for
            return verdict

        verdicts = list(pool.map(tried, chosen))
    caught = sum(verdict.caught for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} mutants caught")  # noqa: T201  same
    return int(caught < len(verdicts) or not verdicts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn each defence off; its tests must notice.")
    parser.add_argument("--starred", action="store_true", help="only defences of starred cases")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    sys.exit(main(arguments.names, starred=arguments.starred))
