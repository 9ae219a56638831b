"""What the plugin for coverage leaves out, and that it measures again behind that."""

import sys
from types import SimpleNamespace

import pytest
from coverage import Coverage
from hypothesis import given
from hypothesis import strategies as st

from tests.support import measuring


@pytest.mark.unmeasured
def test_a_test_that_is_marked_is_not_measured() -> None:
    """Nothing looks on."""
    assert Coverage.current() is None or sys.gettrace() is None


@given(st.just("anything"))
def test_a_property_is_not_measured(example: str) -> None:
    """Nothing looks on."""
    assert Coverage.current() is None or sys.gettrace() is None, example


def test_what_comes_behind_one_is_measured_again(request: pytest.FixtureRequest) -> None:
    """As it was before, also where the test broke off."""
    before = sys.gettrace()
    request.node.add_marker(measuring.UNMEASURED)
    assert measuring.may_do_without(request.node)
    for _ in range(2):
        running = measuring.pytest_runtest_protocol(request.node)
        next(running)
        meanwhile = sys.gettrace()
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt)
        assert sys.gettrace() is before
        assert meanwhile is (before if Coverage.current() is None else None)


def test_others_are_measured() -> None:
    """Without a word about it."""
    plain = SimpleNamespace(get_closest_marker=lambda _name: None, function=test_others_are_measured)
    assert not measuring.may_do_without(plain)  # type: ignore[arg-type]  # as much of an item as is asked for
