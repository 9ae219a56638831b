"""The comparison with others claims nothing of ours that no test shows."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
#: Number, feature, ours, ten others, what shows it.
CELLS: Final = 14
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "comparison.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d+ \| ", line)
]
SOURCES: Final = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def test_the_rows_are_whole() -> None:
    """All of them, in their order, each with what was found out of everybody."""
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert {len(row) for row in ROWS} == {CELLS}
    assert {cell for row in ROWS for cell in row[3:13]} <= {"Y", "Ym", "Y?", "P", "Pm", "N", "Nm", "N?", "?", "–"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_claimed_is_shown_by_a_test_that_exists(row: list[str]) -> None:
    """A claim without a test is none; a test that was renamed is found."""
    claim, shown = row[2], re.findall(r"`(test_\w+)`", row[13])
    assert claim in {"Y", "P", "N", ""}
    assert bool(shown) is (claim in {"Y", "P"})
    assert [name for name in shown if f"def {name}(" not in SOURCES] == []
