"""The pytest plugin that searches everything a test made the product show, for every secret minted so far.

Law: what counts is what a user could see. That is file descriptors 1 and 2 (where the product's own handlers
write, after redaction) and what a test adds to `artefacts`; raw log records, which no handler of the product has
formatted yet, do not count, and neither do requests recorded by the vendors' doubles, which must hold the secrets.
"""

from collections.abc import Generator, Iterator

import pytest

from tests.support.leaks import Artefact, Artefacts, Canaries, Hit, search

_CANARIES = pytest.StashKey[Canaries]()
_ARTEFACTS = pytest.StashKey[Artefacts]()


def pytest_configure(config: pytest.Config) -> None:
    """One set of canaries a session: a secret of one test must not show in a later one either."""
    config.addinivalue_line("markers", "leaks_on_purpose: shows a canary; it is a failure if none is found")
    config.stash[_CANARIES] = Canaries()


@pytest.fixture(scope="session")
def canaries(pytestconfig: pytest.Config) -> Canaries:
    """Mints the secrets that the tests give to the product."""
    return pytestconfig.stash[_CANARIES]


@pytest.fixture
def artefacts(request: pytest.FixtureRequest) -> Artefacts:
    """What is searched at the end of this test, besides its standard output and error."""
    node: pytest.Item = request.node
    return node.stash[_ARTEFACTS]


@pytest.fixture
def capfd(
    capfd: pytest.CaptureFixture[str], artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    """The `capfd` of pytest; what a test reads from it is searched too."""
    return _searched(capfd, artefacts, monkeypatch)


@pytest.fixture
def capsys(
    capsys: pytest.CaptureFixture[str], artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    """The `capsys` of pytest; what a test reads from it is searched too."""
    return _searched(capsys, artefacts, monkeypatch)


def _searched(
    capture: pytest.CaptureFixture[str], artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    read = capture.readouterr

    def readouterr() -> object:
        outcome = read()
        artefacts.add("stdout", outcome.out)
        artefacts.add("stderr", outcome.err)
        return outcome

    monkeypatch.setattr(capture, "readouterr", readouterr)
    return capture


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A fresh collection for each test, before its first fixture."""
    item.stash[_ARTEFACTS] = Artefacts()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After the last fixture is gone, search; a hit fails the test, or the lack of one where it is expected."""
    report = yield
    if report.when == "teardown":
        collected = [*item.stash[_ARTEFACTS].collect(), *_captured(report)]
        hits = search(collected, item.config.stash[_CANARIES])
        expected = item.get_closest_marker("leaks_on_purpose") is not None
        if bool(hits) is not expected:
            _fail(report, _verdict(hits))
    return report


def _captured(report: pytest.TestReport) -> Iterator[Artefact]:
    """Standard output and error of all phases; "Captured log" sections hold raw records and are left out."""
    for title, text in report.sections:
        if title.startswith(("Captured stdout", "Captured stderr")):
            yield Artefact(title.removeprefix("Captured "), text)


def _verdict(hits: list[Hit]) -> str:
    if not hits:
        return "This test leaks on purpose (leaks_on_purpose), and no canary was found."
    return "Canaries came out:\n" + "\n".join(f"  {hit}" for hit in hits)


def _fail(report: pytest.TestReport, verdict: str) -> None:
    if report.failed:
        report.sections.append(("Canaries", verdict))
        return
    report.outcome = "failed"
    report.longrepr = verdict
