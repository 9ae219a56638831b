"""What of the bench decides without measuring: it reads wrk, compares, and passes verdicts."""

import dataclasses
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme

from proxy.config import Source, load
from proxy.config.model import GuardConfig, LimitsConfig
from proxy.config.routing import PoolConfig
from tests.bench import __main__ as command
from tests.bench import bare, inspecting, loads, measures, proxies, table, together, tools
from tests.bench.processes import Command, Cores, DidNotWork, Running, family, free_port, started
from tests.bench.proxies import Job
from tests.bench.sink import Arguments
from tests.bench.upstream import Scheme, Upstream
from tests.support import compiled

WRK = """Running 3s test @ http://127.0.0.1:8080/small/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.07ms  620.01us  14.33ms   92.10%
    Req/Sec    30.57k     2.32k   34.44k    70.00%
  Latency Distribution
     50%  {p50}
     75%    1.20ms
     90%    1.59ms
     99%  {p99}
  {count} requests in 3.00s, 116.02MB read
{more}Requests/sec:  30401.46
Transfer/sec:     38.66MB
"""
FINE = {"p50": "979.00us", "p99": "3.06ms", "count": "91231", "more": ""}


def found(**numbers: Mapping[str, Sequence[float]]) -> table.Found:
    """Numbers of the plain upstream, by proxy."""
    return {name: {("plain", number): values for number, values in rows.items()} for name, rows in numbers.items()}


def test_what_wrk_says_is_read_in_seconds() -> None:
    """Microseconds, milliseconds and seconds come out as one unit."""
    read = loads.parse(WRK.format(**FINE))
    assert (read.count, read.seconds) == (91231, 3.0)
    assert [read.p50, read.p99] == pytest.approx([979e-6, 3.06e-3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": "  Non-2xx or 3xx responses: 7\n"}, "responses: 7"),
        ({"more": "  Socket errors: connect 0, read 3, write 0, timeout 0\n"}, "read 3"),
        ({"count": "0"}, "did not measure"),
        ({"p99": "nonsense"}, "did not measure"),
    ],
)
def test_a_load_that_went_wrong_is_no_measurement(change: dict[str, str], said: str) -> None:
    """Refused requests are cheap: counted as requests they would flatter."""
    with pytest.raises(DidNotWork, match=said):
        loads.parse(WRK.format(**FINE | change))


def test_the_table_has_medians_and_ratios_to_ours() -> None:
    """A column a proxy, a row a number; what nobody measured is left out, what one did not is a dash."""
    text = table.table(
        found(ours={"cpu": [40, 20, 30], "up": [100]}, nginx={"cpu": [15, 16, 14]}, envoy={}),
        {"ours": "ours", "nginx": "nginx", "envoy": "Envoy"},
    )
    assert text.splitlines() == [
        "| | ours | nginx |",
        "|---|---:|---:|",
        "| CPU µs per request, plain | 30.0 | 15.0 (0.50×) |",
        "| chunked upload MB/s, plain | 100 | – |",
    ]


@pytest.mark.parametrize(
    ("ours", "envoy", "verdict"),
    [
        (30, 50, "| 0.60× | ≤ 0.9× | ≤ 0.6× | ok, aim reached |"),
        (45, 50, "| 0.90× | ≤ 0.9× | ≤ 0.6× | ok |"),
        (46, 50, "| 0.92× | ≤ 0.9× | ≤ 0.6× | MISSED |"),
    ],
)
def test_a_cost_must_be_at_most_a_share_of_the_others(ours: float, envoy: float, verdict: str) -> None:
    """The bound itself is still fine."""
    said = table.verdicts(found(ours={"cpu": [ours]}, envoy={"cpu": [envoy]}))
    assert f"| CPU per request, plain, against Envoy {verdict}" in said.splitlines()


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(1000, "ok, aim reached"), (800, "ok"), (799, "MISSED")],
)
def test_a_rate_must_be_at_least_a_share_of_the_others(ours: float, verdict: str) -> None:
    """The other way round than costs."""
    said = table.verdicts(found(ours={"down": [ours]}, envoy={"down": [1000]}))
    assert said.splitlines()[-1].endswith(f"| {verdict} |")


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(4, "ok, aim reached"), (16, "ok"), (16.5, "MISSED")],
)
def test_memory_is_judged_by_itself(ours: float, verdict: str) -> None:
    """No other proxy is needed for it."""
    said = table.verdicts(found(ours={"stop memory": [ours]}))
    assert (
        said.splitlines()[-1]
        == f"| RSS growth, reader that stops, plain | {ours:.2f} MiB | ≤ 16 MiB | ≤ 4 MiB | {verdict} |"
    )


