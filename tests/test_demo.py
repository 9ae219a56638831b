"""The command `demo`: it shows the main job, checks itself, and fails where a vendor's API or the proxy differs."""

import asyncio
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.clock import SystemClock
from proxy.demo import mainbrainer, teletracker
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.plain import Request
from proxy.demo.stage import Cast, Stage, standing
from proxy.demo.story import STORY
from proxy.demo.teletracker import TeleTracker
from proxy.demo.transcript import WIDTH, perform
from proxy.demo.vanilla import User, Vanilla
from tests.support.hooks import hooks_kept
from tests.support.leaks import Artefacts, Canaries

ROOT = Path(__file__).parents[1]
#: Seconds that end a hang, on a busy machine, too.
DEADLINE = 60
COMMAND = [sys.executable, "-m", "proxy", "demo"]
PASSWORDS = (teletracker.ACCOUNT.password, mainbrainer.ACCOUNT.password, mainbrainer.ACCOUNT.private_token)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The demonstration sets up the logging of its process; put pytest's back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with hooks_kept():
        yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def cast(canaries: Canaries) -> Cast:
    """The three doubles; what they issue are canaries."""
    clock = SystemClock()
    return Cast(
        TeleTracker(clock=clock, mint=lambda: canaries.mint("uuid")),
        MainBrainer(clock=clock, mint=lambda: canaries.mint("token")),
        Vanilla(clock=clock, mint=lambda: canaries.mint("token")),
    )


@pytest.fixture
async def stage(cast: Cast, artefacts: Artefacts) -> AsyncIterator[Stage]:
    """Doubles and proxy, before the first scene."""
    async with standing(cast) as found:
        artefacts.watch("log", found.log.getvalue)
        yield found


class ForgetsToRotate(TeleTracker):
    """Refuses every refresh, as if the refresh token had been used before."""

    def expire(self) -> int:
        """End the refresh tokens, too."""
        self.revoke_refresh()
        return super().expire()


class SaysHours(MainBrainer):
    """Its tokens are good for one hour instead of two."""

    def __init__(self) -> None:
        super().__init__(clock=SystemClock(), lifetime=3600)


class ShowsTokens(Vanilla):
    """Shows the member its own token in the answer's body, which the proxy never changes."""

    async def _show_user(self, request: web.Request, user: User) -> web.Response:
        return web.json_response({"token": self.presented(request), "name": user.name})


def differing(transcript: str) -> list[str]:
    """The titles of the steps that differ, in the transcript's own words."""
    titles = re.split(r"\n(?= ?\d+\. )", transcript)
    return [each.splitlines()[0].partition(". ")[2] for each in titles if "DIFFERS" in each]


async def test_the_story_comes_out_as_told(cast: Cast, artefacts: Artefacts) -> None:
    """Every step is there, in order, within 100 columns of ASCII, and nothing differs."""
    out = io.StringIO()
    assert await perform(cast, out) == 0
    transcript = out.getvalue()
    artefacts.add("transcript", transcript)
    assert re.findall(r"^ ?\d+\. (.+)$", transcript, re.MULTILINE) == [title for title, _, _ in STORY]
    assert f"All {len(STORY)} steps came as expected" in transcript
    assert transcript.isascii()
    assert max(map(len, transcript.splitlines())) <= WIDTH
    assert not [each for each in (*PASSWORDS, *cast.crm.issued, *cast.community.issued) if each in transcript]


@pytest.mark.parametrize(
    ("change", "titles"),
    [
        pytest.param(
            lambda: Cast(tracker=ForgetsToRotate(clock=SystemClock())),
            ["The token expires", "The same, with a 403", "The refresh token rotates"],
            id="no refresh",
        ),
        pytest.param(lambda: Cast(crm=SaysHours()), ["MainBrainer counts in minutes"], id="another lifetime"),
        pytest.param(lambda: Cast(community=ShowsTokens(clock=SystemClock())), ["Nothing leaked"], id="a leak"),
    ],
)
async def test_a_vendor_that_behaves_otherwise_is_noticed(change: Callable[[], Cast], titles: list[str]) -> None:
    """The steps about it say what was expected and what came, the others still run, and the exit status is 1."""
    out = io.StringIO()
    assert await perform(change(), out) == 1
    assert differing(out.getvalue())[: len(titles)] == titles
    assert re.search(r"DIFFERS .+\n\s+expected .+\n\s+came     ", out.getvalue())
    assert f"of {len(STORY)} steps differ" in out.getvalue()
    assert f"{len(STORY)}. {STORY[-1][0]}" in out.getvalue()


