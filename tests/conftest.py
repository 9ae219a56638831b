"""What all tests share: canaries that must not leak, and the event loop of production."""

import asyncio
import gc
import os
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings

from tests.support.longer import TIMES

# A command under coverage starts in twice the time, and there are hundreds of them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    os.environ.pop("COVERAGE_PROCESS_START", None)

pytest_plugins = [
    f"tests.support.{name}" for name in ("canary_plugin", "unheard", "harness", "measuring", "vendors", "sharing")
]

# A busy machine is no defect: how long an example takes is not what a property is about.
settings.register_profile("quick", deadline=None, max_examples=40, derandomize=True)
#: What `make test-compiled` asks for: the same examples each time in CI, and others each night.
settings.register_profile("thorough", deadline=None, max_examples=100 * TIMES, derandomize=TIMES == 1)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--threat 1,2` runs only tests that carry one of these numbers."""
    parser.addoption("--threat", help="run only tests of these cases of tests/threats.yaml, separated by commas")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What `--threat` leaves out is deselected."""
    wanted = {int(number) for number in (config.getoption("--threat") or "").split(",") if number}
    if wanted:
        items[:] = [item for item in items if any(wanted & set(mark.args) for mark in item.iter_markers("threat"))]
    # A long one that begins last is waited for alone; xdist gives out two at a time.
    longest = sorted((item for item in items if _seconds(item)), key=_seconds, reverse=True)
    others = [item for item in items if not _seconds(item)]
    first = [item for pair in zip(longest, others, strict=False) for item in pair]
    items[:] = [*first, *longest[len(others) :], *others[len(longest) :]]


def _seconds(item: pytest.Item) -> float:
    """About how long it takes, where `slow(seconds=...)` says so."""
    return max((float(mark.kwargs.get("seconds", 0)) for mark in item.iter_markers("slow")), default=0.0)


def pytest_collection_finish() -> None:
    """Ten thousand tests are a lot to look through each time that garbage is collected."""
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001  the hook's contract
    item: pytest.Item,  # noqa: ARG001  same
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on uvloop, as the proxy does."""
    return {"uvloop": uvloop.new_event_loop}
