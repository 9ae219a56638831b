"""The commands on a terminal: colours, and what is waited for; and none of it in a pipe."""

import asyncio
import os
import pty
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from proxy.cli.looks import Silence, Waiting, waiting, wish
from proxy.cli.terminal import Terminal
from tests.support.api import Seen, api
from tests.support.leaks import Artefacts
from tests.test_cli import DEADLINE, Command

RED: Final = "\x1b[31m"
GREEN: Final = "\x1b[32m"
#: What makes a line of a terminal empty again.
EMPTY: Final = "\r\x1b[K"


@pytest.fixture
def command(tmp_path: Path, artefacts: Artefacts) -> Command:
    """The program, as a terminal runs it."""
    return Command(tmp_path, artefacts, {"TERM": "xterm"})


@dataclass
class Screen:
    """A terminal: what a program has written there."""

    descriptor: int
    slave: int
    text: str = ""

    async def shows(self, words: str) -> None:
        """Wait until these words are there."""
        async with asyncio.timeout(DEADLINE):
            while words not in self.text:
                self.text += (await asyncio.to_thread(os.read, self.descriptor, 4096)).decode()

    def rest(self) -> None:
        """Take what else was written, by programs that have ended."""
        os.set_blocking(self.descriptor, False)
        try:
            while piece := os.read(self.descriptor, 4096):
                self.text += piece.decode()
        except BlockingIOError:
            pass


@asynccontextmanager
async def screen() -> AsyncIterator[Screen]:
    """A terminal for as long as the block lasts."""
    descriptor, slave = pty.openpty()
    try:
        yield Screen(descriptor, slave)
    finally:
        os.close(descriptor)
        os.close(slave)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": ""}, None),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_as_the_variables_say(*, environ: Mapping[str, str], wanted: bool | None) -> None:
    """None leaves it to whether there is a terminal; an empty variable says nothing."""
    assert wish(environ) is wanted


@pytest.mark.parametrize(("variables", "painted"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_a_terminal_shows_colours_unless_they_are_not_wanted(
    command: Command, variables: dict[str, str], *, painted: bool
) -> None:
    """The outcome of a request that would be refused is red."""
    command.variables |= variables
    config = command.config({"upstream": "http://127.0.0.1:9"})
    async with screen() as terminal:
        process = await command.start(
            "explain", "GET", "/", "-H", "Host: evil.example", "-c", config, stdout=terminal.slave
        )
        _, err = await process.communicate()
        terminal.rest()
    assert (process.returncode, err) == (1, b"")
    assert (f"outcome     {RED}refused" in terminal.text) is painted
    assert ("\x1b" in terminal.text) is painted


@pytest.mark.parametrize(("variables", "painted"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
async def test_a_pipe_has_colours_only_where_they_are_asked_for(
    command: Command, variables: dict[str, str], *, painted: bool
) -> None:
    """The same of a request that would go on."""
    command.variables |= variables
    config = command.config({"upstream": "http://127.0.0.1:9"})
    ended = await command("explain", "GET", "/", "-c", config)
    assert (ended.status, ended.err) == (0, "")
    assert (f"outcome     {GREEN}forwarded" in ended.out) is painted
    assert ("\x1b" in ended.out) is painted


async def test_whoever_waits_at_a_terminal_sees_for_what(command: Command) -> None:
    """It stands on standard error, and goes when it is over; the findings, in a pipe, know nothing of it."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        return web.Response(text="fine")

    async with api(slow) as upstream, screen() as terminal:
        config = command.config({"upstream": upstream.url})
        process = await command.start("doctor", "-c", config, stderr=terminal.slave)
        await arrived.wait()
        await terminal.shows("asking servers (")
        go.set()
        out, _ = await process.communicate()
        terminal.rest()
    assert process.returncode == 0
    assert terminal.text.startswith(EMPTY)
    assert terminal.text.endswith(EMPTY)
    assert b"ok       route default" in out
    assert b"\x1b" not in out


def test_whoever_does_not_look_on_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error is no terminal: there is no line, and nothing that could write one."""
    with waiting("what nobody sees") as line:
        assert isinstance(line, Silence)
        line.say("what was found")
    assert capsys.readouterr() == ("what was found\n", "")


def test_what_a_login_says_takes_the_place_of_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The line is emptied first."""
    person = Terminal({}, browser=False)
    person.line = Waiting("waiting for you")
    person.tell("Enter this code")
    assert capsys.readouterr() == ("Enter this code\n", EMPTY)


@pytest.mark.parametrize(
    ("given", "said"),
    [("rnu", "No such command 'rnu'. Did you mean 'run'?"), ("zzzz", "No such command 'zzzz'.")],
)
def test_a_slip_in_the_name_of_a_command_is_told_with_the_nearest(command: Command, given: str, said: str) -> None:
    """And nothing is guessed where none is near."""
    ended = command.inside(given)
    assert ended.status == 2
    assert ended.err.splitlines()[-1] == f"Error: {said}"