async def test_an_upstream_that_is_down_is_a_difference_and_no_traceback(cast: Cast) -> None:
    """A step that cannot come to its end says so."""
    cast.tracker.set(token_endpoint="down")
    out = io.StringIO()
    assert await perform(cast, out) == 1
    assert "503" in out.getvalue()
    assert "Traceback" not in out.getvalue()
    assert differing(out.getvalue())[0] == STORY[0][0]


async def test_json_is_one_document_with_every_step(cast: Cast, artefacts: Artefacts) -> None:
    """It holds what the text shows, and nothing else is printed."""
    out = io.StringIO()
    assert await perform(cast, out, as_json=True) == 0
    artefacts.add("document", out.getvalue())
    document = json.loads(out.getvalue())
    assert document["ok"] is True
    assert [step["title"] for step in document["steps"]] == [title for title, _, _ in STORY]
    third = document["steps"][2]
    assert [line.partition(":")[0] for line in third["requests"][0]["upstream"]] == [
        "GET /calls 401",
        "POST /auth/refresh 200",
        "GET /calls 200",
    ]
    assert all(check["ok"] and check["expected"] == check["came"] for check in third["checks"])


@pytest.mark.parametrize(
    "request_",
    [
        Request("/tracker/calls"),
        Request("/community/api/v2/users/me?access_token=x&page=1"),
        Request("/tracker/calls", headers={"Origin": "https://evil.example"}),
        Request("/tracker/echo-size", "POST", lines=300),
        Request("/tracker/calls", "DELETE"),
        Request("/tracker/calls", times=3),
    ],
)
async def test_the_command_lines_that_are_shown_are_true(stage: Stage, request_: Request) -> None:
    """Typed into a shell, they send what the transcript says was sent."""
    assert await _shell(request_.curl(stage.url)) == 0
    lines = [line for line in stage.log.getvalue().splitlines() if " request " in line]
    assert len(lines) == request_.times
    path = request_.target.partition("?")[0]
    assert all(f" request {request_.method} {path}" in line for line in lines)
    assert all(f" in={len(request_.body or b'')} " in line for line in lines)


async def _shell(command: str) -> int:
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


def test_the_command_shows_the_story_and_ends_with_0() -> None:
    """As a user runs it: no configuration, nothing on standard error, far less than ten seconds."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert [title for title, _, _ in STORY if title not in done.stdout] == []
    [seconds] = re.findall(r"checks, ([\d.]+) s\)", done.stdout)
    assert float(seconds) < 10
    assert not [password for password in PASSWORDS if password in done.stdout]


def test_serve_shows_a_terminal_where_the_inspector_is() -> None:
    """With its key, for which a browser is given the page."""
    ours, theirs = os.openpty()
    with subprocess.Popen([*COMMAND, "--serve"], stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT) as process:
        os.close(theirs)
        shown = b""
        try:
            while b"Ctrl-C" not in shown:
                shown += os.read(ours, 65536)
            [page] = re.findall(r"http\S+/\?key=[A-Za-z0-9_-]{32}\b", shown.decode())
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with browser.open(page, timeout=DEADLINE) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            os.close(ours)
    assert process.returncode == 0
    assert page.partition("key=")[2].encode() not in log


def test_serve_leaves_all_of_it_running_until_it_is_told_to_end() -> None:
    """The URLs that it prints answer, the log follows on standard error, and SIGTERM ends it with 0."""
    with subprocess.Popen(
        [*COMMAND, "--serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if "Ctrl-C" in line:
                break
        try:
            tail = lines[lines.index("Everything is still running. Try, in another terminal:") :]
            urls = [line.partition("#")[0].split()[-1] for line in tail if line.startswith("curl -i")]
            urls += [line.split()[-1] for line in tail if re.fullmatch(r"curl http\S+", line)]
            assert len(urls) == 7
            [page] = [line for line in tail if "/?key=" in line]
            assert page.partition("?")[2].startswith("key=... ")
            for url in urls:
                with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                    assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 0
    assert " request GET /crm/customers 200 " in log
    assert "stopped" in log
