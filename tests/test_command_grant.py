"""Tokens that programs print: real programs, and what becomes of those that do not behave."""

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.credentials.command import CommandGrant
from proxy.errors import CredentialUnavailable
from proxy.grants.command import OUTPUT_LIMIT
from proxy.grants.request import Granted
from proxy.redact import Secret
from tests.support.harness import HeldClock
from tests.support.leaks import Artefacts, Canaries
from tests.support.waiting import until

#: No program here takes so long unless it hangs.
LONG: Final = 30.0
#: So long is waited for one that hangs.
SHORT: Final = 0.5

Make = Callable[..., CommandGrant]


@pytest.fixture(autouse=True)
async def settled() -> AsyncIterator[None]:
    """Let the loop close what was given up, before it is closed itself."""
    yield
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def registered() -> list[str]:
    """Every value that was registered."""
    return []


@pytest.fixture
def make(clock: HeldClock, registered: list[str]) -> Make:
    """Makes a grant called `c` of a shell script, or of `command`."""

    def register(secrets: Iterable[Secret]) -> None:
        registered.extend(secret.reveal() for secret in secrets)

    def made(script: str = "", *, command: tuple[str, ...] | None = None, **more: Any) -> CommandGrant:
        given: dict[str, Any] = {"form": "auto", "stdin": "", "environ": dict, "timeout": LONG, **more}
        return CommandGrant("c", command or ("sh", "-c", script), clock=clock, register=register, **given)

    return made


async def failure(grant: CommandGrant) -> str:
    """What is wrong, without the beginning of the sentence; its traceback tells no more."""
    with pytest.raises(CredentialUnavailable) as caught:
        await grant.obtain(None)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    begin, _, reason = caught.value.detail.partition(": ")
    assert begin.startswith("Credential 'c', command ")
    return reason


async def test_what_a_program_prints_is_the_token(make: Make, registered: list[str], canaries: Canaries) -> None:
    """Masked before anybody gets it; the program and its arguments are not read by a shell."""
    token = canaries.mint("token")
    script = "import sys; print(sys.argv[1])"
    assert await make(command=(sys.executable, "-c", script, token)).obtain(None) == Granted(Secret(token))
    assert registered == [token]
    assert await make(command=("printf", "%s", "$HOME;`id`")).obtain(None) == Granted(Secret("$HOME;`id`"))


async def test_an_expiry_is_reckoned_from_the_start_of_the_program(make: Make, clock: HeldClock) -> None:
    """In the form of kubectl, told by what was printed."""
    status = {"token": "t-1", "expirationTimestamp": "2027-01-15T09:16:40Z"}
    document = json.dumps({"kind": "ExecCredential", "status": status})
    clock.epoch = 1_800_000_000.0 - clock.now()
    granted = await make(command=("printf", "%s", document)).obtain(None)
    assert granted == Granted(Secret("t-1"), lifetime=4600.0, expires_at_wall=1_800_004_600.0)


async def test_a_token_that_is_over_is_none(make: Make) -> None:
    """A cache of the program's own that nobody cleared."""
    document = json.dumps({"accessToken": "t-1", "expires_on": 1})
    assert await failure(make(command=("printf", "%s", document))) == "it printed a token that has expired already."


async def test_the_named_form_is_asked_for(make: Make) -> None:
    """And no other."""
    assert await failure(make("echo plain", form="docker")) == "it printed no JSON."


