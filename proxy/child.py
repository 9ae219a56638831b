"""A program beside the proxy: its start, the signals that are passed on to it, its end.

Law: a signal reaches the program once. It is in the process group of the proxy, so what a terminal sends (Ctrl-C,
the end of the session) comes to both of them, and is not passed on; what is sent to the proxy alone is. sudo(8)
does the same; a group of its own would need the terminal to be given to it, and taken back at each stop.
"""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from proxy.process import descriptors, limit_descriptors

#: What ends a program, or tells it something. Those of the terminal's job control stop both, and need no help.
PASSED_ON: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGALRM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
#: What a terminal sends to everybody in its foreground.
_OF_TERMINALS: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
#: `si_code` of a signal that the kernel sends for a terminal (asm-generic/siginfo.h).
_SI_KERNEL: Final = 0x80
#: What a shell says of a program that is not there, cannot be run, or was ended by a signal (POSIX.1-2024, Shell
#: and Utilities, section 2.8.2).
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
BY_SIGNAL: Final = 128


class Child:
    """One program to be; its streams and descriptors are the proxy's own.

    Made before any thread is, and before limits are changed: from then on signals are held back, until the program
    is there to get them.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        #: As we found it, and as the program is to find it. What is ignored (nohup(1)) stays ignored.
        self._descriptors = descriptors()
        self._held = {each for each in PASSED_ON if signal.getsignal(each) is not signal.SIG_IGN}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)
        self._is_warned = False
        #: There is no program any more to pass a signal on to, and it is not the first one.
        self.hurry = asyncio.Event()

    async def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Start `command` with the variables `environ`, and wait for its end; gives its status as a shell does.

        Raises `OSError` where it cannot be started. It is not started where a signal came before.
        """
        if early := signal.sigpending() & self._held:
            return BY_SIGNAL + int(min(early))
        # Not the loop's own, since libuv gives the program no signal that is ignored.
        process = self._process = subprocess.Popen(  # noqa: ASYNC220, S603  a moment; what the user wants to run
            command,
            env=environ,
            # A shell's <(…) is a descriptor; ours are closed by themselves (PEP 446).
            close_fds=False,
            preexec_fn=self._as_found,  # noqa: PLW1509  no thread of ours holds a lock that it needs
        )
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop, process.pid), name="signals", daemon=True).start()
        status: int = await loop.run_in_executor(None, process.wait)
        return status if status >= 0 else BY_SIGNAL - status

    def end(self) -> None:
        """Ask it to end."""
        self._pass_on(signal.SIGTERM, has_it=False)

    def _as_found(self) -> None:
        """In the program's process, before the program."""
        limit_descriptors(self._descriptors)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _listen(self, loop: asyncio.AbstractEventLoop, pid: int) -> None:
        """Take signals, as long as there is a loop to tell."""
        with suppress(RuntimeError):
            while True:
                number, has_it = _next(self._held, pid)
                loop.call_soon_threadsafe(partial(self._pass_on, number, has_it=has_it))

    def _pass_on(self, number: int, *, has_it: bool) -> None:
        # The first one may be what has just ended the program, as it came to both of them.
        was_warned, self._is_warned = self._is_warned, True
        if self._process is None or self._process.returncode is not None:
            if was_warned:
                self.hurry.set()
            return
        if has_it:
            return
        with suppress(ProcessLookupError, PermissionError):  # it ends just now; it runs as somebody else (sudo)
            self._process.send_signal(number)


def _next(numbers: set[signal.Signals], pid: int) -> tuple[int, bool]:
    """The next signal, and whether the program has it already: from the terminal, or since it sent it itself."""
    if sys.platform == "darwin":
        number = signal.sigwait(numbers)
        return number, number in _OF_TERMINALS and sys.stdin.isatty()
    told = signal.sigwaitinfo(numbers)
    return told.si_signo, told.si_code == _SI_KERNEL or told.si_pid == pid
