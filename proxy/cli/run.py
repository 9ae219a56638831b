"""The command that serves."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

import click

from proxy import __version__, hangup, logs, runfile
from proxy.cli.common import Given, ends_with_status, load_closed, masking, state_folder, takes_source
from proxy.cli.reload import Reloading, warn
from proxy.config import Config, Source
from proxy.lines import Lines
from proxy.manager import Manager, passed_sockets
from proxy.process import is_root, raise_descriptors, settle
from proxy.server import Instance, World

if sys.platform == "win32":
    LOOP_FACTORY = None
else:
    import uvloop

    LOOP_FACTORY = uvloop.new_event_loop

log: Final = logging.getLogger("proxy")

#: A second signal means now; this long the sockets and the token requests get to close.
_ABORT_SECONDS: Final = 0.5
#: So long what still runs in threads may take, when everything has ended.
_THREADS_SECONDS: Final = 0.5


@click.command()
@takes_source
@ends_with_status
def run(given: Given) -> int:
    """Serve until SIGTERM or Ctrl-C; a second one ends at once. SIGHUP, or a changed file: read it again.

    \b
    Examples: bearer-proxy run -c config.yaml
              bearer-proxy run --upstream https://api.example.com --token-env API_TOKEN
    """  # noqa: D301  a mark of click: keep these lines as they are
    redactor = masking()
    lines = Lines(sys.stderr)
    logs.set_up(redactor, lines=lines)
    manager, passed = Manager.of(os.environ), passed_sockets(os.environ)
    source = given.source()
    loaded = load_closed(source)
    raise_descriptors()
    logs.set_up(redactor, level=loaded.log.level, style=loaded.log.format, lines=lines)
    world = World(redactor, state_folder(os.environ), lines=lines, passed=passed)
    return run_to_end(_serve(loaded, world, source, manager))


def run_to_end(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` in a loop of its own; gives its status. No thread that hangs holds up the end of the process.

    A read from a file system that does not answer would do that for ever: nothing can break it off.
    """
    with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
        status = runner.run(main)
        last = threading.Timer(_THREADS_SECONDS, os._exit, (status,))
        last.daemon = True
        last.start()
    last.cancel()
    return status


class _Signals:
    """What the process is asked to do. Only a second signal is impatient: one behind `POST /quit` is the first."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.at_once = asyncio.Event()
        self._came = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        #: Is the configuration to be read again?
        self.reload = asyncio.Event()
        early = signal.getsignal(signal.SIGHUP)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        if hangup.came(early):
            self.reload.set()

    def _end(self) -> None:
        if self._came:
            self.at_once.set()
        self._came = True
        self.leave.set()


async def _serve(config: Config, world: World, source: Source, manager: Manager) -> int:
    """Start, serve until told to end, end; gives the status."""
    signals = _Signals()
    warn(config)
    instance = await Instance.start(config, world)
    instance.leave = signals.leave
    settle(config.admin.inspector.exchanges)
    if is_root():
        log.warning("running_as_root", extra={"fields": {"detail": "nothing here needs it: use a user of its own"}})
    path = runfile.path_for(source.identity, os.environ)
    reloading = Reloading(
        *(instance, source, config, world),
        environ=os.environ,
        asked=signals.reload,
        applied=lambda: _write_run_file(path, instance),
        manager=manager,
    )
    following = asyncio.create_task(reloading.run())
    watching = asyncio.create_task(manager.watch())
    try:
        _write_run_file(path, instance)
        _print_urls(instance)
        manager.ready(f"Serving on {', '.join(instance.urls)}")
        await signals.leave.wait()
        manager.stopping()
        following.cancel()
        await end(instance, signals.at_once)
    finally:
        following.cancel()
        watching.cancel()
        hangup.ignore()
        runfile.remove(path, os.getpid())
    return 0


def _write_run_file(path: str, instance: Instance) -> None:
    running = runfile.Running(os.getpid(), instance.urls, instance.admin_url, instance.admin_key.reveal())
    try:
        runfile.write(path, running)
    except runfile.RunFileError as error:
        log.warning("run_file_failed", extra={"fields": {"detail": str(error)}})


def _print_urls(instance: Instance) -> None:
    """For a person who looks on; scripts read the `listening` lines of the log."""
    if not sys.stdout.isatty():
        return
    click.echo(f"bearer-proxy {__version__} listens on {', '.join(instance.urls)}")
    if instance.admin_url is not None:
        click.echo(f"health and metrics: {instance.admin_url}/readyz {instance.admin_url}/metrics")
        if instance.has_inspector:
            # Its key goes to the terminal alone, never to a log.
            click.echo(f"inspector: {instance.admin_url}/?key={instance.admin_key.reveal()}")


async def end(instance: Instance, at_once: asyncio.Event) -> None:
    """Drain, unless a second signal says that there is no time for it."""
    drain = asyncio.create_task(instance.drain())
    hurry = asyncio.create_task(at_once.wait())
    await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if drain.done():
        await drain
        return
    drain.cancel()
    closing = asyncio.create_task(instance.close())
    await asyncio.wait({drain, closing}, timeout=_ABORT_SECONDS)
    log.warning("stopped", extra={"fields": {"detail": "at once, by a second signal"}})
