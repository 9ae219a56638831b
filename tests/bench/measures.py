"""What is measured, one function each: a fresh process of a proxy goes in, numbers by name come out."""

import functools
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.admin.journal import MOMENT_SECONDS
from tests.bench import inspecting, instructions, loads, proxies, together
from tests.bench.processes import Command, Cores, DidNotWork, Running, pinned
from tests.bench.proxies import Job, Proxy
from tests.bench.upstream import Part, Scheme, Upstream

BUSY_CONNECTIONS: Final = 32
#: Memory counts as settled once it has not grown for that long.
SETTLED_SECONDS: Final = 0.5
UNSETTLED_SECONDS: Final = 10.0
VARIED: Final = Path(__file__).with_name("varied.lua")
SPEED: Final = Path(__file__).with_name("speed.py")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of everything."""

    seconds: int
    rounds: int
    #: Of the long download and upload, in bytes.
    size: int
    streams: int
    #: Requests whose instructions are counted.
    counted: int
    #: What the inspector keeps where that is measured, and for how many seconds its page is scrolled and filtered.
    exchanges: int
    looked_at: int
    #: Seconds until it has written down all that is in its list.
    written: float


FULL: Final = Extent(
    seconds=4,
    rounds=3,
    size=1 << 30,
    streams=1000,
    counted=2000,
    exchanges=5000,
    looked_at=20,
    written=MOMENT_SECONDS + 1,
)
SMOKE: Final = Extent(
    seconds=1, rounds=1, size=16 << 20, streams=50, counted=100, exchanges=500, looked_at=2, written=0
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A proxy that runs, and all that a measurement needs besides."""

    running: Running
    upstream: Upstream
    extent: Extent
    programs: Mapping[str, str]
    cores: Cores
    #: The Python of ours and the folder it is started in, where ours is what runs.
    python: str | None = None
    tree: Path | None = None
    #: Configuration and logs.
    folder: Path | None = None
    #: Sent by the client where there is no proxy to add it.
    fields: tuple[str, ...] = ()


Numbers = Mapping[str, float]


def busy(stage: Stage, script: Path | None = None) -> Numbers:
    """CPU, rate and tail at 32 connections."""

    def run(seconds: int) -> loads.Requests:
        return loads.requests(
            stage.programs["wrk"],
            stage.running.port,
            connections=BUSY_CONNECTIONS,
            seconds=seconds,
            script=script,
            fields=stage.fields,
        )

    run(1)
    before = stage.running.cpu_seconds()
    found = run(stage.extent.seconds)
    spent = stage.running.cpu_seconds() - before
    return {"cpu": spent / found.count * 1e6, "rps": found.count / found.seconds, "p99": found.p99 * 1e6}


def varied(stage: Stage) -> Numbers:
    """The same, each request with another head."""
    found = busy(stage, VARIED)
    return {"varied cpu": found["cpu"], "varied rps": found["rps"]}


def in_turn(of: Sequence[together.Load], stages: Sequence[Stage]) -> Sequence[Numbers]:
    """CPU at several rates, of ours with the inspector and without, a request to each in turn."""
    extent = stages[0].extent
    return together.in_turn([stage.running for stage in stages], of, extent.seconds, extent.written)


def single(stage: Stage) -> Numbers:
    """How long one request takes where nothing else happens."""
    port, seconds = stage.running.port, stage.extent.seconds
    wrk = stage.programs["wrk"]
    return {"p50": loads.requests(wrk, port, connections=1, seconds=seconds, fields=stage.fields).p50 * 1e6}


def download(stage: Stage) -> Numbers:
    """Rate and memory of a long answer."""
    port, size = stage.running.port, stage.extent.size
    _warm(stage)
    before = _before(stage)
    seconds = loads.download(port, size, stage.fields)
    return {"down": size / seconds / 1e6, **_after(stage, "down", before)}


def upload(stage: Stage) -> Numbers:
    """Rate and memory of a long chunked body; raises `DidNotWork` if other bytes arrived than were sent."""
    _warm(stage)
    before = _before(stage)
    seconds, sent = loads.upload(stage.running.port, stage.extent.size, stage.fields)
    numbers = {"up": stage.extent.size / seconds / 1e6, **_after(stage, "up", before)}
    if loads.received(stage.upstream.login_port) != sent:
        raise DidNotWork("the SHA-256 of the upload differs")
    return numbers


