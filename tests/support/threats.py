"""The numbered threats: what `tests/threats.yaml` says of each, and which tests carry its number.

Usage: `python -m tests.support.threats` writes the tables of docs/threat-model.md anew.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from tests.support import corpus

ROOT: Final = Path(__file__).parents[2]
DATA: Final = ROOT / "tests" / "threats.yaml"
PAGE: Final = ROOT / "docs" / "threat-model.md"
#: A room's table stands between these two lines.
_TABLE: Final = re.compile(r"(<!-- room: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD: Final = (
    "| case | STRIDE | what may go wrong | what is done | tests | what remains |\n|---|---|---|---|---|---|\n"
)
#: More tests than this of one case are counted, not listed.
_LISTED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Threat:
    """One case: `stride` is some of the letters STRIDE, `untested` says why no test carries the number.

    `unmutated` says why no mutant of `tests/mutants.yaml` turns its defence off, where a test does carry it.
    """

    number: int
    room: str
    stride: str
    threat: str
    defence: str
    star: bool = False
    remains: str = ""
    untested: str = ""
    unmutated: str = ""


def threats() -> dict[int, Threat]:
    """All cases, by number."""
    rooms: dict[str, dict[int, dict[str, object]]] = yaml.safe_load(DATA.read_text("utf-8"))
    found = [Threat(number=n, room=room, **row) for room, rows in rooms.items() for n, row in rows.items()]  # type: ignore[arg-type]  # a row that does not fit raises
    by_number = {each.number: each for each in sorted(found, key=lambda each: each.number)}
    if len(by_number) != len(found):
        raise ValueError(f"{DATA.name}: a number stands there twice")
    return by_number


@cache
def carriers() -> dict[int, list[str]]:
    """The tests that carry each number, as `file::name`, in their order; a class or a module carries for its tests.

    Of the wire corpus, whose groups are tests, the file and the groups.
    """
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for name, numbers in _marked(ast.parse(path.read_text("utf-8"))):
            for number in numbers:
                found.setdefault(number, []).append(f"{path.stem}::{name}")
    groups: tuple[corpus.Group[corpus.RequestCase] | corpus.Group[corpus.AnswerCase], ...]
    groups = (*corpus.requests(), *corpus.answers())
    for group in groups:
        for number in group.numbers:
            found.setdefault(number, []).append(f"test_wire_corpus::{group.name}")
    return found


def _marked(module: ast.Module) -> Iterator[tuple[str, list[int]]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(each) == "pytestmark" for each in node.targets):
            marks = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            yield "*", _numbers(marks)
        elif isinstance(node, ast.ClassDef):
            yield node.name, _numbers(node.decorator_list)
            yield from ((f"{node.name}::{name}", numbers) for name, numbers in _functions(node.body))
    yield from _functions(module.body)


def _functions(body: list[ast.stmt]) -> Iterator[tuple[str, list[int]]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, _numbers(node.decorator_list)


def _numbers(marks: list[ast.expr]) -> list[int]:
    calls = [
        mark for mark in marks if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.threat"
    ]
    return [ast.literal_eval(argument) for call in calls for argument in call.args]


def page(text: str) -> str:
    """`text` of the page with the table of each room made anew."""
    known, tests = threats(), carriers()

    def table(match: re.Match[str]) -> str:
        rows = "".join(_row(each, tests.get(each.number, [])) for each in known.values() if each.room == match[2])
        return f"{match[1]}{_HEAD}{rows}{match[3]}"

    return _TABLE.sub(table, text)


def _row(threat: Threat, tests: list[str]) -> str:
    number = f"**{threat.number}** ★" if threat.star else str(threat.number)
    shown = [f"`{test}`" for test in tests[:_LISTED]]
    if len(tests) > _LISTED:
        shown.append(f"and {len(tests) - _LISTED} more")
    cells = (
        number,
        threat.stride,
        threat.threat,
        threat.defence,
        "<br>".join(shown) or threat.untested,
        threat.remains,
    )
    return f"| {' | '.join(cells)} |\n"


def rooms(text: str) -> set[str]:
    """The rooms that have a table in the page."""
    return {match[2] for match in _TABLE.finditer(text)}


def untold(known: Mapping[int, Threat], tests: Mapping[int, list[str]]) -> list[int]:
    """Cases without a test and without a reason, and those with both."""
    return [number for number, each in known.items() if bool(tests.get(number)) is bool(each.untested)]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    sys.exit(bool(untold(threats(), carriers())))
