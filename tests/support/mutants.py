"""Each defence turned off in turn: do the tests that carry its number notice?

Usage: `python -m tests.support.mutants [--starred] [NAME ...]`. A mutant is one edit of the source, in a copy of
the checkout, so that commands which a test starts run with it too. It is caught where a test fails that carries one
of its cases; one that is not caught, or whose text is gone from the source, ends the run with 1.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from tests.support.threats import ROOT, carriers, threats

DATA: Final = ROOT / "tests" / "mutants.yaml"
#: Exit statuses of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html
_PASSED, _FAILED, _BROKEN, _NONE = 0, 1, 3, 5
#: A mutant that hangs is no caught one: whoever waits for it cannot tell it from a slow machine.
_SECONDS: Final = 300
#: These start programs again and again; most mutants are caught without them.
_LAST: Final = frozenset(
    {"test_browser", "test_cli", "test_clients", "test_crashes", "test_dockerfile", "test_instances"}
)
#: What the tests import; anything that is not here is imported for each mutant.
_IMPORTED: Final = (
    *("pytest", "_pytest.pytester", "pytest_asyncio", "xdist", "hypothesis.stateful", "hypothesis.extra.array_api"),
    *(
        "aiohttp",
        "aiohttp.web",
        "pydantic",
        "cryptography.x509",
        "uvloop",
        "click",
        "redis.asyncio",
        "unittest.mock",
    ),
)
#: What pytest says of that.
_KNOWN: Final = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
#: What is compiled already comes along: a copy has the times of what it is a copy of, and a mutant has its own.
_LEFT_OUT: Final = shutil.ignore_patterns(".venv", ".git", ".artefacts", ".*_cache", ".hypothesis", ".coverage*")


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
    """A defence that is off, by one edit, or by several where it stands twice.

    `by`: the test that is asked first, as `file::name`; it caught the mutant once. Empty: none is.
    """

    name: str
    cases: tuple[int, ...]
    edits: tuple[Edit, ...]
    by: str = ""

    def problem(self) -> str | None:
        """What is wrong with the edits themselves."""
        return next((problem for edit in self.edits if (problem := edit.problem()) is not None), None)


def mutants() -> list[Mutant]:
    """All that `tests/mutants.yaml` lists."""
    rows: dict[str, dict[str, Any]] = yaml.safe_load(DATA.read_text("utf-8"))
    return [Mutant(name, tuple(row["cases"]), tuple(_edits(row)), row.get("by", "")) for name, row in rows.items()]


def _edits(row: dict[str, Any]) -> Iterator[Edit]:
    for edit in (row, *row.get("and", ())):
        yield Edit(edit["file"], edit["find"], edit["put"])


@dataclass(frozen=True, slots=True)
class Attempt:
    """One mutant under way: the files of its tests, and the copy of the checkout that it is in."""

    mutant: Mutant
    files: tuple[str, ...]
    tree: Path

    @property
    def output(self) -> Path:
        """What pytest printed."""
        return self.tree.with_suffix(".txt")

    def start(self) -> int:
        """The process that runs the tests: forked, since to import what they use takes longer than they do."""
        for edit in self.mutant.edits:
            path = self.tree / "proxy" / edit.file
            path.write_text(path.read_text("utf-8").replace(edit.find, edit.put), "utf-8")
        return os.fork() or self._run()

    def _run(self) -> NoReturn:
        os.setsid()
        signal.alarm(_SECONDS)
        status = _BROKEN
        try:
            with self.output.open("wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            status = self._tested()
        except BaseException:  # noqa: BLE001  whatever it is, it is told
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _tested(self) -> int:
        import pytest

        os.chdir(self.tree)
        os.environ |= {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:] = [str(self.tree), *(each for each in sys.path if Path(each) != ROOT)]
        for name in [each for each in sys.modules if each.partition(".")[0] in {"proxy", "tests"}]:
            del sys.modules[name]
        cases = ",".join(map(str, self.mutant.cases))
        common = ("-qx", "--no-header", "-p", "no:cacheprovider", "-W", _KNOWN)
        file, _, test = self.mutant.by.partition("::")
        # The slow ones only where none of the others notices.
        attempts = [("", [f"tests/{file}.py::{test}"])] if test else []
        attempts += [(which, [*self.files]) for which in ("not slow", "slow")]
        for which, asked in attempts:
            status = int(pytest.main([*common, "-m", which, "--threat", cases, *asked]))
            sys.stdout.flush()
            if status not in (_PASSED, _NONE):
                return status
        return _PASSED

    def end(self, status: int) -> str | None:
        """Why the mutant is not caught, if so. What it changed is mended; nothing that it started goes on."""
        for edit in self.mutant.edits:
            shutil.copy2(ROOT / "proxy" / edit.file, self.tree / "proxy" / edit.file)
        if os.WIFSIGNALED(status):
            return f"is not through in {_SECONDS} s, or died"
        ended = os.WEXITSTATUS(status)
        if ended == _FAILED and self.caught_by is not None:
            return None
        said = self.output.read_text("utf-8", "replace")[-500:]
        return "survives" if ended == _PASSED else f"pytest ended with {ended}: {said}"

    @property
    def caught_by(self) -> str | None:
        """The test that noticed."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.output.read_text("utf-8", "replace"), re.MULTILINE)
        return None if found is None else found[1]


def _files(mutant: Mutant, tests: dict[int, list[str]]) -> tuple[str, ...]:
    """Where the tests of its cases are."""
    stems = {test.partition("::")[0] for case in mutant.cases for test in tests.get(case, [])}
    return tuple(f"tests/{stem}.py" for stem in sorted(stems, key=lambda stem: (stem in _LAST, stem)))


def _attempted(chosen: Sequence[Mutant], trees: list[Path]) -> Iterator[tuple[Mutant, str | None, str]]:
    """Each mutant, why it is not caught, and by what it is; as many at once as there are trees."""
    tests, left = carriers(), list(reversed(chosen))
    running: dict[int, Attempt] = {}
    while left or running:
        while left and trees:
            mutant = left.pop()
            files = _files(mutant, tests)
            if (problem := mutant.problem() or (None if files else "no test carries its number")) is not None:
                yield mutant, problem, ""
                continue
            attempt = Attempt(mutant, files, trees.pop())
            running[attempt.start()] = attempt
        if running:
            number, status = os.wait()
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
            attempt = running.pop(number)
            yield attempt.mutant, attempt.end(status), attempt.caught_by or ""
            trees.append(attempt.tree)


def main(names: Iterable[str], *, starred: bool) -> int:
    """Try the mutants called `names` (none: all), of starred cases alone where `starred`."""
    for each in _IMPORTED:
        __import__(each)
    wanted, known = set(names), threats()
    chosen = [
        each
        for each in mutants()
        if (not wanted or each.name in wanted) and (not starred or any(known[case].star for case in each.cases))
    ]
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        trees = [
            Path(shutil.copytree(ROOT, Path(folder, str(number)), ignore=_LEFT_OUT))
            for number in range(os.cpu_count() or 1)
        ]
        for mutant, problem, test in _attempted(chosen, trees):
            caught += problem is None
            said = f"caught: {mutant.name}: {test}" if problem is None else f"NOT CAUGHT: {mutant.name}: {problem}"
            print(said.replace("\n", " "), flush=True)  # noqa: T201  the list is what this is for
    print(f"{caught} of {len(chosen)} mutants caught")  # noqa: T201  same
    return int(caught < len(chosen) or not chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn each defence off; its tests must notice.")
    parser.add_argument("--starred", action="store_true", help="only defences of starred cases")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    sys.exit(main(arguments.names, starred=arguments.starred))
