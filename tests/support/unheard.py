"""The pytest plugin that fails a test in which an exception was lost, or a task was left behind (threat 120).

Law: warnings are errors already (pyproject.toml); of tasks and futures that nobody asks, asyncio only logs.
"""

import logging
from collections.abc import Generator
from typing import Final

import pytest

#: What asyncio says when such a thing is collected.
_SIGNS: Final = ("exception was never retrieved", "was destroyed but it is pending")
_HEARD = pytest.StashKey["_Heard"]()


class _Heard(logging.Handler):
    """What the logger `asyncio` said of lost exceptions, and not yet held against a test."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if any(sign in record.getMessage() for sign in _SIGNS):
            self.said.append(self.format(record))


def pytest_configure(config: pytest.Config) -> None:
    """Listen: at the logger itself, whatever tests do to the root."""
    heard = config.stash[_HEARD] = _Heard()
    logging.getLogger("asyncio").addHandler(heard)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Listen no more."""
    logging.getLogger("asyncio").removeHandler(config.stash[_HEARD])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After the last fixture is gone; what is collected later is held against the test that runs then."""
    report = yield
    heard = item.config.stash[_HEARD]
    if report.when == "teardown" and heard.said:
        said, heard.said = "\n".join(heard.said), []
        if report.failed:
            report.sections.append(("Lost exceptions", said))
        else:
            report.outcome = "failed"
            report.longrepr = f"An exception was lost:\n{said}"
    return report
