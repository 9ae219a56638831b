"""How the commands look on a terminal: colours, and a line that says what is waited for.

Law: nothing of it reaches a pipe or a file, unless FORCE_COLOR asks for the colours.
"""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from time import monotonic
from typing import Final

import click

#: What a word of ours means to whoever reads it.
_COLOURS: Final = {
    "ok": "green",
    "warning": "yellow",
    "failure": "red",
    "fresh": "green",
    "stale": "yellow",
    "invalid": "red",
    "forwarded": "green",
    "answered": "green",
    "refused": "red",
}
_FRAMES: Final = "|/-\\"
_FRAME_SECONDS: Final = 0.1
#: Whoever is quicker than this shows nothing.
_PATIENCE_SECONDS: Final = 0.3
#: Back to the beginning of the line, and empty it (ECMA-48).
_EMPTY: Final = "\r\x1b[K"


def wish(environ: Mapping[str, str]) -> bool | None:
    """Are colours wanted? None: on a terminal only. Sources: https://no-color.org, https://force-color.org."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return False if environ.get("TERM") == "dumb" else None


def painted(text: str, word: str) -> str:
    """`text` in the colour of `word`, a status or a state; `click.echo` takes it off where it does not belong."""
    return click.style(text, fg=_COLOURS[word]) if word in _COLOURS else text


class Waiting:
    """Says on standard error what is waited for; `about` is that, and may be set anew at any time.

    `aside`: what is said goes there, too, since standard output is a document.
    """

    def __init__(self, about: str, *, aside: bool = False) -> None:
        self.about = about
        self._aside = aside
        self._ended = threading.Event()
        #: Guards the line: no frame comes between its end and what takes its place.
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print `text`, in the place of the line; the next frame is below it."""
        with self._lock:
            _write(_EMPTY)
            click.echo(text, err=self._aside)

    def end(self) -> None:
        """Say no more."""
        self._ended.set()

    def run(self) -> None:
        """One frame after another, until the end."""
        began_at = monotonic()
        if self._ended.wait(_PATIENCE_SECONDS):
            return
        for frame in cycle(_FRAMES):
            with self._lock:
                _write(f"{_EMPTY}{frame} {self.about} ({monotonic() - began_at:.0f} s)")
            if self._ended.wait(_FRAME_SECONDS):
                break
        _write(_EMPTY)


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class Silence:
    """The same, where nobody looks on."""

    def __init__(self, *, aside: bool = False) -> None:
        self._aside = aside

    def say(self, text: str) -> None:
        """Print `text`."""
        click.echo(text, err=self._aside)


@contextmanager
def waiting(about: str, *, shown: bool = True, aside: bool = False) -> Iterator[Waiting | Silence]:
    """For as long as the block lasts; silence where no terminal can show it, or it is not to be `shown`."""
    if not shown or not sys.stderr.isatty():
        yield Silence(aside=aside)
        return
    line = Waiting(about, aside=aside)
    # A thread: the loop may wait, too.
    thread = threading.Thread(target=line.run, name="waiting", daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.end()
        thread.join()
