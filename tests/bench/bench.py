"""One run of the bench: rounds over measurements over proxies, a fresh process each time, numbers collected.

Rounds are interleaved, all proxies once and then all again, so that what else the machine does meets all of them.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.bench import loads, measures
from tests.bench.measures import Extent, Measure, Numbers, Stage, Together
from tests.bench.processes import Cores, DidNotWork, Running, free_port, started
from tests.bench.proxies import Job, Proxy, ours
from tests.bench.upstream import Scheme, Upstreams

#: Without a proxy there is no process whose memory and CPU would mean anything.
WITHOUT_PROCESS: Final = frozenset({"rps", "varied rps", "p50", "p99", "down", "up"})


@dataclass(frozen=True, slots=True)
class Ours:
    """A Python that runs our code, and the folder to start it in."""

    python: str
    tree: Path

    def copied(self, folder: Path) -> "Ours":
        """The same in another place: of two processes of one file each finds in the caches what the other had read.

        What is not compiled stays where it is.
        """
        try:
            python = Path(self.python).relative_to(self.tree)
        except ValueError:
            return self
        shutil.copytree(self.tree, folder, symlinks=True)
        return Ours(str(folder / python), folder)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is compared, with what, where; and what was found."""

    extent: Extent
    measures: Sequence[str]
    #: Each with what would run it if it is ours.
    columns: Mapping[Proxy, Ours]
    #: Paths by name of the tool.
    programs: Mapping[str, str]
    cores: Cores
    folder: Path
    schemes: Sequence[Scheme]
    #: By name of the proxy, then by scheme and name of the number: what each round gave.
    found: dict[str, dict[tuple[Scheme, str], list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, upstreams: Upstreams) -> None:
        """All rounds; what does not work is noted, and does not end the run."""
        for turn in range(self.extent.rounds):
            for name in self.measures:
                measure = measures.ALL[name]
                for scheme in measure.schemes:
                    if scheme in self.schemes:
                        self._all(name, scheme, upstreams, turn)

    def _all(self, name: str, scheme: Scheme, upstreams: Upstreams, turn: int) -> None:
        """One measurement of every proxy that can take part in it."""
        measure = measures.ALL[name]
        if measure.tool is not None and measure.tool not in self.programs:
            return
        # There and back: whoever is always the next one meets what the one before has left.
        all_there = list(self.columns)[:: -1 if turn % 2 else 1]
        proxies = [proxy for proxy in all_there if name not in proxy.lacks and measure.takes(proxy, scheme)]
        for group in [proxies] if isinstance(measure.run, Together) else [[proxy] for proxy in proxies]:
            what = f"{name}, {scheme}, {' and '.join(proxy.name for proxy in group)}, round {turn + 1}"
            try:
                with ExitStack() as stack:
                    stages = [stack.enter_context(self._stage(measure, scheme, each, upstreams)) for each in group]
                    run = measure.run
                    found = run.run(stages) if isinstance(run, Together) else [run(stage) for stage in stages]
            except (DidNotWork, OSError) as error:
                self.failures.append(f"{what}: {error}")
                sys.stderr.write(f"{self.failures[-1]}\n")
                continue
            for proxy, numbers in zip(group, found, strict=True):
                self._note(name, scheme, proxy, turn, numbers)

    def _note(self, name: str, scheme: Scheme, proxy: Proxy, turn: int, numbers: Numbers) -> None:
        said = ", ".join(f"{key} {value:.1f}" for key, value in numbers.items())
        sys.stderr.write(f"{name}, {scheme}, {proxy.name}, round {turn + 1}: {said}\n")
        mine = self.found.setdefault(proxy.name, {})
        for key, value in numbers.items():
            if proxy.command or key in WITHOUT_PROCESS:
                mine.setdefault((scheme, key), []).append(value)

    @contextmanager
    def _stage(self, measure: Measure, scheme: Scheme, proxy: Proxy, upstreams: Upstreams) -> Iterator[Stage]:
        """A fresh process of a proxy that has shown that it adds the credential."""
        upstream = upstreams.of(measure.part, scheme)
        nothing = Running(os.getpid(), upstream.port, 0.0)
        stage = Stage(nothing, upstream, self.extent, self.programs, self.cores)
        if proxy.command is None:
            yield replace(stage, fields=(f"Authorization: Bearer {upstream.token}",))
            return
        folder = Path(tempfile.mkdtemp(prefix=f"{proxy.name}-", dir=self.folder))
        mine = self.columns[proxy]
        if isinstance(measure.run, Together):
            mine = mine.copied(folder / "build")
        many = measure.run is measures.streams
        job = Job(
            folder=folder,
            port=free_port(),
            upstream=upstream,
            program=self.programs[proxy.tool] if proxy.tool else mine.python,
            tree=mine.tree,
            connections=self.extent.streams if many else measures.BUSY_CONNECTIONS,
        )
        command = proxy.command if measure.commands is None else measure.commands[proxy.command]
        with started(command(job), job.port, self.cores.proxy, folder / "output.log") as running:
            loads.check(job.port)
            is_ours = proxy.command is ours
            yield replace(
                stage,
                running=running,
                python=mine.python if is_ours else None,
                tree=mine.tree if is_ours else None,
                folder=folder,
            )
        shutil.rmtree(folder)
