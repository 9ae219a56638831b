"""The command `demo`: plays the story against the doubles, prints it, and fails where anything differs.

Law: what is printed is ASCII of at most 100 columns and holds no secret; the last scene searches it.
"""

import asyncio
import json
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Final, TextIO

import uvloop

from proxy.demo.control import PREFIX
from proxy.demo.scene import Scene, Shown, Told, play
from proxy.demo.stage import Cast, Stage, standing
from proxy.demo.story import CALLS, CUSTOMERS, ME, STORY
from proxy.redact import printable

WIDTH: Final = 100
_INDENT: Final = " " * 4
_LABEL: Final = 10


def main(*, serve: bool, as_json: bool) -> int:
    """Play the demonstration: exit status 0, or 1 where a step differed.

    `as_json`: one JSON document instead of the text. `serve`: leave everything running until SIGINT or SIGTERM.
    """
    return uvloop.run(perform(Cast(), sys.stdout, serve=serve, as_json=as_json))


async def perform(cast: Cast, out: TextIO, *, serve: bool = False, as_json: bool = False) -> int:
    """Play the story with `cast` and write it to `out`; gives the exit status."""
    ended = asyncio.Event()
    if serve:
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, ended.set)
    began_at = time.perf_counter()
    async with standing(cast) as stage:
        transcript = _Transcript(out, silent=as_json)
        transcript.write(_opening(stage))
        told = []
        for number, (title, text, act) in enumerate(STORY, 1):
            told.append(await play(title, text, act, Scene(stage, transcript.text)))
            transcript.write(_step(number, told[-1]))
        holds = all(each.holds for each in told)
        transcript.write(_closing(told, time.perf_counter() - began_at))
        if as_json:
            out.write(json.dumps(_document(stage, told), indent=2) + "\n")
        if serve:
            # With --json, the document alone is on standard output.
            shown_on = sys.stderr if as_json else out
            _show(_invitation(stage, is_seen=shown_on.isatty()), shown_on)
            stage.log.live = sys.stderr
            await ended.wait()
    return 0 if holds else 1


class _Transcript:
    """What was printed so far; `silent`: kept, but not printed."""

    def __init__(self, out: TextIO, *, silent: bool) -> None:
        self._out = out
        self._silent = silent
        self.text = ""

    def write(self, lines: Iterator[str]) -> None:
        """Print lines of text."""
        text = "".join(f"{line}\n" for line in lines)
        self.text += text
        if not self._silent:
            self._out.write(text)
            self._out.flush()


def _show(lines: Iterator[str], out: TextIO) -> None:
    out.write("".join(f"{line}\n" for line in lines))
    out.flush()


def _opening(stage: Stage) -> Iterator[str]:
    yield "bearer-proxy demo: doubles of three vendor APIs on loopback, and the proxy in front of them."
    yield "Every request below is a real one. Tokens are shown by their number, never by their value."
    yield "The configuration; its secrets come from the environment:"
    yield ""
    yield from (f"{_INDENT}{line}" for line in stage.config.splitlines())


def _step(number: int, told: Told) -> Iterator[str]:
    yield ""
    yield f"{number:2}. {told.title}"
    yield f"{_INDENT}{told.text}"
    for shown in told.shown:
        yield from _request(shown)
    for check in told.checks:
        if check.holds:
            yield from _labelled("ok", f"{check.what}: {_plain(check.came)}")
        else:
            yield from _labelled("DIFFERS", f"{check.what}:")
            yield from _labelled("", f"expected {_plain(check.expected)}")
            yield from _labelled("", f"came     {_plain(check.came)}")


def _request(shown: Shown) -> Iterator[str]:
    yield f"{_INDENT}$ {shown.curl}"
    yield from _labelled("answer", shown.answer)
    if shown.proxy_status is not None:
        yield from _labelled("", f"Proxy-Status: {shown.proxy_status}")
    for at, line in enumerate(shown.upstream or ("nothing",)):
        yield from _labelled("upstream" if at == 0 else "", line)
    for at, line in enumerate(shown.log):
        yield from _labelled("log" if at == 0 else "", line)


def _labelled(label: str, text: str) -> Iterator[str]:
    """Text under a label, broken between words where it is too long."""
    blank = f"{_INDENT}{'':{_LABEL}}"
    yield from textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=f"{_INDENT}{label:{_LABEL}}",
        subsequent_indent=f"{blank}  ",
        break_on_hyphens=False,
    )


def _plain(value: object) -> str:
    """A value of a check in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) or "none"
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value)) or "none"
    return "nothing" if value is None else str(value)


def _closing(told: list[Told], seconds: float) -> Iterator[str]:
    differing = [each.title for each in told if not each.holds]
    checks = sum(len(each.checks) for each in told)
    yield ""
    if differing:
        yield from textwrap.wrap(f"{len(differing)} of {len(told)} steps differ: {'; '.join(differing)}.", WIDTH)
    else:
        yield f"All {len(told)} steps came as expected ({checks} checks, {seconds:.1f} s)."


def _document(stage: Stage, told: list[Told]) -> dict[str, object]:
    return {
        "ok": all(each.holds for each in told),
        "config": stage.config,
        "steps": [each.document() for each in told],
    }


def _invitation(stage: Stage, *, is_seen: bool) -> Iterator[str]:
    """What to try; the key of the inspector goes to a terminal alone (`is_seen`)."""
    tracker, crm, community = stage.upstreams
    yield ""
    yield "Everything is still running. Try, in another terminal:"
    for target in (CALLS, CUSTOMERS, f"/community/api/v2/{ME}"):
        yield f"{_INDENT}curl -i {stage.url}{target}"
    yield f"{_INDENT}curl -i {stage.url}/forum/api/v2/discussions     # a revoked token"
    yield "Let the tokens expire, make the token endpoint fail, see what each API saw:"
    yield f"{_INDENT}curl -X POST {tracker}{PREFIX}/expire"
    yield f"{_INDENT}curl -X POST {crm}{PREFIX}/expire"
    yield f'{_INDENT}curl -d \'{{"token_endpoint": "down"}}\' {tracker}{PREFIX}/set'
    yield f"{_INDENT}curl {community}{PREFIX}/state"
    yield "The proxy's own state:"
    yield f"{_INDENT}curl {stage.instance.admin_url}/readyz"
    yield f"{_INDENT}curl {stage.instance.admin_url}/metrics"
    yield "Its inspector, a page that shows each request:"
    page = f"{_INDENT}{stage.instance.admin_url}/"
    if is_seen:
        yield f"{page}?key={stage.instance.admin_key.reveal()}"
    else:
        yield f"{page}?key=...     # on a terminal with its key"
    yield "The log follows. Ctrl-C ends it."
