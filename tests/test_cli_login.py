"""`login` and `logout` as commands: who is meant, what is said, and what a running instance is told."""

import asyncio
import base64
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner, Result

from proxy import runfile
from proxy.cli import login as module
from proxy.cli import main
from proxy.cli.login import said_of_login, said_of_logout, tell_instance
from proxy.cli.terminal import Terminal
from proxy.config import Source, load
from proxy.credentials.logout import LoggedOut
from proxy.redact import Secret
from proxy.stores.base import Record
from proxy.stores.latch import Latch
from tests.support.api import Seen, api
from tests.support.hooks import hooks_kept
from tests.support.keeping import Kept
from tests.support.leaks import Artefacts, Canaries
from tests.support.oidc import OIDCProvider, oidc_provider

DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT: Final = {
    "client_id": "tool",
    "application_type": "native",
    "grant_types": ["authorization_code", DEVICE, "refresh_token"],
    "redirect_uris": ["http://127.0.0.1/callback"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "scope": "openid offline_access",
}
#: One that proves who it is, by a secret.
KNOWN: Final = {
    **CLIENT,
    "client_id": "known",
    "client_secret": "client-secret-for-tests-of-lending",
    "token_endpoint_auth_method": "client_secret_post",
}
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OIDCProvider]:
    """One server for all tests."""
    with oidc_provider(tmp_path_factory.mktemp("oidc"), [CLIENT, KNOWN]) as server:
        yield server


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, canaries: Canaries) -> Kept:
    """The store that the commands use; what is put there must not be shown."""
    store = Kept()
    save = store.save

    async def saving(name: str, binding: bytes, record: Record, *, again: bool = False) -> None:
        await save(name, binding, record, again=again)
        canaries.adopt(record.token.reveal(), "token")
        if record.refresh_token is not None:
            canaries.adopt(record.refresh_token.reveal(), "token")

    monkeypatch.setattr(store, "save", saving)
    monkeypatch.setattr(module, "resting", lambda *_: (store, b"binding"))
    return store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artefacts: Artefacts) -> Iterator[Run]:
    """`run(credentials, *arguments)`: the command with a configuration of these; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))

    def command(credentials: Mapping[str, Any], *arguments: str) -> Result:
        path = tmp_path / "config.yaml"
        routes = [
            {"prefix": f"/{name}", "upstream": "https://api.example.com", "credential": name}
            for name in credentials
        ]
        path.write_text(yaml.safe_dump({"routes": routes, "credentials": dict(credentials)}))
        result = CliRunner().invoke(main, [*arguments, "-c", str(path)])
        artefacts.add("output", result.output)
        return result

    with hooks_kept():
        yield command
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def _person(issuer: str = "https://id.example.com", grant: str = "authorization_code") -> dict[str, Any]:
    return {
        "type": "oauth2",
        "grant": grant,
        "issuer": issuer,
        "client_id": "tool",
        "scope": "openid offline_access",
    }


MACHINE: Final = {
    "type": "oauth2",
    "grant": "client_credentials",
    "issuer": "https://id.example.com",
    "client_id": "x",
}


@pytest.mark.parametrize(
    ("credentials", "arguments", "said"),
    [
        ({"a": MACHINE}, ["login"], "no credential here needs a person"),
        ({"a": MACHINE}, ["logout"], "no credential here needs a person"),
        ({"a": _person(), "b": _person()}, ["login"], "several credentials need a person: write one of a, b"),
        ({"a": _person(), "b": MACHINE}, ["login", "b"], "this credential needs no person: write one of a"),
        ({"a": _person(), "b": MACHINE}, ["login", "c"], "no credential has this name: write one of a"),
        ({"a": _person()}, ["logout", "c"], "no credential has this name: write one of a"),
        ({"a": _person()}, ["login"], "login needs a store that lasts: set store.kind: file"),
        ({"a": _person()}, ["logout", "a"], "login needs a store that lasts: set store.kind: file"),
    ],
)
def test_a_wrong_use_says_what_is_right(
    run: Run, credentials: Mapping[str, Any], arguments: list[str], said: str
) -> None:
    """Exit status 2, and nothing is asked."""
    result = run(credentials, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_without_browser_and_terminal_a_login_fails(run: Run, kept: Kept) -> None:
    """Exit status 1, with what to do instead."""
    result = run({"calendar": _person()}, "login")
    assert result.exit_code == 1
    assert "run `bearer-proxy login calendar --no-browser` in a terminal" in result.output
    assert kept.saved == []


@pytest.mark.parametrize("name", [[], ["calendar"]], ids=["the only one", "by name"])
def test_a_login_and_a_logout_from_end_to_end(
    run: Run, kept: Kept, provider: OIDCProvider, monkeypatch: pytest.MonkeyPatch, name: list[str]
) -> None:
    """A browser, a real server; a token is stored, and said to be good until when; then both are revoked."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.ca))
    monkeypatch.setattr("webbrowser.open", provider.visit)
    credentials = {"calendar": _person(provider.issuer) | {"refresh_lifetime": "180d"}, "other": MACHINE}
    result = run(credentials, "login", *name)
    assert result.exit_code == 0, result.output
    assert [record.generation for record in kept.saved] == [1]
    assert "logged in; the token of calendar is good until" in result.output
    assert "log in again by" in result.output
    result = run(credentials, "logout", *name)
    assert (result.exit_code, result.output) == (
        0,
        "logged out; the tokens of calendar are revoked and forgotten\n",
    )
    assert kept.records == {}
    result = run(credentials, "logout", *name)
    assert (result.exit_code, result.output) == (0, "nothing is stored for calendar\n")


