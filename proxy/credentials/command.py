"""Obtains a token by running a program: `kubectl`'s plugins, `gcloud`, `az`, `gh`, credential helpers.

Law: no shell, a time limit, and what the program says on its error output is never logged: it may hold secrets.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from proxy.clock import Clock
from proxy.credentials.grant import AnewGrant
from proxy.errors import CredentialUnavailable
from proxy.grants.command import OUTPUT_LIMIT, BadOutput, Form, read
from proxy.grants.request import Granted
from proxy.redact import Secret

#: Seconds that a program may take: some of them ask a server of their own.
TIMEOUT: Final = 30.0
#: Seconds for what a program has printed to arrive once it has ended.
OUTPUT_SECONDS: Final = 0.5
#: Seconds to wait for one that was killed; it takes longer only if it is no longer ours to kill.
END_SECONDS: Final = 1.0


class CommandGrant(AnewGrant):
    """Runs `command`, program first: `stdin` on its input, `environ()` over the proxy's own (None: without it)."""

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        form: Form,
        stdin: str,
        environ: Callable[[], Mapping[str, str | None]],
        timeout: float,
        clock: Clock,
        register: Callable[[Iterable[Secret]], None],
    ) -> None:
        self._name = name
        self._command = command
        self._form = form
        self._stdin = stdin.encode()
        self._environ = environ
        self._timeout = timeout
        self._clock = clock
        self._register = register

    async def obtain(
        self, _refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """Run it once. Raises `CredentialUnavailable`."""
        now = self._clock.wall()
        output = await self._run()
        try:
            granted = read(output, self._form, now_wall=now)
        except BadOutput as error:
            raise self._failed(str(error)) from None
        self._register([granted.token])
        return granted

    async def _run(self) -> bytes:
        process = await self._started()
        output = bytearray()
        talking = asyncio.create_task(self._talk(process, output))
        try:
            async with asyncio.timeout(self._timeout):
                status = await _status(process, talking)
        except TimeoutError:
            raise self._failed(f"it did not end within {self._timeout:g} seconds") from None
        finally:
            talking.cancel()
            await _end(process)
            await asyncio.gather(talking, return_exceptions=True)
        if status != 0:
            raise self._failed(f"it ended with status {status}; run it by hand to see why")
        return bytes(output)

    async def _started(self) -> asyncio.subprocess.Process:
        environ = dict(self._environ())
        # What is lent is seen here first; uvloop would cut it there.
        if any("\0" in name + (value or "") or "=" in name for name, value in environ.items()):
            raise self._failed("a variable in its env has a NUL, or a = in its name")
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: value for name, value in (os.environ | environ).items() if value is not None},
                start_new_session=True,
            )
        except OSError as error:
            raise self._failed(f"it cannot be started ({os.strerror(error.errno or 0)})") from None
        except ValueError:
            # Its own text may hold what is not ours to show.
            raise self._failed("it cannot be started with these arguments and variables") from None

    async def _talk(self, process: asyncio.subprocess.Process, output: bytearray) -> None:
        """Give it its input, and take what it prints, up to the limit."""
        if process.stdin is None or process.stdout is None:
            return
        # It does not read its input, which many do not, or has ended already; for that uvloop has another name.
        with suppress(ConnectionError, RuntimeError):
            process.stdin.write(self._stdin)
            await process.stdin.drain()
        process.stdin.close()
        while len(output) <= OUTPUT_LIMIT and (piece := await process.stdout.read(OUTPUT_LIMIT)):
            output += piece
        if len(output) > OUTPUT_LIMIT:
            # It would wait for somebody who reads the rest.
            raise self._failed("it printed more than 64 KiB")

    def _failed(self, reason: str) -> CredentialUnavailable:
        return CredentialUnavailable(f"Credential {self._name!r}, command {self._command[0]}: {reason}.")


async def _status(process: asyncio.subprocess.Process, talking: asyncio.Task[None]) -> int:
    """What it ended with, when its output has ended too; raises what `talking` raises.

    A child that goes on in the background may keep the output open: what was printed by then counts.
    """
    ending = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({talking, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            await asyncio.wait({talking}, timeout=OUTPUT_SECONDS)
        if talking.done():
            talking.result()
        return await ending
    finally:
        ending.cancel()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it with everything it started, and let go of its pipes: those of one cut short stay open."""
    # Not permitted: it runs as somebody else by now (sudo).
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way to it
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
