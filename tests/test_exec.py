"""`exec`: a program with a proxy of its own. Real processes, and for Ctrl-C a real terminal."""

import asyncio
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web

from proxy.cli.exec import beside_a_program, exported
from proxy.config import Config, Source, TcpAddress, load
from tests.support.api import Seen, api
from tests.support.client import connected
from tests.support.leaks import Artefacts, Canaries

ROOT: Final = Path(__file__).parents[1]
#: Ends a hang, on a busy machine, too.
DEADLINE: Final = 60.0
FREE: Final = "127.0.0.1:0"
KEY: Final = "client-key-of-the-tests"
#: What a program finds: variables, masks of signals, its limit of open files, descriptors and what listens there.
LOOK: Final = """
import json, os, resource, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
with os.scandir("/proc/self/fd") as found:
    there = {int(each.name): os.readlink(each.path) for each in found if os.path.lexists(each.path)}
def listens(number):
    with socket.socket(fileno=os.dup(number)) as found:
        return found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
print(json.dumps({
    "environ": dict(os.environ),
    "blocked": int(status["SigBlk"], 16),
    "ignored": int(status["SigIgn"], 16),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "open": list(there),
    "listens": [number for number, where in there.items() if where.startswith("socket:") and listens(number)],
}))
"""
#: Says which signals come to it, each as soon as it does; SIGTERM ends it with 5.
HEAR: Final = """
import signal, sys
heard = {getattr(signal, f"SIG{each}") for each in "HUP INT QUIT USR1 USR2 ALRM TERM".split()}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
print("ready", flush=True)
while (number := signal.sigwait(heard)) != signal.SIGTERM:
    print(number.name, flush=True)
sys.exit(5)
"""


def python(program: str) -> tuple[str, ...]:
    """A command that runs this text and starts fast."""
    return (sys.executable, "-I", "-S", "-c", program)


@dataclass
class Running:
    """`bearer-proxy exec` on its way; what it says is searched for canaries."""

    process: asyncio.subprocess.Process
    artefacts: Artefacts

    async def line(self, stream: asyncio.StreamReader | None, word: str = "") -> str:
        """The next line with this word."""
        assert stream is not None
        async with asyncio.timeout(DEADLINE):
            while line := (await stream.readline()).decode():
                self.artefacts.add("output", line)
                if word in line:
                    return line.strip()
        raise AssertionError(f"it ended without a line with {word!r}")

    async def end(self) -> tuple[int, str, str]:
        """Its status, and what it still says on both streams."""
        async with asyncio.timeout(DEADLINE):
            out, err = [said or b"" for said in await self.process.communicate()]
        self.artefacts.add("output", out)
        self.artefacts.add("output", err)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@dataclass
