"""`python -m tests.bench`: compare this proxy with others and print one table; `--help` says what can be chosen."""

import argparse
import datetime as dt
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench import bare, loads, measures, proxies, table, tools
from tests.bench.bench import Bench, Ours
from tests.bench.measures import Extent
from tests.bench.processes import Cores, DidNotWork, busy_seconds, own_seconds
from tests.bench.proxies import Proxy
from tests.bench.tools import Missing, Tool
from tests.bench.upstream import serving
from tests.support.compiled import CannotBuild, build

ROOT: Final = Path(__file__).parents[2]
#: Programs that were installed, and the numbers of the last run.
KEPT: Final = ROOT / ".artefacts" / "bench"
#: Compiled builds, one a column; that of ours is the one that `make test-compiled` tests.
BUILDS: Final = ROOT / ".artefacts" / "compiled"
#: The column of ours as it is in the source.
PURE: Final = "ours-pure"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ends the process if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Compare this proxy with others.")
    names = [proxy.name for proxy in proxies.ALL]
    kinds = list(measures.ALL)
    parser.add_argument("--smoke", action="store_true", help="one short round: does it work?")
    parser.add_argument("--only", default=kinds, type=_list, metavar="LIST", help=f"of {','.join(kinds)}")
    parser.add_argument("--proxies", default=names, type=_list, metavar="LIST", help=f"of {','.join(names)}")
    parser.add_argument("--scheme", choices=("plain", "tls"), help="only this kind of upstream")
    parser.add_argument("--seconds", type=int, help="of each load of small requests")
    parser.add_argument("--rounds", type=int, help="medians are over so many")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the long bodies")
    parser.add_argument("--streams", type=int, help="event streams at once")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs ours")
    parser.add_argument(
        "--tree", type=Path, default=ROOT, metavar="FOLDER", help="the checkout that ours is taken from"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a further column: ours of another checkout",
    )
    parser.add_argument("--pure", action="store_true", help="compile nothing, for a quick run")
    options = parser.parse_args(given)
    for chosen, known in ((options.only, kinds), (options.proxies, names)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    return options


def _list(text: str) -> list[str]:
    return text.split(",")


def extent(options: argparse.Namespace, *, smoke: bool) -> Extent:
    """How much is asked for."""
    chosen = measures.SMOKE if smoke else measures.FULL
    return replace(
        chosen,
        seconds=options.seconds or chosen.seconds,
        rounds=options.rounds or chosen.rounds,
        size=options.size << 20 if options.size else chosen.size,
        streams=options.streams or chosen.streams,
    )


def columns(options: argparse.Namespace) -> dict[Proxy, Path]:
    """The proxies that are asked for, ours first, each with the checkout that our code is taken from."""
    chosen = {proxy: options.tree.resolve() for proxy in proxies.ALL if proxy.name in options.proxies}
    ours = {proxy: tree for proxy, tree in chosen.items() if proxy.name == "ours"}
    pairs = (text.partition("=") for text in options.also)
    others = {Proxy(name, name, proxies.ours): Path(folder).resolve() for name, _, folder in pairs}
    return {**ours, **others, **chosen}


def builds(wanted: Mapping[Proxy, Path], options: argparse.Namespace) -> dict[Proxy, Ours]:
    """Each column with what runs it if it is ours: compiled, where that is wanted and can be done.

    Where ours is not, a column of its own for what is not compiled would be the same again.
    """
    found = {proxy: Ours(options.python, tree) for proxy, tree in trees(wanted).items()}
    is_same = False
    for proxy, tree in [(proxy, ours.tree) for proxy, ours in found.items()]:
        if proxy.command not in {proxies.ours, proxies.unseen} or proxy.name == PURE:
            continue
        folder = BUILDS / ("ours" if proxy.name == "ours-unseen" else proxy.name)
        try:
            if not options.pure:
                found[proxy] = Ours(build(tree, folder, options.python), folder)
        except CannotBuild as error:
            print(f"{proxy.title} is not compiled: {error}")
            if proxy.name == proxies.BARE:
                # Beside others that are it would say nothing.
                del found[proxy]
                continue
        is_same |= proxy.name == "ours" and found[proxy].tree == tree
    return {proxy: ours for proxy, ours in found.items() if not (is_same and proxy.name == PURE)}


def trees(wanted: Mapping[Proxy, Path]) -> dict[Proxy, Path]:
    """The same; where ours is to be without its hooks, with a copy that has none."""
    found = dict(wanted)
    for proxy, tree in wanted.items():
        if proxy.name == proxies.BARE:
            try:
                found[proxy] = bare.copy(tree, KEPT / "bare")
            except (bare.DoesNotFit, OSError) as error:
                print(f"missing: {proxy.title}: {error}")
                del found[proxy]
    return found


def heading(cores: Cores, found: Mapping[str, Tool], ours: Ours) -> str:
    """When, on what, with which versions."""
    asked = [ours.python, "-c", tools.OURS]
    said = subprocess.run(asked, cwd=ours.tree, capture_output=True, text=True, check=True).stdout.strip()
    others = ", ".join(f"{name} {tool.version}" for name, tool in found.items())
    place = "one core shared by everything" if cores.shared else "the proxy on one, load and upstream on another"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return f"{today}; {tools.processor()}: {place}.\n{said}, {others}."


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other runs on this machine, which would measure each other; say at the end what else ran."""
    with (Path(tempfile.gettempdir()) / "bearer-proxy-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began_at, busy, own = time.monotonic(), busy_seconds(), own_seconds()
        yield
        foreign = (busy_seconds() - busy) - (own_seconds() - own)
        seconds = time.monotonic() - began_at
        share = max(0.0, foreign / seconds) * 100
        print(f"It took {seconds / 60:.1f} minutes; other programs used {share:.0f} % of a core meanwhile.")


def look(wanted: Mapping[Proxy, Path], only: Iterable[str]) -> tuple[dict[str, Tool], dict[str, str]]:
    """The programs that are there, and why the others are not."""
    needed = [*(proxy.tool for proxy in wanted), *(measures.ALL[name].tool for name in only)]
    names = dict.fromkeys(["wrk", "nginx", *filter(None, needed)])
    looked = {name: tools.find(name, KEPT) for name in names}
    there = {name: tool for name, tool in looked.items() if isinstance(tool, Tool)}
    return there, {name: tool.reason for name, tool in looked.items() if isinstance(tool, Missing)}


def report(bench: Bench, *, judge: bool) -> None:
    """Print what was found, judged if that is asked for, and keep the numbers of each round."""
    print("\n" + table.table(bench.found, {proxy.name: proxy.title for proxy in bench.columns}))
    if judge and (said := table.verdicts(bench.found)):
        print("\n" + said)
    for failure in bench.failures:
        print(f"did not work: {failure}")
    raw = {name: {" ".join(key): values for key, values in rows.items()} for name, rows in bench.found.items()}
    (KEPT / "latest.json").write_text(json.dumps(raw, indent=1))


def main() -> int:
    """Exit status: 1 if something did not work, else 0, whatever the numbers say."""
    options = arguments()
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    smoke = options.smoke or os.environ.get("BENCH_SMOKE") == "1"
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = columns(options)
    there, missing = look(wanted, options.only)
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    if not {"wrk", "nginx"} <= there.keys():
        print("Nothing is measured without wrk and nginx.")
        return 0 if smoke else 1
    cores = Cores.split(frozenset(os.sched_getaffinity(0)))
    built = builds(
        {proxy: tree for proxy, tree in wanted.items() if proxy.tool is None or proxy.tool in there}, options
    )
    mine = [ours for proxy, ours in built.items() if proxy.command in {proxies.ours, proxies.unseen}]
    print(heading(cores, there, mine[0] if mine else Ours(options.python, options.tree)), flush=True)
    os.sched_setaffinity(0, cores.load)
    loads.many_files()
    with tempfile.TemporaryDirectory(prefix="bearer-proxy-bench-") as folder:
        # nginx gives up root for its workers, which read files here.
        Path(folder).chmod(0o755)
        bench = Bench(
            extent=extent(options, smoke=smoke),
            measures=options.only,
            columns=built,
            programs={name: tool.path for name, tool in there.items()},
            cores=cores,
            folder=Path(folder),
            schemes=[options.scheme] if options.scheme else ["plain", "tls"],
        )
        token, nginx = secrets.token_urlsafe(32), there["nginx"].path
        try:
            with alone(), serving(Path(folder), nginx, token, bench.extent.size, cores.load) as upstreams:
                bench.run(upstreams)
        except DidNotWork as error:
            bench.failures.append(f"upstream: {error}")
    # A second of a load shows that it works, and nothing else.
    report(bench, judge=not smoke)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