def test_what_was_not_measured_is_not_judged() -> None:
    """A run of a few measurements claims nothing about the others."""
    assert table.verdicts(found(ours={"cpu": [30]})) == ""
    assert table.verdicts(found(envoy={"cpu": [30]})) == ""


def test_every_verdict_and_row_is_about_something_that_is_measured() -> None:
    """A misspelt number would never be judged."""
    numbers = {row.number for row in table.ROWS}
    names = {proxy.name for proxy in proxies.ALL}
    for must in table.MUSTS:
        assert {must.number, must.other or must.number} <= numbers
        assert must.against is None or must.against in names


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n", "4.1.0"),
        ("envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12"),
        ("Mitmproxy: 11.0.2\nPython:    3.11.7\n", "11.0.2"),
        ("what?\n", "of unknown version"),
    ],
)
def test_versions_are_found_in_what_programs_say(said: str, version: str) -> None:
    """A table without versions cannot be repeated."""
    assert tools.version(said) == version


def test_a_program_is_found_or_missing_with_what_would_help(tmp_path: Path) -> None:
    """What is not there is left out of the table, and one that cannot be run is not there."""
    assert tools.find("wrk", tmp_path, str(tmp_path)) == tools.Missing(
        "not installed (Debian: apt-get install wrk)"
    )
    program = tmp_path / "wrk"
    program.write_text("#!/bin/sh\necho wrk 4.2.0\nexit 1\n")
    program.chmod(0o755)
    assert tools.find("wrk", tmp_path, str(tmp_path)) == tools.Tool(str(program), "4.2.0")
    program.write_bytes(b"\x7fELF")
    found = tools.find("wrk", tmp_path, str(tmp_path))
    assert isinstance(found, tools.Missing)
    assert found.reason.startswith(f"{program} does not run: ")


@pytest.mark.parametrize(
    ("cores", "proxy", "load", "shared"),
    [({0, 1}, {1}, {0}, False), ({2, 3, 5}, {5}, {2}, False), ({0}, {0}, {0}, True)],
)
def test_the_proxy_has_a_core_of_its_own_where_there_are_two(
    cores: set[int],
    proxy: set[int],
    load: set[int],
    shared: bool,  # noqa: FBT001  a column of the table
) -> None:
    """Load and upstream take another one."""
    split = Cores.split(frozenset(cores))
    assert [set(split.proxy), set(split.load), split.shared] == [proxy, load, shared]


def test_the_command_line_chooses() -> None:
    """Part of the measurements, part of the proxies, another extent, another checkout beside ours."""
    options = command.arguments(
        ["--only", "cpu,up", "--proxies", "envoy,ours", "--seconds", "7", "--size", "3", "--also", "before=/tmp"]
    )
    assert options.only == ["cpu", "up"]
    assert [proxy.name for proxy in command.columns(options)] == ["ours", "before", "envoy"]
    assert command.extent(options, smoke=False) == dataclasses.replace(measures.FULL, seconds=7, size=3 << 20)
    assert command.extent(options, smoke=True).rounds == 1