def test_a_login_and_a_logout_are_documents_for_a_script(
    run: Run, kept: Kept, provider: OIDCProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to the person goes to standard error; a problem is a document, too."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.ca))
    monkeypatch.setattr("webbrowser.open", provider.visit)
    credentials = {"calendar": _person(provider.issuer) | {"refresh_lifetime": "180d"}}
    result = run(credentials, "login", "--json")
    said = json.loads(result.stdout)
    assert 0 < said.pop("expires_in") < said.pop("refresh_expires_in") <= 180 * 86400
    nobody = {"follows": None, "said": None}
    assert said == {"ok": True, "credential": "calendar", "renewed": True, "instance": nobody}
    assert "open this page" in result.stderr
    ended = {"ok": True, "credential": "calendar", "problem": None, "failed": False, "instance": nobody}
    for found in (True, False):
        result = run(credentials, "logout", "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, ended | {"found": found})
    monkeypatch.delenv("DISPLAY")
    result = run(credentials, "login", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"], len(kept.saved)) == (1, False, 1)


def test_107_a_login_that_succeeds_clears_a_rejection(
    run: Run, kept: Kept, provider: OIDCProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client's secret was wrong at the server, and has been mended there: nothing here has changed."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.ca))
    monkeypatch.setattr("webbrowser.open", provider.visit)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    credential = _person(provider.issuer)
    text = yaml.safe_dump({"upstream": "https://api.example.com", "credential": credential})
    digest = load(Source(text, "text", None, "test"), environ={}).credentials["default"].digest()
    latch = Latch(tmp_path / "state")
    asyncio.run(latch.set("calendar", digest, "rejected", 1.7e9))
    result = run({"calendar": credential}, "login")
    assert (result.exit_code, len(kept.saved)) == (0, 1), result.output
    assert asyncio.run(latch.is_set("calendar", digest)) is None


def test_what_a_credential_borrows_is_lent_to_its_login_and_its_logout(
    run: Run, kept: Kept, provider: OIDCProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server takes the lender's token as the client's secret."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.ca))
    monkeypatch.setattr("webbrowser.open", provider.visit)
    borrowing = {"client_id": "known", "client_auth": "post", "client_secret": {"credential": "secret"}}
    lender = {"type": "exec", "command": ["printf", "%s", KNOWN["client_secret"]]}
    credentials = {"calendar": _person(provider.issuer) | borrowing, "secret": lender}
    result = run(credentials, "login", "calendar")
    assert (result.exit_code, "calendar" in kept.records) == (0, True), result.output
    result = run(credentials, "logout", "calendar")
    assert (result.exit_code, result.output) == (
        0,
        "logged out; the tokens of calendar are revoked and forgotten\n",
    )


@pytest.mark.parametrize(("command", "status"), [("login", 1), ("logout", 1)])
def test_a_lender_without_a_token_is_spoken_of(
    run: Run, kept: Kept, monkeypatch: pytest.MonkeyPatch, command: str, status: int
) -> None:
    """No server is asked with an empty secret; a logout forgets all the same."""
    monkeypatch.setenv("DISPLAY", ":0")
    kept.records["calendar"] = b"binding", Record(1, Secret("t"), 0.0)
    server = "https://id.example.com"
    borrowing = {
        "issuer": None,
        "token_url": f"{server}/token",
        "authorization_url": f"{server}/login",
        "revocation_url": f"{server}/revoke",
        "client_secret": {"credential": "secret"},
    }
    credentials = {"calendar": _person() | borrowing, "secret": {"type": "exec", "command": ["false"]}}
    result = run(credentials, command, "calendar")
    assert result.exit_code == status
    assert "Credential 'secret', command false: it ended with status 1" in result.output
    assert ("calendar" in kept.records) == (command == "login")


def test_a_credential_that_needs_no_person_can_be_forgotten(run: Run, kept: Kept) -> None:
    """By its name; where the server cannot revoke, that is said."""
    kept.records["a"] = b"binding", Record(1, Secret("t"), 0.0)
    credential = {name: value for name, value in MACHINE.items() if name != "issuer"}
    result = run({"a": {**credential, "token_url": "https://id.example.com/token"}}, "logout", "a")
    assert (result.exit_code, kept.records) == (0, {})
    assert "reason: the server has no place to revoke tokens" in result.output


def test_a_logout_that_could_not_revoke_fails(run: Run, kept: Kept) -> None:
    """Forgotten it is all the same."""
    kept.records["a"] = b"binding", Record(1, Secret("t"), 0.0)
    result = run(
        {
            "a": _person()
            | {
                "revocation_url": "http://127.0.0.1:1/",
                "token_url": "http://127.0.0.1:1/",
                "authorization_url": "http://127.0.0.1:1/",
                "issuer": None,
            }
        },
        "logout",
    )
    assert (result.exit_code, kept.records) == (1, {})
    assert "may live on at the server" in result.output


GOOD: Final = "logged in; the token of c is good until 1970-01-01 01:00Z (1h)"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            Record(1, Secret("t"), 0.0, 3600.0, Secret("r"), 86400.0),
            f"{GOOD}, and is renewed by itself; log in again by 1970-01-02 00:00Z",
        ),
        (
            Record(1, Secret("t"), 0.0, 3600.0, Secret("r")),
            f"{GOOD}, and is renewed by itself",
        ),
        (
            Record(1, Secret("t"), 0.0, 3600.0),
            f"{GOOD}; the server gave no refresh token: log in again then",
        ),
        (Record(1, Secret("t"), 0.0, None, Secret("r")), "logged in; the token of c is renewed by itself"),
        (Record(1, Secret("t"), 0.0), "logged in; the server does not say how long the token of c is good"),
    ],
    ids=["hard end", "no end known", "no refresh token", "no expiry", "nothing known"],
)
def test_a_login_says_how_long_it_is_good(record: Record, said: str) -> None:
    """In one sentence, and when to come again."""
    assert said_of_login("c", record, 0.0) == said


def test_a_logout_says_what_became_of_the_tokens() -> None:
    """Three ends."""
    assert said_of_logout("c", LoggedOut(found=False)) == ["nothing is stored for c"]
    assert said_of_logout("c", LoggedOut(found=True)) == ["logged out; the tokens of c are revoked and forgotten"]
    assert said_of_logout("c", LoggedOut(found=True, problem="why")) == [
        "logged out here; the tokens of c are forgotten, but may live on at the server",
        "reason: why",
    ]


# -- the running instance


NOT_FOLLOWED: Final = "the running instance has not followed: detail. Restart it."


@pytest.mark.parametrize(
    ("refresh", "state", "ending", "said"),
    [
        (200, "fresh", False, None),
        (503, "fresh", False, None),
        (503, "invalid", False, NOT_FOLLOWED),
        (503, "invalid", True, None),
        (200, "fresh", True, NOT_FOLLOWED.replace(": detail", "")),
        (503, "stale", True, NOT_FOLLOWED),
        (404, None, False, NOT_FOLLOWED),
        (404, None, True, NOT_FOLLOWED),
    ],
    ids=["took it", "cannot be refreshed", "did not take it", "let go", "did not", "has it", "other", "others"],
)
async def test_a_running_instance_is_told_and_its_state_judged(  # noqa: PLR0917  a table beside three fixtures
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refresh: int,
    state: str | None,
    said: str | None,
    *,
    ending: bool,
) -> None:
    """After a login it must have a token, after a logout none; whatever it said of the refresh."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.method == "POST":
            return web.json_response({} if refresh == 200 else {"detail": "detail"}, status=refresh)
        states = [{"name": "other", "state": "fresh"}, {"name": "another", "state": "invalid"}]
        return web.json_response({"credentials": states + ([{"name": "c", "state": state}] if state else [])})

    async with api(answer) as admin:
        running = runfile.Running(os.getpid(), [], admin.url, "key")
        runfile.write(runfile.path_for("here", os.environ), running)
        told = await asyncio.to_thread(tell_instance, "here", "c", "does it", "Restart it.", ending=ending)
    told.show()
    out, err = capsys.readouterr()
    follows = said is None
    assert told.follows is follows
    assert (out, err) == ("the running instance does it\n" * follows, f"{said}\n" * (not follows))
    assert [(seen.method, seen.target) for seen in admin.seen] == [
        ("POST", "/api/credentials/c/refresh"),
        ("GET", "/api/credentials"),
    ]


def test_an_instance_that_does_not_answer_is_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is no problem; one that cannot be told is."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    none = tell_instance("here", "c", "does it", "Restart it.")
    none.show()
    assert (none.follows, *capsys.readouterr()) == (None, "", "")
    running = runfile.Running(os.getpid(), [], None, "key")
    runfile.write(runfile.path_for("here", os.environ), running)
    told = tell_instance("here", "c", "does it", "Restart it.")
    told.show()
    assert told.follows is False
    assert "the running instance could not be told: the admin listener is off" in capsys.readouterr().err


# -- the terminal


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where a test types; standard input is the other end."""
    ours, theirs = os.pipe()
    with os.fdopen(ours) as reading:
        monkeypatch.setattr(sys, "stdin", reading)
        yield theirs


async def test_lines_that_are_typed_come_one_by_one(keyboard: int) -> None:
    """Also the last one without an end, and then the end."""
    terminal = Terminal({}, browser=False)
    assert (terminal.can_paste, terminal.has_browser) == (True, False)
    os.write(keyboard, b"http://127.0.0.1/callback?code=a\nsec\xff")
    assert await terminal.paste() == "http://127.0.0.1/callback?code=a"
    os.close(keyboard)
    assert await terminal.paste() == "sec�"
    assert await terminal.paste() is None


@pytest.mark.parametrize("browser", [True, False])
async def test_a_standard_input_that_is_closed_is_no_keyboard(
    monkeypatch: pytest.MonkeyPatch, *, browser: bool
) -> None:
    """As under `<&-`: nobody pastes there."""
    closed = io.StringIO()
    closed.close()
    for stdin in (None, closed):
        monkeypatch.setattr(sys, "stdin", stdin)
        terminal = Terminal({}, browser=browser)
        assert not terminal.can_paste
        assert await terminal.paste() is None


def test_a_login_without_a_standard_input_says_what_is_missing(tmp_path: Path) -> None:
    """The real program under `<&-`."""
    path = tmp_path / "config.yaml"
    store = {"kind": "file", "path": str(tmp_path / "store"), "key": {"env": "STORE_KEY"}}
    document = {"upstream": "https://api.example.com", "credential": _person(), "store": store}
    path.write_text(yaml.safe_dump(document))
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STORE_KEY": key}
    command = [sys.executable, "-m", "proxy", "login", "--no-browser", "-c", str(path)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "neither one nor a terminal here" in done.stderr) == (1, True), done.stderr


async def test_a_login_that_is_over_does_not_wait_for_the_keyboard(keyboard: int) -> None:
    """The line that comes then is nobody's."""
    reading = asyncio.create_task(Terminal({}, browser=False).paste())
    await asyncio.sleep(0)
    reading.cancel()
    os.write(keyboard, b"late\n")
    os.close(keyboard)
    with pytest.raises(asyncio.CancelledError):
        await reading
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("keyboard"):
            await asyncio.to_thread(thread.join, 5)


@pytest.mark.parametrize("display", ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"])
def test_a_browser_is_opened_where_it_can_show_itself(
    keyboard: int, monkeypatch: pytest.MonkeyPatch, display: str
) -> None:
    """In the background, and not where it is not wanted."""
    os.close(keyboard)
    monkeypatch.setattr(sys, "platform", "linux")
    terminal = Terminal({display: ":0"}, browser=True)
    assert (terminal.has_browser, terminal.can_paste) == (True, False)
    assert not Terminal({display: ":0"}, browser=False).has_browser
    assert not Terminal({display: ""}, browser=True).has_browser
    opened: list[str] = []
    is_open = threading.Event()

    def browse(url: str) -> None:
        opened.append(url)
        is_open.set()

    monkeypatch.setattr("webbrowser.open", browse)
    terminal.open("https://id.example.com/")
    assert is_open.wait(5)
    assert opened == ["https://id.example.com/"]