class Folder:
    """Where the program is started, and with which variables."""

    path: Path
    artefacts: Artefacts
    variables: dict[str, str]

    def config(self, document: Mapping[str, Any]) -> Path:
        """Write a configuration whose addresses are taken: it must not use them."""
        path = self.path / "config.yaml"
        path.write_text(yaml.safe_dump(dict(document)))
        return path

    @asynccontextmanager
    async def running(self, *arguments: object, by: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Running]:
        """`bearer-proxy exec` with these arguments, started by the program `by`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BEARER_", "XDG_"))}
        own = {"PYTHONPATH": str(ROOT), "HOME": str(self.path), "XDG_RUNTIME_DIR": str(self.path / "run")}
        streams = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        process = await asyncio.create_subprocess_exec(
            *(*by, sys.executable),
            *("-m", "proxy", "exec", *map(str, arguments)),
            cwd=self.path,
            env={**kept, **own, **self.variables},
            **{**streams, **options},
        )
        try:
            yield Running(process, self.artefacts)
        finally:
            if process.returncode is None:
                process.terminate()  # so that the program, which holds the streams, ends as well
            async with asyncio.timeout(DEADLINE):
                await process.communicate()

    async def __call__(self, *arguments: object, **options: Any) -> tuple[int, str, str]:
        """The same to its end."""
        async with self.running(*arguments, **options) as running:
            return await running.end()


@pytest.fixture
def folder(tmp_path: Path, artefacts: Artefacts) -> Folder:
    """An empty folder."""
    return Folder(tmp_path, artefacts, {})


def loaded(document: Mapping[str, Any], **environ: str) -> Config:
    """A configuration."""
    return load(Source(yaml.safe_dump(dict(document)), "test.yaml", None, "test"), environ=environ)


# -- what the program is given


async def test_a_program_finds_the_routes_and_uses_the_token_without_having_it(
    folder: Folder, canaries: Canaries
) -> None:
    """Variables that hold secrets, and the URL of a proxy further out, do not reach it; its output is its own."""
    token = folder.variables["TOKEN"] = canaries.mint()
    folder.variables |= {"BEARER_PROXY_URL": "http://127.0.0.1:1", "OTHER": "stays"}
    async with api() as upstream, api() as other:
        config = folder.config(
            {
                "listen": other.url.removeprefix("http://"),
                "routes": [
                    {"prefix": "/my-billing", "upstream": f"{upstream.url}/v2", "credential": "a"},
                    {"prefix": "/crm", "upstream": upstream.url},
                ],
                "credentials": {"a": {"type": "static", "token": {"env": "TOKEN"}}},
                "exec": {"env": {"API_BASE_URL": "my-billing"}},
            }
        )
        program = "curl --silent $API_BASE_URL/invoices; echo; env; exit 7"
        status, out, err = await folder("-c", config, "--", "sh", "-c", program)
        assert [(seen.target, seen.all("authorization")) for seen in upstream.seen] == [
            ("/v2/invoices", [f"Bearer {token}"])
        ]
    assert (status, err) == (7, "")
    body, *lines = out.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    base = found["BEARER_PROXY_URL_MY_BILLING"]
    assert body == "fine"
    assert (found["API_BASE_URL"], found["OTHER"]) == (base, "stays")
    assert found["BEARER_PROXY_URL_CRM"] == base.replace("/my-billing", "/crm")
    assert found.keys() & {"TOKEN", "BEARER_PROXY_URL"} == set()
    # Nor does it stand in the way of an instance of the same configuration.
    assert not (folder.path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="this machine has no /proc/PID/status")
async def test_a_program_has_what_it_would_have_without_the_proxy(folder: Folder, canaries: Canaries) -> None:
    """Signals as they were ignored (nohup), none blocked, the limit of open files, and descriptors of the shell."""
    folder.variables["TOKEN"] = canaries.mint()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(soft, 1000)
    ours, theirs = os.pipe()
    as_nohup = f"trap '' HUP; ulimit -Sn {few}; exec \"$@\""
    given = ("--upstream", "http://127.0.0.1:9", "--token-env", "TOKEN")
    found = await folder(*given, *python(LOOK), by=("sh", "-c", as_nohup, "sh"), pass_fds=[theirs])
    os.close(ours)
    os.close(theirs)
    assert found[0] == 0, found
    seen = json.loads(found[1])
    assert seen["blocked"] == 0
    assert seen["ignored"] & 1 << signal.SIGHUP - 1
    assert seen["files"] == [few, hard]
    assert {0, 1, 2, theirs} <= set(seen["open"])
    assert seen["listens"] == []
    assert seen["environ"]["BEARER_PROXY_URL"] == seen["environ"]["BEARER_PROXY_URL_DEFAULT"]


ROUTES: Final = [
    {"prefix": "/a", "upstream": "http://127.0.0.1:9"},
    {"name": "b.2", "prefix": "/b/c", "upstream": "http://127.0.0.1:9"},
]
GUARD: Final = {"client_keys": {"reader": {"key": {"env": "READER"}, "paths": ["/b/*"]}}}


@pytest.mark.parametrize(
    ("document", "urls"),
    [
        ({"upstream": "http://127.0.0.1:9"}, {"": "", "_DEFAULT": ""}),
        ({"routes": ROUTES[:1]}, {"": "/a", "_A": "/a"}),
        ({"routes": ROUTES}, {"_A": "/a", "_B_2": "/b/c"}),
        ({"routes": [*ROUTES[:1], {**ROUTES[1], "prefix": "/"}]}, {"": "", "_A": "/a", "_B_2": ""}),
        (
            {"upstream": "http://127.0.0.1:9", "guard": {"client_key": {"env": "SHARED"}}},
            {"": f"/~{KEY}", "_DEFAULT": f"/~{KEY}"},
        ),
        (
            {"routes": ROUTES, "guard": {"client_key": {"env": "SHARED"}, **GUARD}},
            {"_A": f"/~{KEY}/a", "_B_2": f"/~{KEY}/b/c"},
        ),
    ],
)
def test_a_url_has_prefix_and_client_key_and_no_slash_at_its_end(
    document: dict[str, Any], urls: dict[str, str]
) -> None:
    """By the route's name in capitals; the one that is meant before others is at `/`, or the only one."""
    found = exported(loaded(document, SHARED=KEY, READER=f"{KEY}-2"), 4711)
    assert found == {f"BEARER_PROXY_URL{name}": f"http://127.0.0.1:4711{path}" for name, path in urls.items()}