def stop(stage: Stage) -> Numbers:
    """Memory while a client that asked for a long answer does not read it."""
    _warm(stage)
    before = _before(stage)
    with loads.stopped_download(stage.running.port, stage.extent.size):
        _settle(stage.running)
        return {"stop memory": _after(stage, "stop", before)["stop memory"]}


def streams(stage: Stage) -> Numbers:
    """Memory of an idle event stream."""
    with loads.event_streams(stage.running.port, 10):
        pass
    before = stage.running.resident()
    with loads.event_streams(stage.running.port, stage.extent.streams):
        _settle(stage.running)
        return {"stream memory": (stage.running.resident() - before) / stage.extent.streams / 1024}


def start(stage: Stage) -> Numbers:
    """From the start of the process until it takes connections; for ours, beside what importing aiohttp takes."""
    numbers = {"start": stage.running.start_seconds * 1e3}
    if stage.python:
        with pinned(stage.cores.proxy):
            began_at = time.perf_counter()
            subprocess.run([stage.python, "-c", "import aiohttp"], check=True)
        numbers["import"] = (time.perf_counter() - began_at) * 1e3
    return numbers


def redaction(stage: Stage) -> Numbers:
    """How fast the redactor is by itself, and its share of the CPU in both loads of small requests, in per cent."""
    if stage.python is None or stage.tree is None or stage.folder is None:
        raise DidNotWork("only ours has a redactor")
    clock = stage.folder / proxies.CLOCK
    numbers = {}
    for name, script in (("redaction", None), ("varied redaction", VARIED)):
        before = stage.running.cpu_seconds(), _seconds(clock)
        loads.requests(
            stage.programs["wrk"],
            stage.running.port,
            connections=BUSY_CONNECTIONS,
            seconds=stage.extent.seconds,
            script=script,
        )
        spent = stage.running.cpu_seconds() - before[0]
        numbers[name] = (_seconds(clock) - before[1]) / spent * 100
    code = SPEED.read_text()
    with pinned(stage.cores.proxy):
        done = subprocess.run(
            [stage.python, "-c", code], cwd=stage.tree, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise DidNotWork(f"the redactor: {(done.stdout + done.stderr)[-300:].strip()}")
    return {**numbers, "redactor": float(done.stdout)}


def counting(stage: Stage) -> Numbers:
    """Thousands of instructions of a request, where heads repeat and where they do not."""
    if stage.folder is None:
        raise DidNotWork("without a proxy nothing is counted")
    port, count = stage.running.port, stage.extent.counted
    found = {}
    for name, message in (("instructions", loads.usual), ("varied instructions", loads.varied)):
        messages = [message(number) for number in range(count)]
        load = functools.partial(loads.one_by_one, port, messages)
        found[name] = instructions.count(stage.running.pid, stage.folder, load) / count / 1e3
    return found


def kept(stage: Stage) -> Numbers:
    """Memory of the exchanges that the inspector keeps, without bodies."""
    return inspecting.memory(inspecting.Filled(stage.running, stage.folder, loads.varied), stage.extent.exchanges)


def kept_bodies(stage: Stage) -> Numbers:
    """The same with bodies, each as long as what is kept of it, or longer."""
    filled = inspecting.Filled(stage.running, stage.folder, inspecting.with_bodies)
    found = inspecting.memory(filled, min(stage.extent.exchanges, inspecting.BODIES_KEPT))
    return {f"{name} bodies": value for name, value in found.items()}


def not_kept(stage: Stage) -> Numbers:
    """What the same load takes where one exchange is kept."""
    return {"not " + name: value for name, value in kept(stage).items()}


def page(stage: Stage) -> Numbers:
    """Frames of the inspector's page, while requests come."""
    filled = inspecting.Filled(stage.running, stage.folder, loads.varied)
    cores = stage.cores.proxy | stage.cores.load
    return inspecting.page(
        filled, stage.programs["chromium"], cores, stage.extent.exchanges, stage.extent.looked_at
    )


def _seconds(clock: Path) -> float:
    """What `watched.py` wrote."""
    return float(struct.unpack("d", clock.read_bytes())[0])


def _warm(stage: Stage) -> None:
    """What a first request costs is not what is measured."""
    for _ in range(20):
        loads.check(stage.running.port, stage.fields)


def _before(stage: Stage) -> tuple[int, float]:
    """Memory and CPU now; the peak begins anew."""
    stage.running.forget_peak()
    return stage.running.resident(), stage.running.cpu_seconds()


def _after(stage: Stage, what: str, before: tuple[int, float]) -> Numbers:
    """How much memory was needed since, at its peak, in MiB, and how much CPU a GiB took, in ms."""
    resident, cpu = before
    gibibytes = stage.extent.size / (1 << 30)
    return {
        f"{what} memory": (stage.running.peak() - resident) / (1 << 20),
        f"{what} cpu": (stage.running.cpu_seconds() - cpu) * 1e3 / gibibytes,
    }


def _settle(running: Running) -> None:
    """Wait until memory grows no more."""
    give_up_at = time.perf_counter() + UNSETTLED_SECONDS
    most, since = 0, time.perf_counter()
    while (now := time.perf_counter()) < give_up_at and now - since < SETTLED_SECONDS:
        if (peak := running.peak()) > most:
            most, since = peak, now
        time.sleep(SETTLED_SECONDS / 10)


@dataclass(frozen=True, slots=True)
class Together:
    """Measures several proxies at the same time."""

    run: Callable[[Sequence[Stage]], Sequence[Numbers]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measurement: against which part of the upstream, and through which schemes."""

    #: Of one proxy after the other, or of all at the same time.
    run: Callable[[Stage], Numbers] | Together
    part: Part
    schemes: tuple[Scheme, ...] = ("plain", "tls")
    #: Is there something to measure where no proxy is?
    direct: bool = True
    #: How ours are started for it, by how they are else, where that is another way: nobody else takes part then.
    commands: Mapping[Callable[[Job], Command] | None, Callable[[Job], Command]] | None = None
    #: A program of `tools` that it needs.
    tool: str | None = None

    def takes(self, proxy: Proxy, scheme: Scheme) -> bool:
        """Is there something to measure of this proxy, in front of such an upstream?"""
        if proxy.command is None:
            return self.direct and scheme == "plain"
        return self.commands is None or proxy.command in self.commands


def _inspected(
    run: Callable[[Stage], Numbers],
    command: Callable[[Job], Command],
    part: Part = "nginx",
    tool: str | None = None,
) -> Measure:
    """Ours with another inspector than the default one."""
    return Measure(run, part, ("plain",), direct=False, commands={proxies.ours: command}, tool=tool)


ALL: Final[Mapping[str, Measure]] = {
    "cpu": Measure(busy, "nginx"),
    "varied": Measure(varied, "nginx", ("plain",), direct=False),
    "turns": Measure(
        Together(functools.partial(in_turn, together.LOADS)),
        "nginx",
        ("plain",),
        direct=False,
        commands={each: each for each in (proxies.ours, proxies.unseen)},
    ),
    "turns-many": Measure(
        Together(functools.partial(in_turn, together.MANY)),
        "nginx",
        ("plain",),
        direct=False,
        commands={proxies.ours: inspecting.keeping(inspecting.MOST), proxies.unseen: proxies.unseen},
    ),
    "p50": Measure(single, "nginx"),
    "down": Measure(download, "nginx"),
    "up": Measure(upload, "sink"),
    "stop": Measure(stop, "nginx", direct=False),
    "sse": Measure(streams, "sink", ("plain",), direct=False),
    "start": Measure(start, "nginx", ("plain",), direct=False),
    "redactor": Measure(redaction, "nginx", ("plain",), direct=False, commands={proxies.ours: proxies.watched}),
    "kept": _inspected(kept, inspecting.keeping(inspecting.MOST)),
    "kept-bodies": _inspected(
        kept_bodies, inspecting.keeping(inspecting.BODIES_KEPT, inspecting.BODY_BYTES), "sink"
    ),
    "kept-one": _inspected(not_kept, inspecting.keeping(1)),
    "page": _inspected(page, inspecting.keeping(inspecting.MOST), tool="chromium"),
    "instructions": Measure(
        counting,
        "nginx",
        ("plain",),
        direct=False,
        commands={proxies.unseen: instructions.counted(proxies.unseen)},
        tool="valgrind",
    ),
}
