"""The person at the terminal, as a login talks to one."""

import asyncio
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from typing import Final

from proxy.cli.looks import Silence, Waiting

#: A longer line is no address.
_LINE_MOST: Final = 16 * 1024
#: What says that a browser can show itself; `BROWSER` names one outright.
_DISPLAYS: Final = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")


class Terminal:
    """Prints, reads from standard input, and opens the person's browser."""

    def __init__(self, environ: Mapping[str, str], *, browser: bool) -> None:
        has_one = sys.platform in {"darwin", "win32"} or any(environ.get(name) for name in _DISPLAYS)
        self.has_browser = browser and has_one
        # Who asks for no browser pastes, be it through a pipe.
        keyboard = _keyboard()
        self.can_paste = keyboard is not None and (os.isatty(keyboard) or not browser)
        #: What says meanwhile that it is waited for.
        self.line: Waiting | Silence = Silence()

    def tell(self, text: str) -> None:
        """One or more lines."""
        self.line.say(text)

    def open(self, url: str) -> None:
        """In the background: some browsers return only when they are closed."""
        _in_background("browser", lambda: webbrowser.open(url))

    async def paste(self) -> str | None:
        """The next line; the loop goes on meanwhile. None at the end of the input."""
        loop = asyncio.get_running_loop()
        typed: asyncio.Future[str | None] = loop.create_future()

        def deliver(line: str | None) -> None:
            if not typed.done():
                typed.set_result(line)

        def read() -> None:
            line = _read_line()
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, line)

        _in_background("keyboard", read)
        return await typed


def _in_background(name: str, work: Callable[[], object]) -> None:
    """A thread that the end of the program does not wait for."""
    threading.Thread(target=work, name=name, daemon=True).start()


def _keyboard() -> int | None:
    """The descriptor of standard input, None where it is closed."""
    try:
        return None if sys.stdin is None else sys.stdin.fileno()
    except (OSError, ValueError):
        return None


def _read_line() -> str | None:
    """From the descriptor itself: `sys.stdin` would hold a lock that the end of the interpreter wants."""
    keyboard = _keyboard()
    if keyboard is None:
        return None
    line = bytearray()
    while len(line) < _LINE_MOST and (piece := os.read(keyboard, 1)):
        if piece == b"\n":
            return line.decode("utf-8", "replace")
        line += piece
    return line.decode("utf-8", "replace") if line else None