@pytest.mark.parametrize(("also", "said"), [([], "has no hatch_build.py"), (["--pure"], "")])
def test_where_ours_is_not_compiled_it_is_measured_once(
    also: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is, and the reader of the table is told why."""
    options = command.arguments(["--proxies", "ours,ours-pure,nginx", "--tree", str(tmp_path), *also])
    built = command.builds(command.columns(options), options)
    assert {proxy.name: ours.tree for proxy, ours in built.items()} == {"ours": tmp_path, "nginx": tmp_path}
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("off", "verdict"),
    [
        ([99, 99, 100, 101, 100, 100], "1.000× (0.990 to 1.010) | ≤ 1.01× | ≤ 1.01× | ok, aim reached"),
        ([104, 104, 104, 104, 104, 102], "1.040× (1.020 to 1.040) | ≤ 1.01× | ≤ 1.01× | MISSED"),
        ([90, 104, 100, 98, 101, 99], "0.995× (0.900 to 1.040) | ≤ 1.01× | ≤ 1.01× | not told apart: more rounds"),
        (
            [90, 104, 100, 98, 101, 99, 100, 100, 100],
            "1.000× (0.980 to 1.010) | ≤ 1.01× | ≤ 1.01× | ok, aim reached",
        ),
    ],
)
def test_a_per_cent_is_judged_by_what_rounds_differ(off: list[float], verdict: str) -> None:
    """Where the median may as well be on the other side of the bound, nothing is claimed."""
    said = table.verdicts(found(**{"ours-unseen": {"cpu": off}, "ours-bare": {"cpu": [100.0] * len(off)}}))
    assert said.splitlines()[-1] == f"| CPU per request, inspector off, against none, 32 connections | {verdict} |"


def test_a_round_that_is_missing_leaves_no_pairs() -> None:
    """Rounds are compared with those of the same minute."""
    said = table.verdicts(found(**{"ours-unseen": {"cpu": [100, 120]}, "ours-bare": {"cpu": [100]}}))
    assert "| 1.10× |" in said


@pytest.mark.parametrize("text", ["", "self._noted(request)\nexchange, notes = self._noted(request)\n" * 2])
def test_a_source_that_hooks_do_not_fit_is_told(text: str, tmp_path: Path) -> None:
    """With the file and the text, and nothing is half done."""
    tree = bare.copy(command.ROOT, tmp_path / "bare")
    (tree / "proxy" / "relay.py").write_text(text)
    before = (tree / "proxy" / "passage.py").read_text()
    with pytest.raises(bare.DoesNotFit, match=r"proxy/relay.py has this \d times, not once: 'exchange, notes"):
        bare.strip(tree)
    assert (tree / "proxy" / "passage.py").read_text() == before


SEEN = {"frames": [16.0, 17.0, 60.0], "long": 1, "rows": 40, "bottom": 1.0, "shown": 5000}


def test_frames_of_the_page_are_read() -> None:
    """Half of them, nearly all, and the longest."""
    read = inspecting.frames(SEEN, 5000)
    assert dict(read) == {"median": 17.0, "p95": 60.0, "worst": 60.0, "long": 1, "rows": 40}


@pytest.mark.parametrize("change", [{"bottom": 0.5}, {"shown": 4999}])
def test_a_page_that_was_not_shown_to_its_end_is_not_measured(change: dict[str, float]) -> None:
    """A list that is short scrolls well."""
    with pytest.raises(DidNotWork, match="the page showed"):
        inspecting.frames(SEEN | change, 5000)


def test_ours_is_compiled_again_only_where_the_source_has_changed(tmp_path: Path) -> None:
    """A minute of compiling is not for every run; but what is measured is what is there."""
    tree, python = tmp_path / "tree", compiled.Python.ask(sys.executable)
    (tree / "proxy" / "http1").mkdir(parents=True)
    changed = {}
    for name in ("README.md", "pyproject.toml", "hatch_build.py", "proxy/relay.py", "proxy/http1/section.py"):
        before = compiled.state(tree, python)
        (tree / name).write_text("a")
        changed[name] = compiled.state(tree, python) != before
    assert changed.pop("README.md") is False
    assert all(changed.values())
    (tmp_path / "state").write_text(compiled.state(tree, python))
    assert compiled.build(tree, tmp_path) == str(tmp_path / "venv" / "bin" / "python")
    assert compiled.state(tree, dataclasses.replace(python, version="4.0")) != (tmp_path / "state").read_text()


@pytest.mark.parametrize(
    ("change", "said"), [({"compiler": "no-such-cc"}, "apt-get install gcc"), ({"headers": "/"}, "python3-dev")]
)
def test_what_lacks_for_compiling_is_told(change: dict[str, str], said: str) -> None:
    """With the package that has it."""
    python = compiled.Python(sys.executable, "3", "/", "sh", "/")
    assert said in (dataclasses.replace(python, **change).lacks() or "")


def test_an_unknown_name_on_the_command_line_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are."""
    with pytest.raises(SystemExit):
        command.arguments(["--proxies", "ours,enovy"])
    assert "unknown: enovy; there is ours, ours-unseen, ours-bare, ours-pure, nginx" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["plain", "tls"])
