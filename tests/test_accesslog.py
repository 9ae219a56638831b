"""The line of an exchange says what happened, in JSON or text, and keeps nothing that is secret."""

import io
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.accesslog import (
    KEPT_DURATIONS,
    KEPT_LENGTH,
    KEPT_TEXTS,
    NAMES_LIMIT,
    UNROUTED_A_SECOND,
    AccessLog,
    Exchange,
    Observers,
    Spared,
)
from proxy.demo.teletracker import TeleTracker
from proxy.lines import Lines
from proxy.redact import MASK, Redactor, Secret, printable
from tests.support.harness import HeldClock, StartProxy
from tests.support.vendors import Vendor

NOW: Final = 1_800_000_000.25


class Log:
    """An access log and what it wrote."""

    def __init__(self, *, json_lines: bool = True) -> None:
        self.stream = io.StringIO()
        self.redactor = Redactor()
        self.write = AccessLog(Lines(self.stream), self.redactor, json_lines=json_lines, wall=lambda: NOW)

    def line(self, exchange: Exchange) -> str:
        """The line of one more exchange."""
        before = len(self.stream.getvalue())
        self.write(exchange)
        written = self.stream.getvalue()[before:]
        assert written.count("\n") == 1
        return written

    def kept(self) -> str:
        """Every text that is remembered for the next line."""
        write = self.write
        return "".join(
            f"{key!r}{value}"
            for shown in (write._words, write._paths, write._names)
            for key, value in shown.items()
        )


def exchange(**values: Any) -> Exchange:
    """A finished exchange."""
    made = Exchange(values.pop("method", "GET"), values.pop("client", "127.0.0.1"), 0.0)
    for name, value in {"route": "api", "path": b"/a", "status": 200, **values}.items():
        setattr(made, name, value)
    return made


FULL: Final = {
    "path": b'/a"b\\c\xff',
    "query": b"page=1&q=secret-value&page=2",
    "status": 502,
    "error": "upstream_tls",
    "bytes_in": 3,
    "bytes_out": 1024,
    "seconds": 1.23456,
    "upstream_seconds": 0.5,
    "token_wait": 0.25,
    "credential": "crm",
    "generation": 7,
    "retried": True,
}


def test_a_json_line_has_every_field() -> None:
    """Those that INTERFACE names, in one order, with null for what there is not."""
    log = Log()
    full, sparse = exchange(**FULL), exchange(path=b"", route="", status=0, error="client_closed")
    assert json.loads(log.line(full)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "event": "request",
        "request_id": full.request_id,
        "client": "127.0.0.1",
        "method": "GET",
        "route": "api",
        "path": r'/a"b\\c\xff',
        "query_keys": ["page", "q", "page"],
        "status": 502,
        "error": "upstream_tls",
        "bytes_in": 3,
        "bytes_out": 1024,
        "duration_ms": 1234.6,
        "upstream_ms": 500.0,
        "token_wait_ms": 250.0,
        "credential": "crm",
        "generation": 7,
        "retried": True,
    }
    found = json.loads(log.line(sparse))
    assert (found["level"], found["path"], found["query_keys"], found["retried"]) == ("info", "", [], False)
    assert (found["route"], found["credential"], found["error"]) == (None, None, "client_closed")


def test_a_text_line_has_what_there_is_to_say() -> None:
    """And leaves out what there is not."""
    log = Log(json_lines=False)
    full, sparse = exchange(**FULL), exchange(path=b"", route="")
    assert log.line(full) == (
        r'2027-01-15T08:00:00.250Z WARNING request GET /a"b\\c\xff?page&q&page 502 1234.6ms error=upstream_tls '
        "route=api upstream_ms=500.0 credential=crm generation=7 token_wait_ms=250.0 retried in=3 out=1024 "
        f"client=127.0.0.1 request_id={full.request_id}\n"
    )
    assert log.line(sparse) == (
        "2027-01-15T08:00:00.250Z INFO request GET - 200 0.0ms route=- upstream_ms=0.0 in=0 out=0 "
        f"client=127.0.0.1 request_id={sparse.request_id}\n"
    )