async def test_input_and_environment_are_given(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the proxy's own environment; what is named wins."""
    monkeypatch.setenv("THEIRS", "1")
    monkeypatch.setenv("OURS", "2")
    script = 'read first; read second; echo "$first-$second-$THEIRS-$OURS"'
    grant = make(script, stdin="one\ntwo\n", environ=lambda: {"OURS": "3"})
    assert await grant.obtain(None) == Granted(Secret("one-two-1-3"))


async def test_a_variable_can_be_withheld(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not set at all."""
    monkeypatch.setenv("THEIRS", "1")
    grant = make('echo "${THEIRS-none}"', environ=lambda: {"THEIRS": None, "NOWHERE": None})
    assert await grant.obtain(None) == Granted(Secret("none"))


async def test_without_an_input_the_program_sees_the_end_at_once(make: Make) -> None:
    """One that asks its terminal would wait for ever."""
    assert await make('if read line; then echo "$line"; else echo end; fi').obtain(None) == Granted(Secret("end"))


@pytest.mark.parametrize("size", [1, 16 * 1024 * 1024])
async def test_a_program_need_not_read_its_input(make: Make, size: int) -> None:
    """However much there is of it."""
    assert await make("exec <&-; echo t-1", stdin="x" * size).obtain(None) == Granted(Secret("t-1"))


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("echo t-1; exit 1", 1), ("kill -TERM $$", -15)])
async def test_a_program_that_fails_gives_no_token(make: Make, script: str, status: int) -> None:
    """Whatever it printed."""
    assert await failure(make(script)) == f"it ended with status {status}; run it by hand to see why."


async def test_what_a_program_says_on_its_error_output_is_never_shown(
    make: Make,
    canaries: Canaries,
    artefacts: Artefacts,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """AWS says so: credential processes write secrets there. Nor what it printed, where that is no token."""
    secret = canaries.mint("token")
    environ = {"SECRET": secret}
    with caplog.at_level(logging.DEBUG):
        reasons = [
            await failure(make(script, environ=lambda: environ))
            for script in (
                'echo "$SECRET" >&2; exit 1',
                'echo "$SECRET"; exit 1',
                'echo "$SECRET two words"',
                'printf \'{"Secret": "%s" \' "$SECRET"',
            )
        ]
    granted = await make('echo "$SECRET" >&2; echo t-1', environ=lambda: environ).obtain(None)
    assert granted.token == Secret("t-1")
    assert capfd.readouterr() == ("", "")
    artefacts.add("reasons", "\n".join(reasons))
    artefacts.add("log", caplog.text)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nowhere/to-be-found",), "it cannot be started (No such file or directory)."),
        (("no-such-program-anywhere",), "it cannot be started (No such file or directory)."),
        ((os.sep,), "it cannot be started (Permission denied)."),
    ],
)
async def test_a_program_that_cannot_be_started_is_told(make: Make, command: tuple[str, ...], reason: str) -> None:
    """With the system's own reason."""
    assert await failure(make(command=command)) == reason


async def test_a_program_that_hangs_is_ended_with_everything_it_started(make: Make, tmp_path: Path) -> None:
    """The whole group: a helper in the background must not go on with our secrets."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    heard = bytearray()

    def ended() -> bool:
        """Has nobody the pipe open any more?"""
        try:
            piece = os.read(reader, 100)
        except BlockingIOError:
            return False
        heard.extend(piece)
        return not piece

    try:
        grant = make('(echo up; sleep 600) > "$PIPE" & wait', environ=lambda: {"PIPE": str(pipe)}, timeout=SHORT)
        assert await failure(grant) == "it did not end within 0.5 seconds."
        await until(ended)
    finally:
        os.close(reader)
    assert heard == b"up\n"


@pytest.mark.parametrize("stdin", ["", "x" * 16 * 1024 * 1024])
async def test_a_program_that_neither_reads_nor_prints_is_ended(make: Make, stdin: str) -> None:
    """With input that nobody takes, too."""
    assert await failure(make("exec sleep 600", stdin=stdin, timeout=SHORT)) == "it did not end within 0.5 seconds."


@pytest.mark.parametrize("background", ["sleep 600", "setsid sleep 20", "trap '' TERM; read line"])
async def test_a_child_in_the_background_costs_no_token(make: Make, background: str) -> None:
    """The program has ended well; that a helper of it keeps the output open is no fault of the token."""
    before = time.monotonic()
    assert await make(f"echo t-1; ({background}) & exit 0").obtain(None) == Granted(Secret("t-1"))
    assert (
        await failure(make(f"echo t-1; ({background}) & exit 3"))
        == "it ended with status 3; run it by hand to see why."
    )
    assert time.monotonic() - before < LONG / 2


async def test_what_a_child_prints_without_end_is_refused(make: Make) -> None:
    """Nobody knows which of it is the token."""
    assert await failure(make("yes & exit 0")) == "it printed more than 64 KiB."


async def test_all_that_was_printed_counts_when_the_program_has_ended(make: Make) -> None:
    """However late this process comes to read it."""
    script = f"printf t-1; head -c {OUTPUT_LIMIT - 3} /dev/zero | tr '\\0' ' '; sleep 600 & exit 0"
    assert await make(script).obtain(None) == Granted(Secret("t-1"))


@pytest.mark.parametrize("environ", [{"A": "canary\0x"}, {"A\0canary": "x"}, {"A=canary": "x"}])
async def test_a_variable_that_cannot_be_is_told(make: Make, environ: dict[str, str]) -> None:
    """What is lent is known only when it is needed."""
    reason = "a variable in its env has a NUL, or a = in its name."
    assert await failure(make("echo t-1", environ=lambda: environ)) == reason


async def test_what_the_system_does_not_take_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its text, which may hold a secret."""

    async def refuse(*_given: object, **_more: object) -> None:
        raise ValueError("canary")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    assert await failure(make("echo t-1")) == "it cannot be started with these arguments and variables."


async def test_a_program_that_prints_without_end_is_ended_at_once(make: Make) -> None:
    """Not only when its time is over."""
    before = time.monotonic()
    assert await failure(make("exec yes")) == "it printed more than 64 KiB."
    assert time.monotonic() - before < LONG / 2


async def test_the_most_that_is_read_is_64_kib(make: Make) -> None:
    """White space counts; a byte more is refused."""
    script = "printf t-1; head -c {} /dev/zero | tr '\\0' ' '"
    assert await make(script.format(OUTPUT_LIMIT - 3)).obtain(None) == Granted(Secret("t-1"))
    assert await failure(make(script.format(OUTPUT_LIMIT - 2))) == "it printed more than 64 KiB."


async def test_a_cancelled_request_ends_the_program(make: Make, tmp_path: Path) -> None:
    """The proxy shuts down while it runs."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = asyncio.create_task(
        make('exec sleep 600 > "$PIPE"', environ=lambda: {"PIPE": str(pipe)}).obtain(None)
    )
    # Opens when the program does, and ends when the program does.
    reading = asyncio.create_task(asyncio.to_thread(pipe.open, "rb"))
    with await reading as opened:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(opened.read) == b""


async def test_a_program_that_is_not_ours_to_end_is_left_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that became somebody else (sudo): its token counts all the same."""

    def refuse(_group: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    assert await make("echo t-1").obtain(None) == Granted(Secret("t-1"))