@pytest.mark.parametrize("proxy", [proxy for proxy in proxies.ALL if proxy.command], ids=lambda proxy: proxy.name)
def test_every_proxy_is_told_the_same(proxy: proxies.Proxy, scheme: Scheme, tmp_path: Path) -> None:
    """Port and upstream reach its configuration or its arguments."""
    assert proxy.command
    upstream = Upstream(scheme, 4711, tmp_path / "ca.pem", "the-token", 4712)
    done = proxy.command(Job(tmp_path, 4713, upstream, "program", tmp_path, 32))
    told = " ".join(done.arguments) + "".join(path.read_text() for path in sorted(tmp_path.glob("*.*")))
    assert {"4711", "4713"} <= set(re.findall(r"\d{4}", told))
    is_ours = proxy.command in {proxies.ours, proxies.unseen}
    assert ("ca.pem" in told) is (scheme == "tls" or is_ours or proxy.name == "naive" or "mitm" in proxy.name)
    # Ours logs in for it.
    assert ("the-token" in told) is not is_ours


@pytest.mark.parametrize(("connections", "changed"), [(32, False), (1000, True)])
def test_ours_runs_at_its_defaults(
    connections: int,
    changed: bool,  # noqa: FBT001  a column of the table
    tmp_path: Path,
) -> None:
    """Only a thousand event streams are given more room than the defaults."""
    (tmp_path / "ca.pem").write_text("")
    upstream = Upstream("plain", 4711, tmp_path / "ca.pem", "the-token", 4712)
    proxies.ours(Job(tmp_path, 4713, upstream, "python", tmp_path, connections))
    path = tmp_path / "ours.yaml"
    config = load(Source(path.read_text(), path.name, path, str(path)), environ={})
    assert (config.guard, config.log.access, config.log.format) == (GuardConfig(), True, "json")
    assert (config.limits != LimitsConfig(), config.routes[0].pool != PoolConfig()) == (changed, changed)
    assert min(config.limits.connections, config.routes[0].pool.size) > connections


linux = pytest.mark.skipif(sys.platform != "linux", reason="this machine is no Linux, and the bench reads /proc")


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Running]:
    """The part of the upstream that takes uploads, as a program."""
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    arguments = Arguments(free_port(), free_port(), str(tmp_path / "server.pem"), token="the-token", most=1 << 20)
    program = [sys.executable, str(proxies.HERE / "sink.py"), json.dumps(dataclasses.asdict(arguments))]
    cores = frozenset(os.sched_getaffinity(0))
    with started(Command(program, tmp_path), arguments.plain, cores, tmp_path / "output.log") as running:
        yield running


FIELDS = ("Authorization: Bearer the-token",)