@pytest.mark.threat(79)
@given(
    st.binary(max_size=60),
    st.lists(st.binary(max_size=12).filter(lambda name: not {61, 38} & set(name)), min_size=1),
)
def test_any_path_and_any_names_stand_in_the_line_as_they_came(path: bytes, names: list[bytes]) -> None:
    """In printable ASCII and as JSON wants it; the first time and, from what is kept, the second."""
    log = Log()
    query = b"&".join(name + b"=value" for name in names)
    for _ in range(2):
        found = json.loads(log.line(exchange(path=path, query=query)))
        assert found["path"] == printable(log.redactor.text(path.decode("latin-1")))
        assert found["query_keys"] == [printable(log.redactor.text(name.decode("latin-1"))) for name in names[:64]]


@given(st.floats(0, 4000))
def test_durations_are_milliseconds_with_one_digit(seconds: float) -> None:
    """In all three places, to the nearest."""
    found = json.loads(Log().line(exchange(seconds=seconds, upstream_seconds=seconds, token_wait=seconds)))
    for name in ("duration_ms", "upstream_ms", "token_wait_ms"):
        assert abs(found[name] - seconds * 1e3) <= 0.05 + 1e-6


@pytest.mark.threat(78)
def test_078_values_of_parameters_are_in_no_line() -> None:
    """Not those behind a second `=` either, and not more than 64 names."""
    query = b"a=secret-value&b=c=secret-value&" + b"&".join(b"n%d" % count for count in range(100))
    for json_lines in (True, False):
        log = Log(json_lines=json_lines)
        line = log.line(exchange(query=query))
        assert "secret-value" not in line
        assert ("n61" in line, "n62" in line) == (True, False)
        assert "secret-value" not in log.kept()


@pytest.mark.threat(78)
def test_078_what_stands_behind_a_fragment_sign_is_no_path() -> None:
    """Such a target is refused, and what it asked for is logged: `#access_token=` is how browsers carry tokens."""
    asked = exchange()
    for target in (b"/path?name=value#access_token=secret-value", b"/path?name=value"):
        asked.ask(target)
        assert (asked.path, asked.query) == (b"/path", b"name=value")
    asked.ask(b"/path#secret-value?secret-value")
    assert (asked.path, asked.query) == (b"/path", b"")


SECRET: Final = "a-registered-value"


@pytest.mark.threat(76)
@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"path": f"/a/{SECRET}/b".encode()}, f"/a/{MASK}/b"),
        ({"query": f"q={SECRET}&{SECRET}=1&page=2".encode()}, MASK),
        ({"method": SECRET}, MASK),
    ],
)
def test_076_a_secret_is_masked_and_not_kept(values: dict[str, Any], shown: str, *, json_lines: bool) -> None:
    """Wherever a client may have put it, each time."""
    log = Log(json_lines=json_lines)
    log.redactor.register(Secret(SECRET))
    for _ in range(2):
        line = log.line(exchange(**values))
        assert SECRET not in line
        assert shown in line
    assert SECRET not in log.kept()


def test_076_what_becomes_a_secret_later_is_masked_from_then_on() -> None:
    """A path that was clean yesterday may hold the token of today; what was kept of it is gone as well."""
    log = Log()
    one = exchange(path=f"/{SECRET}".encode(), query=SECRET.encode())
    assert SECRET in log.line(one)
    log.redactor.register_generation("crm", [Secret(SECRET)], 0.0)
    assert SECRET not in log.line(one)
    assert SECRET not in log.kept()
    for count in range(1, 18):
        log.redactor.register_generation("crm", [Secret(f"generation-{count:04}")], float(count))
    assert SECRET in log.line(one)


@pytest.mark.threat(78)
def test_names_of_parameters_are_masked_each_by_itself() -> None:
    """What looks like a credential only beside its neighbour is none."""
    log = Log()
    found = json.loads(log.line(exchange(query=b"bearer &abcdefgh12345=1&ghp_0123456789abcdef")))
    assert found["query_keys"] == ["bearer ", "abcdefgh12345", MASK]


def test_085_what_is_kept_is_bounded() -> None:
    """Ten thousand clients, paths and names of parameters, and a path that nobody will ask for twice."""
    log = Log()
    for count in range(3 * KEPT_TEXTS):
        log.write(exchange(path=b"/%d" % count, query=b"q%d" % count, client=f"10.0.{count}", seconds=count / 1e3))
    log.write(exchange(path=b"/" * (KEPT_LENGTH + 1)))
    write = log.write
    for shown in (write._words, write._paths, write._names):
        assert 0 < len(shown) <= KEPT_TEXTS
    assert max(map(len, write._paths)) <= KEPT_LENGTH
    for count in range(3 * KEPT_DURATIONS):
        log.write(exchange(seconds=count / 1e3))
    assert 0 < len(write._tenths) <= KEPT_DURATIONS


