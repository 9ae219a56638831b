"""The pytest plugin that spares tests the measuring of coverage: it takes as long again as what it measures.

Law: what is not measured counts as not covered. So a test may do without only where others run the same lines: the
second event loop, the same conversation cut in another way, a property beside the examples of a table.
"""

import sys
from collections.abc import Generator

import pytest
from coverage import Coverage

UNMEASURED = "unmeasured"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{UNMEASURED}: runs lines that other tests have covered")


def may_do_without(item: pytest.Item) -> bool:
    """Those that are marked, and properties."""
    test = getattr(item, "function", None)
    return item.get_closest_marker(UNMEASURED) is not None or getattr(test, "is_hypothesis_test", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Stand still during such a test, its fixtures included."""
    if Coverage.current() is None or not may_do_without(item):
        return (yield)
    measuring = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(measuring)
