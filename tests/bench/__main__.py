"""`python -m tests.bench`: compare this proxy with others, and print one table. `--help` says what can be chosen."""

import argparse
import datetime
import fcntl
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench import loads, measures, proxies, table, tools
from tests.bench.bench import Bench
from tests.bench.measures import Extent
from tests.bench.processes import Cores
from tests.bench.proxies import Proxy
from tests.bench.tools import Missing, Tool
from tests.bench.upstream import serving

ROOT: Final = Path(__file__).parents[2]
KEPT: Final = ROOT / ".artefacts" / "bench"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Compare this proxy with others.")
    names = [proxy.name for proxy in proxies.ALL]
    parser.add_argument("--smoke", action="store_true", help="one short round: does it work?")
    parser.add_argument("--only", default=list(measures.ALL), type=_list, metavar=",".join(measures.ALL))
    parser.add_argument("--proxies", default=names, type=_list, metavar=",".join(names))
    parser.add_argument("--scheme", choices=("plain", "tls"), help="only this kind of upstream")
    parser.add_argument("--seconds", type=int, help="of each load of small requests")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--size", type=int, metavar="MIB", help="of the long bodies")
    parser.add_argument("--streams", type=int, help="event streams at once")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs ours")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that ours is taken from")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=FOLDER", help="ours, of another checkout"
    )
    options = parser.parse_args(given)
    for chosen, known in ((options.only, list(measures.ALL)), (options.proxies, names)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    return options


def _list(text: str) -> list[str]:
    return text.split(",")


def extent(options: argparse.Namespace, environ: Mapping[str, str]) -> Extent:
    """How much is asked for."""
    chosen = measures.SMOKE if options.smoke or environ.get("BENCH_SMOKE") == "1" else measures.FULL
    return replace(
        chosen,
        seconds=options.seconds or chosen.seconds,
        rounds=options.rounds or chosen.rounds,
        size=options.size << 20 if options.size else chosen.size,
        streams=options.streams or chosen.streams,
    )


def columns(options: argparse.Namespace) -> dict[Proxy, Path]:
    """The proxies that are asked for, each with the checkout that our code is taken from."""
    chosen = {proxy: options.tree.resolve() for proxy in proxies.ALL if proxy.name in options.proxies}
    pairs = (text.partition("=") for text in options.also)
    others = {Proxy(name, name, proxies.ours): Path(folder).resolve() for name, _, folder in pairs}
    first = {proxy: tree for proxy, tree in chosen.items() if proxy.name == "ours"}
    return {**first, **others, **chosen}


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other runs on this machine: two at once would measure each other."""
    with (Path(tempfile.gettempdir()) / "bearer-proxy-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def heading(cores: Cores, found: Mapping[str, Tool], python: str) -> str:
    """When, on what, with which versions."""
    said = subprocess.run([python, "-c", tools.OURS], capture_output=True, text=True, check=True).stdout.strip()
    others = ", ".join(f"{name} {tool.version}" for name, tool in found.items())
    place = (
        "one core shared by everything" if cores.shared else "the proxy on one core, load and upstream on another"
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{today}. {tools.processor()}; {place}.\n{said}; {others}."


def main() -> int:
    """Exit status: 1 if something did not work, else 0, whatever the numbers say."""
    options = arguments()
    loads.many_files()
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = columns(options)
    needed = dict.fromkeys(["wrk", "nginx", *(proxy.tool for proxy in wanted if proxy.tool)])
    looked = {name: tools.find(name, KEPT) for name in needed}
    there = {name: tool for name, tool in looked.items() if isinstance(tool, Tool)}
    missing = {name: tool.reason for name, tool in looked.items() if isinstance(tool, Missing)}
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    if not {"wrk", "nginx"} <= there.keys():
        print("Nothing is measured without wrk and nginx.")
        return 0 if options.smoke else 1
    cores = Cores.split(frozenset(os.sched_getaffinity(0)))
    print(heading(cores, there, options.python), flush=True)
    os.sched_setaffinity(0, cores.load)
    with alone(), tempfile.TemporaryDirectory(prefix="bearer-proxy-bench-") as name:
        folder = Path(name)
        # nginx gives up root for its workers, which read files here.
        folder.chmod(0o755)
        bench = Bench(
            extent=extent(options, os.environ),
            measures=options.only,
            columns={proxy: tree for proxy, tree in wanted.items() if proxy.tool is None or proxy.tool in there},
            programs={name: tool.path for name, tool in there.items()},
            cores=cores,
            python=options.python,
            folder=folder,
            schemes=[options.scheme] if options.scheme else ["plain", "tls"],
        )
        token = secrets.token_urlsafe(32)
        with serving(folder, there["nginx"].path, token, bench.extent.size, cores.load) as upstreams:
            bench.run(upstreams)
    print("\n" + table.table(bench.found, {proxy.name: proxy.title for proxy in bench.columns}))
    if said := table.verdicts(bench.found):
        print("\n" + said)
    for failure in bench.failures:
        print(f"did not work: {failure}")
    raw = {name: {" ".join(key): values for key, values in rows.items()} for name, rows in bench.found.items()}
    (KEPT / "latest.json").write_text(json.dumps(raw, indent=1))
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