@pytest.mark.threat(118)
def test_118_a_path_is_cut_where_it_tells_nothing_more() -> None:
    """Two thousand characters will do."""
    found = json.loads(Log().line(exchange(path=b"/" + b"a" * 5000)))
    assert found["path"] == "/" + "a" * 2047


def test_every_request_has_an_id_of_its_own() -> None:
    """One word, the same each time it is asked for."""
    made = [exchange() for _ in range(100)]
    ids = [each.request_id for each in made]
    assert len(set(ids)) == 100
    assert ids == [each.request_id for each in made]
    assert all(each.isalnum() for each in ids)


async def test_waiting_for_a_token_is_counted_whatever_comes_of_it(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """That for the first token, that for a newer one behind a refusal, and one in vain."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        statuses = [(await proxy.ask("GET", "/calls")).status for _ in range(2)]
        tracker.double.expire()
        statuses += [(await proxy.ask("GET", "/calls")).status for _ in range(2)]
        clock.move(100_000)
        tracker.double.set(token_endpoint="down")
        statuses += [(await proxy.ask("GET", "/calls")).status for _ in range(2)]
        lines = list(proxy.lines())
    assert statuses == [200, 200, 200, 200, 503, 503]
    assert [line["retried"] for line in lines] == [False, False, True, False, False, False]
    assert [lines[number]["token_wait_ms"] > 0 for number in (0, 2, 4)] == [True] * 3


@pytest.mark.threat(85)
@pytest.mark.parametrize("method", ["-", "GET"])
def test_085_what_reached_no_route_is_told_ten_times_a_second_and_then_counted(method: str) -> None:
    """What is malformed, and what was refused; others are all told. The count comes first in a later second."""
    told: list[object] = []
    clock = [5.0]
    spared = Spared(lambda each: told.append(each.route), told.append, lambda: clock[0], later=lambda _call: None)
    refused, served = exchange(method=method, route=""), exchange()
    for _ in range(25):
        spared(refused)
        spared(served)
    assert (told.count(""), told.count("api"), len(told)) == (10, 25, 35)
    clock[0] = 6.0
    spared(served)
    spared(refused)
    assert told[35:] == [15, "api", ""]


@pytest.mark.threat(85)
def test_085_what_was_not_told_is_counted_a_second_later_and_at_the_end() -> None:
    """Also where nothing follows it."""
    told: list[int] = []
    calls: list[Callable[[], None]] = []
    spared = Spared(lambda _each: None, told.append, lambda: 5.0, most=1, later=calls.append)
    for _ in range(4):
        spared(exchange(route=""))
    [call] = calls
    call()
    call()
    assert told == [3]
    spared(exchange(route=""))
    Observers(spared).close()
    assert told == [3, 1]


@pytest.mark.threat(81, 85)
async def test_085_refused_requests_are_counted_by_the_metrics_and_not_all_logged(proxying: StartProxy) -> None:
    """Of the guard's refusals the log has ten a second and a number, the metrics all."""
    config = {"upstream": "http://127.0.0.1:9"}
    async with proxying(config, clock=HeldClock(), unrouted_a_second=UNROUTED_A_SECOND) as proxy:
        for _ in range(12):
            assert (await proxy.ask("GET", "/", headers={"Host": "evil.example"})).code == "host_not_allowed"
        assert len(proxy.lines()) == UNROUTED_A_SECOND
        metrics = (await proxy.admin("GET", "/metrics")).body.decode()
        assert 'guard_denials_total{code="host_not_allowed"} 12' in metrics


@pytest.mark.threat(85)
@pytest.mark.parametrize("json_lines", [True, False])
def test_085_long_names_of_parameters_make_no_long_line(*, json_lines: bool) -> None:
    """All of them together have 1 KiB, however few there are; quotes and other bytes take more in the line."""
    log = Log(json_lines=json_lines)
    query = b"&".join(b"k%d" % number + b"A" * 470 + b"=1" for number in range(64))
    assert len(log.line(exchange(query=query))) < 1024 + 600
    assert len(log.line(exchange(query=b"A" * 32000))) < 1024 + 600
    assert log.line(exchange(query=b"A" * 32000)).count("A") == NAMES_LIMIT