def test_the_key_in_a_url_is_one_that_is_good_there() -> None:
    """Clients with rules of their own: the first that may ask for what is below the prefix."""
    keys = {"other": {"key": {"env": "OTHER"}, "paths": ["/b/*"]}, "reader": {"key": {"env": "READER"}}}
    config = loaded({"routes": ROUTES, "guard": {"client_keys": keys}}, OTHER=KEY, READER=f"{KEY}-2")
    found = exported(config, 1)
    assert found["BEARER_PROXY_URL_A"] == f"http://127.0.0.1:1/~{KEY}-2/a"
    assert found["BEARER_PROXY_URL_B_2"] == f"http://127.0.0.1:1/~{KEY}/b/c"


def test_a_route_of_a_host_is_reached_under_it() -> None:
    """It is the default where it is the only one at `/`, and gives way to one for all hosts."""
    routes = [
        {"host": "crm.localhost", "upstream": "http://127.0.0.1:9"},
        {"host": "::1", "prefix": "/six", "upstream": "http://127.0.0.1:9"},
    ]
    found = exported(loaded({"routes": routes}), 1)
    assert found["BEARER_PROXY_URL"] == found["BEARER_PROXY_URL_CRM_LOCALHOST"] == "http://crm.localhost:1"
    assert found["BEARER_PROXY_URL_SIX"] == "http://[::1]:1/six"
    both = [*routes, {"name": "all", "prefix": "/", "upstream": "http://127.0.0.1:9"}]
    assert exported(loaded({"routes": both}), 1)["BEARER_PROXY_URL"] == "http://127.0.0.1:1"
    others = [*routes, {"host": "forum.localhost", "upstream": "http://127.0.0.1:9"}]
    assert "BEARER_PROXY_URL" not in exported(loaded({"routes": others}), 1)


@pytest.mark.parametrize(
    ("log", "level", "access"),
    [
        ({}, "warning", False),
        ({"format": "json"}, "warning", False),
        ({"access": True}, "warning", True),
        ({"level": "info"}, "info", True),
        ({"level": "error", "access": False}, "error", False),
    ],
)
def test_the_log_is_quiet_unless_the_configuration_says_otherwise(
    log: dict[str, Any], level: str, *, access: bool
) -> None:
    """So that the program's own output stays legible; the format is kept."""
    found = beside_a_program(loaded({"upstream": "http://127.0.0.1:9", "log": log})).log
    assert (found.level, found.access, found.format) == (level, access, log.get("format", "text"))


def test_it_listens_on_free_ports_of_loopback_and_lets_its_own_user_in() -> None:
    """Whatever the configuration says of `listen`, and whoever else may connect."""
    document = {
        "upstream": "http://127.0.0.1:9",
        "listen": "unix:/run/p.sock",
        "admin": {"listen": "127.0.0.2:8081"},
        "guard": {"peers": {"uids": [4711]}},
    }
    found = beside_a_program(loaded(document))
    assert found.listen == (TcpAddress("127.0.0.1", 0),)
    assert found.admin.listen == TcpAddress("127.0.0.2", 0)
    assert found.guard.peers.uids == ("self", 4711)
    off = beside_a_program(loaded({"upstream": "http://127.0.0.1:9", "admin": {"listen": None}}))
    assert off.admin.listen is None


# -- how it ends


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        (["./not-there"], 127, "./not-there cannot be started: No such file or directory\n"),
        (["./plain"], 126, "./plain cannot be started: Permission denied\n"),
    ],
)
async def test_the_status_is_what_a_shell_would_say(
    folder: Folder, canaries: Canaries, command: list[str], status: int, said: str
) -> None:
    """128 and the number of a signal; 127 not there; 126 not executable."""
    folder.variables["TOKEN"] = canaries.mint()
    (folder.path / "plain").touch(mode=stat.S_IRUSR)
    given = ("--upstream", "http://127.0.0.1:9", "--token-env", "TOKEN")
    assert await folder(*given, "--", *command) == (status, "", said)


async def test_with_a_wrong_configuration_the_program_is_not_started(folder: Folder) -> None:
    """Status 2, and what is wrong."""
    config = folder.config({"upstream": "http://127.0.0.1:9", "listn": 1})
    status, out, err = await folder("-c", config, "--", "touch", "there")
    assert (status, out) == (2, "")
    assert "listn: unknown key" in err
    assert not (folder.path / "there").exists()