@linux
def test_an_upload_is_hashed_without_its_chunk_heads(sink: Running) -> None:
    """What was sent and what arrived are compared by content, however proxies cut it."""
    _, sent = loads.upload(sink.port, 1 << 20, FIELDS)
    assert loads.received(sink.port) == sent
    with socket.create_connection(("127.0.0.1", sink.port)) as client:
        client.sendall(
            b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        client.recv(1024)
    assert loads.received(sink.port) == hashlib.sha256(b"abcde").hexdigest()


@linux
@pytest.mark.parametrize(
    "ask",
    [
        loads.check,
        lambda port: loads.upload(port, 1 << 20),
        lambda port: loads.event_streams(port, 1),
    ],
    ids=["request", "upload", "stream"],
)
def test_a_proxy_that_adds_no_credential_is_not_measured(ask: Callable[[int], object], sink: Running) -> None:
    """The upstream refuses what comes without it, and a refused load is an error."""
    with pytest.raises(DidNotWork, match="401"):
        ask(sink.port)


@linux
def test_what_is_measured_together_gets_the_same_requests_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time another one is the first, and each has numbers of its own."""
    asked: list[tuple[int, bytes]] = []

    class Noting(loads.Client):
        def __init__(self, port: int) -> None:
            self.port = port

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, message: bytes) -> None:
            asked.append((self.port, message.split()[1]))

    monkeypatch.setattr(loads, "Client", Noting)
    load = together.Load("cpu", "quickly", 1000, loads.varied)
    mine, other = (Running(os.getpid(), port, 0.0) for port in (1, 2))
    together.send([mine, other], load, 3)
    targets = [f"/small/{number}".encode() for number in range(3)]
    assert [target for _port, target in asked] == [each for each in targets for _ in range(2)]
    assert [port for port, _target in asked] == [1, 2, 2, 1, 1, 2]
    [numbers, others] = together.in_turn([mine, other], [load], 1, 0)
    assert numbers.keys() == others.keys() == {"cpu"}
    assert numbers["cpu"] > 0


@linux
def test_a_running_program_is_measured(sink: Running) -> None:
    """Its memory, its peak and its CPU time come from the kernel; a peak is never below what is resident."""
    before, ran = sink.cpu_seconds(), sink.ran_seconds()
    sink.forget_peak()
    loads.upload(sink.port, 1 << 20, FIELDS)
    assert sink.cpu_seconds() >= before > 0
    assert sink.ran_seconds() > ran > 0
    assert sink.peak() >= sink.resident() > 1 << 20


@linux
def test_a_family_is_a_process_with_all_its_descendants(tmp_path: Path) -> None:
    """A proxy that works in a child process would look free otherwise."""
    child = "print(flush=True); input()"
    nested = f"import subprocess, sys; print(flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.stdout.readline()
        pids = family(process.pid)
        process.stdin.write(b"\n")
    assert pids[0] == process.pid
    assert len(pids) == 2


@linux
def test_a_program_that_does_not_listen_is_told_with_what_it_said(tmp_path: Path) -> None:
    """The reader of the table wants to know why a column is empty."""
    program = Command([sys.executable, "-c", "raise SystemExit('no such option')"], tmp_path)
    cores = frozenset(os.sched_getaffinity(0))
    with (
        pytest.raises(DidNotWork, match="no such option"),
        started(program, free_port(), cores, tmp_path / "output.log"),
    ):
        pass


@pytest.mark.slow
def test_the_source_without_hooks_has_types_that_a_compiler_takes(tmp_path: Path) -> None:
    """Else it is measured as it is, beside builds that are compiled, or not at all."""
    tree = bare.copy(command.ROOT, tmp_path / "bare")
    asked = [sys.executable, "-m", "mypy", "--config-file", str(command.ROOT / "pyproject.toml"), "proxy"]
    done = subprocess.run(asked, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@linux
def test_the_source_without_hooks_has_no_call_of_them_and_serves(sink: Running, tmp_path: Path) -> None:
    """Each replacement fits once; what is left answers with the credential, as the bench starts it."""
    tree = bare.copy(command.ROOT, tmp_path / "bare")
    data_path = "".join((tree / "proxy" / f"{name}.py").read_text() for name in ("relay", "passage", "delivery"))
    assert not re.search(r"\bnotes\.\w+\(|\bnoted\.\w|\bwatchers?\.\w|\bwatchers=", data_path)
    upstream = Upstream("plain", sink.port, tmp_path / "server.pem", "the-token", sink.port)
    job = Job(tmp_path, free_port(), upstream, sys.executable, tree, 32)
    cores = frozenset(os.sched_getaffinity(0))
    with started(proxies.unseen(job), job.port, cores, tmp_path / "ours.log"):
        loads.check(job.port)
        loads.one_by_one(job.port, map(inspecting.with_bodies, range(3)))
    assert "Traceback" not in (tmp_path / "ours.log").read_text()
