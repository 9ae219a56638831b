"""The copy as a process: `python -m proxy run`, with an environment of its own, and other commands beside it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import proxy
from proxy import runfile
from proxy.errors import BearerProxyError

#: Whence the copies are run: the same source as this process.
ROOT: Final = Path(proxy.__file__).parent.parent
#: How long it may take to start, and how long to end, in seconds.
START_SECONDS: Final = 30.0
END_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.02
#: What of the environment a program needs to run at all; all else may be a secret of the user.
_KEPT: Final = frozenset({"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ"})


class CopyFailed(BearerProxyError):  # noqa: N818  what happened, as in errors.py
    """The copy did not start, or ended by itself."""


@dataclass
class Running:
    """A copy that runs, in a folder with `seen` (what it showed) and `home` (what it keeps)."""

    folder: Path
    config: Path
    environ: Mapping[str, str]
    process: asyncio.subprocess.Process
    found: runfile.Running
    #: Its command line and its run file, as they were.
    cmdline: bytes
    run_file: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self) -> int | None:
        """SIGTERM; its exit status, None where it had to be killed."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.process.wait(), END_SECONDS)
        self.signal(signal.SIGKILL)
        await self.process.wait()
        return None


def environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """The variables of a copy in `folder`: its `own`, and of the user's only how to run programs."""
    home = folder / "home"
    homes = {name: str(home) for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "TMPDIR")}
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return {**kept, **homes, "PYTHONPATH": str(ROOT), **own}


@asynccontextmanager
async def running(
    folder: Path, config: Path, environ: Mapping[str, str], *, development: bool
) -> AsyncIterator[Running]:
    """Start it, and end it on every exit; `development`: with `-X dev`, which shows more. Raises `CopyFailed`."""
    flags = ("-X", "dev") if development else ()
    seen = folder / "seen"
    with (seen / "stdout").open("wb") as stdout, (seen / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *flags, "-m", "proxy", "run", "-c", str(config)),
            cwd=folder / "home",
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    path = Path(runfile.path_for(str(config), environ))
    copy: Running | None = None
    try:
        found = await _found(process, path)
        copy = Running(folder, config, environ, process, found, _cmdline(process.pid), path)
        yield copy
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _found(process: asyncio.subprocess.Process, path: Path) -> runfile.Running:
    """What its run file says, once that is there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                if (found := runfile.read(str(path))) is not None:
                    return found
                await asyncio.sleep(_LOOK_SECONDS)
    raise CopyFailed("the copy does not start: run `bearer-proxy check`, then `bearer-proxy doctor`")


def _cmdline(pid: int) -> bytes:
    """What everybody on the machine can read of it (Linux; elsewhere nothing)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def command(copy: Running, *arguments: str, config: Path | None = None) -> bytes:
    """What another command with the copy's configuration writes to both streams."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *arguments, "-c", str(config or copy.config)),
        cwd=copy.folder / "home",
        env=dict(copy.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _none = await asyncio.wait_for(process.communicate(), START_SECONDS)
    except TimeoutError:
        process.kill()
        said, _none = await process.communicate()
    return said
