"""Every numbered threat has a test that carries its number, or a reason; the page says what the markers say."""

import ast
import re

from tests.support.mutants import mutants
from tests.support.threats import PAGE, ROOT, carriers, page, rooms, threats, untold


def test_every_case_has_a_test_or_a_reason_why_not() -> None:
    """And none has both: what is tested needs no excuse."""
    assert untold(threats(), carriers()) == []


def test_no_test_carries_a_number_that_is_no_case() -> None:
    """A slip of the pen would else count for nothing."""
    assert set(carriers()) <= set(threats())


def test_the_numbers_have_no_gap() -> None:
    """138 cases, 25 of them starred."""
    known = threats()
    assert (list(known), sum(each.star for each in known.values())) == (list(range(1, 139)), 25)


def test_a_starred_case_has_a_test() -> None:
    """No excuse is taken for these."""
    assert [number for number, each in threats().items() if each.star and not carriers().get(number)] == []


def test_the_page_is_made_of_the_markers() -> None:
    """`python -m tests.support.threats` mends it."""
    text = PAGE.read_text("utf-8")
    assert page(text) == text


def test_every_room_has_its_table() -> None:
    """In the page."""
    assert rooms(PAGE.read_text("utf-8")) == {each.room for each in threats().values()}


def test_letters_are_those_of_stride() -> None:
    """Spoofing, Tampering, Repudiation, Information disclosure, Denial of service, Elevation of privilege."""
    assert {letter for each in threats().values() for letter in each.stride} <= set("STRIDE")


def test_every_mutant_is_an_edit_that_fits_the_source() -> None:
    """`make mutants` takes long; that a defence was rewritten is seen at once."""
    assert {each.name: problem for each in mutants() if (problem := each.problem()) is not None} == {}


def test_every_mutant_is_about_cases_that_tests_carry() -> None:
    """Else nothing could catch it."""
    tested = set(carriers())
    assert {each.name for each in mutants() if not set(each.cases) & tested} == set()


def test_the_test_that_a_mutant_names_carries_one_of_its_cases() -> None:
    """It is asked first; another one may catch the mutant as well."""
    tested = carriers()
    named = {each.name: each for each in mutants() if each.by}
    assert {
        name for name, each in named.items() if not any(each.by in tested[case] for case in each.cases)
    } == set()


def test_each_case_has_a_mutant_or_a_reason_why_not() -> None:
    """And none has both; for a starred one no reason is taken."""
    turned_off = {case for each in mutants() for case in each.cases}
    excused = {number for number, each in threats().items() if each.untested or each.unmutated}
    assert turned_off | excused == set(threats())
    assert turned_off & excused == set()
    assert {number for number in excused if threats()[number].star} == set()


def test_every_promise_of_security_names_tests_that_are_there() -> None:
    """And each of its rows names one."""
    tests = {
        f"{path.stem}::{node.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    text = (ROOT / "SECURITY.md").read_text("utf-8").partition("| held by |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(test_\w+::\w+)`", line) for line in text.splitlines()[2:]]
    assert all(rows)
    assert len(rows) > 15
    assert {each for row in rows for each in row} - tests == set()