@pytest.mark.parametrize(("signals", "answer"), [(1, "late"), (2, "")])
async def test_what_a_program_leaves_in_flight_is_answered(folder: Folder, signals: int, answer: str) -> None:
    """The proxy drains when the program has ended; a second signal means now, as with `run`."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await release.wait()
        return web.Response(text="late")

    async with api(slow) as upstream:
        config = folder.config({"upstream": upstream.url, "log": {"level": "info", "access": False}})
        # The shell ends when the request is there.
        program = "curl --silent $BEARER_PROXY_URL/ & read go; exit 3"
        async with folder.running(
            "-c", config, "--", "sh", "-c", program, stdin=asyncio.subprocess.PIPE
        ) as running:
            async with asyncio.timeout(DEADLINE):
                await arrived.wait()
            assert running.process.stdin is not None
            running.process.stdin.write(b"go\n")
            await running.line(running.process.stderr, "draining")
            # Two of one kind at once would be one.
            for number in (signal.SIGTERM, signal.SIGINT)[:signals]:
                running.process.send_signal(number)
            if signals > 1:
                await running.line(running.process.stderr, "at once")
            release.set()
            status, out, err = await running.end()
    assert (status, out) == (3, answer)
    assert signals > 1 or "stopped" in err


async def test_quit_on_the_admin_listener_ends_the_program_first(folder: Folder, canaries: Canaries) -> None:
    """By SIGTERM; its status counts. Where the admin listener is, the log says at level info."""
    folder.variables["ADMIN_KEY"] = canaries.mint()
    admin = {"key": {"env": "ADMIN_KEY"}}
    config = folder.config({"upstream": "http://127.0.0.1:9", "admin": admin, "log": {"level": "info"}})
    async with folder.running("-c", config, "--", *python(HEAR)) as running:
        url = (await running.line(running.process.stderr, "admin_listening")).rpartition("url=")[2]
        assert await running.line(running.process.stdout) == "ready"
        async with connected(url, folder.artefacts) as client:
            bearer = ("Authorization", f"Bearer {folder.variables['ADMIN_KEY']}")
            assert (await client.ask("POST", "/quit", [bearer], b"")).status == 202
        assert (await running.end())[:2] == (5, "")


# -- signals


async def test_signals_are_passed_on_once_and_the_proxy_outlives_the_program(
    folder: Folder, canaries: Canaries
) -> None:
    """Each of them, to the proxy alone; none ends the proxy."""
    folder.variables["TOKEN"] = canaries.mint()
    given = ("--upstream", "http://127.0.0.1:9", "--token-env", "TOKEN")
    async with folder.running(*given, "--", *python(HEAR)) as running:
        assert await running.line(running.process.stdout) == "ready"
        for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM"):
            running.process.send_signal(signal.Signals[name])
            assert await running.line(running.process.stdout) == name
        running.process.send_signal(signal.SIGTERM)
        assert await running.end() == (5, "", "")


async def test_what_is_ignored_is_not_passed_on(folder: Folder, canaries: Canaries) -> None:
    """As nohup wants it: neither the proxy nor the program is told."""
    folder.variables["TOKEN"] = canaries.mint()
    given = ("--upstream", "http://127.0.0.1:9", "--token-env", "TOKEN")
    as_nohup = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    async with folder.running(*given, "--", *python(HEAR), by=as_nohup) as running:
        assert await running.line(running.process.stdout) == "ready"
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            running.process.send_signal(number)
            if number == signal.SIGUSR1:
                assert await running.line(running.process.stdout) == "SIGUSR1"
        assert await running.end() == (5, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="this machine's system does not say who sent a signal")
async def test_ctrl_c_reaches_the_program_once(folder: Folder, canaries: Canaries) -> None:
    """The terminal sends it to both of them; what is sent to the proxy afterwards is passed on."""
    folder.variables["TOKEN"] = canaries.mint()
    given = ("--upstream", "http://127.0.0.1:9", "--token-env", "TOKEN")
    terminal, theirs = os.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    shown, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    loop.add_reader(terminal, lambda: shown.feed_data(os.read(terminal, 4096)))
    in_session = ("setsid", "--ctty")
    async with folder.running(*given, "--", *python(HEAR), by=in_session, **streams) as running:
        assert await running.line(shown, "ready")
        # The proxy stands still meanwhile: a second one would else become one with the first.
        running.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, running.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        os.write(terminal, b"\x03")
        assert (await running.line(shown)).endswith("SIGINT")
        running.process.send_signal(signal.SIGCONT)
        running.process.send_signal(signal.SIGUSR1)
        assert await running.line(shown) == "SIGUSR1"
        running.process.send_signal(signal.SIGTERM)
        assert (await running.end())[0] == 5
    loop.remove_reader(terminal)
    os.close(terminal)
    os.close(theirs)
