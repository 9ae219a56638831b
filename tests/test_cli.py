"""The command line as people and scripts use it: the real program, started, asked and ended."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, chdir, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner

from proxy import __version__
from proxy.cli import main
from proxy.cli.table import duration, lines
from proxy.config.presets import presets as all_presets
from proxy.config.presettext import starter
from proxy.demo.teletracker import TeleTracker
from tests.support.api import Api, Seen, api
from tests.support.client import connected
from tests.support.leaks import Artefacts, Canaries
from tests.support.vendors import Vendor

ROOT = Path(__file__).parent.parent
DEBUGGING: Final = ROOT / "docs/debugging.md"
#: No step of a test takes this long; a hang becomes a failure.
DEADLINE = 20.0
FREE = "127.0.0.1:0"


@dataclass
class Ended:
    """A program that has ended."""

    status: int
    out: str
    err: str


@dataclass
class Program:
    """A running `bearer-proxy run`: its log lines so far, and what it is reached by."""

    process: asyncio.subprocess.Process
    artefacts: Artefacts
    err: list[str] = field(default_factory=list)
    url: str = ""

    async def line(self, word: str) -> str:
        """The next line of standard error that holds `word`; fails where the program ends before."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            while line := (await self.process.stderr.readline()).decode():
                self.err.append(line)
                if word in line:
                    return line
        raise AssertionError(f"no line with {word!r} in: {''.join(self.err)}")

    async def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Send a signal (None: nothing), wait for the end; gives the exit status."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            out, err = await self.process.communicate()
        self.err.append(err.decode())
        self.artefacts.add("standard output", out or b"")
        self.artefacts.add("standard error", "".join(self.err))
        assert self.process.returncode is not None
        return self.process.returncode

    def client(self) -> Any:
        """A connection: `async with program.client() as client`."""
        return connected(self.url, self.artefacts)


@dataclass
class Command:
    """Starts the program in a folder of its own, with variables of its own."""

    folder: Path
    artefacts: Artefacts
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the test run that say nothing of a configuration, and those of the test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BEARER_", "XDG_"))}
        own = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder / "runtime"),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        return {**kept, **own, **self.variables}

    def config(self, document: Mapping[str, Any], name: str = "config.yaml") -> Path:
        """Write a configuration with free ports."""
        path = self.folder / name
        path.write_text(yaml.safe_dump({"listen": FREE, "admin": {"listen": FREE}, **document}))
        return path

    def at_import(self, module: str, program: str) -> None:
        """Have the interpreter run `program` as it is about to import `module`."""
        (self.folder / "sitecustomize.py").write_text(
            "import os, signal, sys\n"
            "class Finder:\n"
            "    def find_spec(self, name, *_):\n"
            f"        if name == {module!r}:\n"
            f"            {program}\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        self.variables["PYTHONPATH"] = f"{self.folder}{os.pathsep}{ROOT}"

    async def start(self, *arguments: object, stdin: bytes = b"", **streams: Any) -> asyncio.subprocess.Process:
        """Start `bearer-proxy` with these arguments."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "proxy", *map(str, arguments)),
            cwd=self.folder,
            env=self.environ,
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    async def __call__(self, *arguments: object, stdin: bytes = b"") -> Ended:
        """Run `bearer-proxy` with these arguments to its end."""
        async with asyncio.timeout(DEADLINE):
            process = await self.start(*arguments, stdin=stdin)
            out, err = await process.communicate()
        self.artefacts.add("standard output", out)
        self.artefacts.add("standard error", err)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    def inside(self, *arguments: object) -> Ended:
        """The same in this process, for what starts nothing and does not log."""
        with chdir(self.folder):
            result = CliRunner(env={**self.environ}).invoke(main, [*map(str, arguments)])
        self.artefacts.add("output", result.output)
        return Ended(result.exit_code, result.stdout, result.stderr)

    @asynccontextmanager
    async def running(self, *arguments: object, **options: Any) -> AsyncIterator[Program]:
        """`bearer-proxy run` with these arguments, from its `listening` line to its end."""
        program = Program(await self.start("run", *arguments, **options), self.artefacts)
        try:
            line = await program.line("listening")
            program.url = line.rpartition("url=")[2].strip() if "url=" in line else json.loads(line)["url"]
            yield program
        finally:
            if program.process.returncode is None:
                program.process.kill()
            await program.process.communicate()


@pytest.fixture
def command(tmp_path: Path, artefacts: Artefacts) -> Command:
    """The program; all that it leaves in its folder is searched for canaries."""
    artefacts.watch_tree(tmp_path / "state")
    return Command(tmp_path, artefacts)


def short(upstream: Api, **more: Any) -> dict[str, Any]:
    """One upstream and one token, which $TOKEN holds."""
    return {"upstream": upstream.url, "credential": {"type": "static", "token": {"env": "TOKEN"}}, **more}


class Held:
    """An upstream's answer that waits: `arrived` is set with the request, `release` lets it go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, _seen: Seen) -> web.StreamResponse:
        """Answer once it is released."""
        self.arrived.set()
        await self.release.wait()
        return web.Response(text="late")


# -- run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_serves_until_it_is_told_to_end(
    command: Command, canaries: Canaries, number: signal.Signals
) -> None:
    """The token reaches the upstream, the run file is there meanwhile and private, the exit status is 0."""
    command.variables["TOKEN"] = token = canaries.mint()
    async with api() as upstream, command.running("-c", command.config(short(upstream))) as program:
        async with program.client() as client:
            assert (await client.ask("GET", "/")).body == b"fine"
        assert upstream.seen[0].all("authorization") == [f"Bearer {token}"]
        [path] = (command.folder / "runtime" / "bearer-proxy").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        document = json.loads(path.read_text())
        canaries.adopt(document.pop("admin_key"), "admin key")
        admin_url = document.pop("admin_url")
        assert document == {"pid": program.process.pid, "urls": [program.url]}
        async with connected(admin_url, command.artefacts) as client:
            assert (await client.ask("GET", "/readyz")).status == 200
        assert await program.end(number) == 0
        assert not path.exists()
        log = "".join(program.err)
        assert log.index(" request GET / 200 ") < log.index(" draining") < log.index(" stopped")


@pytest.mark.threat(124)
@pytest.mark.skipif(sys.platform != "linux", reason="this machine's system gives the last one all connections")
async def test_two_instances_share_a_port(command: Command) -> None:
    """Each gets some of the connections, and when one has ended the other gets all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    async with api() as upstream:
        document = {"upstream": upstream.url, "listen": {"tcp": listen, "reuse_port": True}}
        configs = [command.config(document, f"{number}.yaml") for number in (1, 2)]
        async with command.running("-c", configs[0]) as one, command.running("-c", configs[1]) as two:
            assert one.url == two.url == f"http://{listen}"
            served = [asyncio.create_task(each.line(" request GET / 200 ")) for each in (one, two)]
            async with asyncio.timeout(DEADLINE):
                while not all(each.done() for each in served):
                    async with one.client() as client:
                        assert (await client.ask("GET", "/")).body == b"fine"
            assert await one.end() == 0
            async with two.client() as client:
                assert (await client.ask("GET", "/")).body == b"fine"
            assert await two.end() == 0


@pytest.mark.threat(122)
async def test_a_signal_lets_a_request_in_flight_end(command: Command) -> None:
    """Meanwhile no new connection is taken, and `healthcheck` says that it drains."""
    held = Held()
    async with api(held) as upstream:
        config = command.config({"upstream": upstream.url})
        async with command.running("-c", config) as program, program.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await held.arrived.wait()
            program.process.send_signal(signal.SIGTERM)
            await program.line("draining")
            health = await command("healthcheck", "-c", config)
            assert (health.status, health.err) == (1, "not ready: it is draining\n")
            with pytest.raises(ConnectionRefusedError):
                async with program.client():
                    pass
            held.release.set()
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"late", True)
            assert await program.end(None) == 0


async def test_quit_on_the_admin_listener_drains_and_ends(command: Command, canaries: Canaries) -> None:
    """As SIGTERM does, with 0; the answer comes before."""
    command.variables["ADMIN_KEY"] = canaries.mint()
    held = Held()
    async with api(held) as upstream:
        admin = {"listen": FREE, "key": {"env": "ADMIN_KEY"}}
        config = command.config({"upstream": upstream.url, "admin": admin})
        async with command.running("-c", config) as program, program.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await held.arrived.wait()
            [path] = (command.folder / "runtime" / "bearer-proxy").iterdir()
            async with connected(json.loads(path.read_text())["admin_url"], command.artefacts) as office:
                bearer = ("Authorization", f"Bearer {command.variables['ADMIN_KEY']}")
                answer = await office.ask("POST", "/quit", [bearer], b"")
            assert (answer.status, answer.json()) == (202, {"draining": True})
            await program.line("draining")
            held.release.set()
            assert (await client.answer()).body == b"late"
            assert await program.end(None) == 0


@pytest.mark.threat(122)
async def test_a_second_signal_ends_at_once(command: Command) -> None:
    """The upstream never answers and the drain would take its 25 s; the socket and the run file are gone."""
    held = Held()
    door = command.folder / "p.sock"
    async with api(held) as upstream:
        config = command.config({"upstream": upstream.url, "listen": f"unix:{door}"})
        async with command.running("-c", config) as program, program.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await held.arrived.wait()
            program.process.send_signal(signal.SIGTERM)
            await program.line("draining")
            assert await program.end(signal.SIGTERM) == 0
            assert await client.at_end()
            assert "at once" in program.err[-1]
            assert not door.exists()
            assert not list((command.folder / "runtime" / "bearer-proxy").iterdir())
        held.release.set()


@pytest.mark.parametrize("imported", ["proxy.cli", "proxy.server"])
async def test_a_sighup_during_the_start_is_remembered(command: Command, imported: str) -> None:
    """From before anything of weight is imported: it ends nothing, and is followed once the proxy serves."""
    command.at_import(imported, "os.kill(os.getpid(), signal.SIGHUP)")
    async with api() as upstream, command.running("-c", command.config({"upstream": upstream.url})) as program:
        await program.line("reloaded changed=nothing")
        async with program.client() as client:
            assert (await client.ask("GET", "/")).status == 200
        assert await program.end() == 0


async def test_a_sighup_at_the_end_changes_no_status(command: Command) -> None:
    """Up to the interpreter's own end: whoever asks for both gets 0."""
    async with command.running("-c", command.config({"upstream": "http://127.0.0.1:9"})) as program:
        ending = asyncio.create_task(program.end())
        while not ending.done():
            with suppress(ProcessLookupError):
                program.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0)
        assert await ending == 0


async def test_a_hang_up_ends_exec_before_its_program_starts(command: Command) -> None:
    """There is nobody left to serve: the terminal is gone."""
    command.at_import("proxy.server", "os.kill(os.getpid(), signal.SIGHUP)")
    config = command.config({"upstream": "http://127.0.0.1:9"})
    ended = await command("exec", "-c", config, "--", "echo", "started")
    assert (ended.status, ended.out) == (-signal.SIGHUP, "")


async def test_sighup_reads_the_file_again(command: Command) -> None:
    """In the place of the one before; what cannot be used is told, and the program serves on."""
    async with api() as upstream:
        config = command.config({"upstream": upstream.url})
        async with command.running("-c", config) as program:
            for text, told in (
                (config.read_text(), "reloaded changed=nothing"),
                ("upstream: [", "reload_refused problems=1"),
                (f"{config.read_text()}limits: {{idle: 5}}", "reloaded changed=limits"),
            ):
                config.write_text(text)
                program.process.send_signal(signal.SIGHUP)
                assert told in await program.line("reload")
                async with program.client() as client:
                    assert (await client.ask("GET", "/")).status == 200
            assert await program.end() == 0


@pytest.mark.parametrize("way", ["BEARER_PROXY_CONFIG_YAML", "command line"])
async def test_sighup_is_refused_where_the_configuration_is_in_no_file(command: Command, way: str) -> None:
    """It says so, and serves on."""
    command.variables["TOKEN"] = "a-token-of-nobody"
    async with api() as upstream:
        quick: list[object] = ["--upstream", upstream.url, "--token-env", "TOKEN", "--listen", FREE]
        if way != "command line":
            command.variables[way] = yaml.safe_dump({"listen": FREE, "upstream": upstream.url})
            quick = []
        async with command.running(*quick) as program:
            program.process.send_signal(signal.SIGHUP)
            assert f"{way} cannot be read again" in await program.line("reload_refused")
            async with program.client() as client:
                assert (await client.ask("GET", "/")).status == 200
            assert await program.end() == 0


@pytest.mark.parametrize("way", ["env", "file", "stdin"])
async def test_the_quick_form_needs_no_file(command: Command, canaries: Canaries, way: str) -> None:
    """The token comes by name, from a file or on standard input, never as an argument."""
    token = canaries.mint()
    command.variables["TOKEN"] = token if way == "env" else ""
    path = command.folder / "token"
    path.touch(mode=0o600)
    path.write_text(f"{token}\n" if way == "file" else "")
    option: dict[str, list[object]] = {
        "env": ["--token-env", "TOKEN"],
        "file": ["--token-file", path],
        "stdin": ["--token-stdin"],
    }
    stdin = f"{token}\n".encode() if way == "stdin" else b""
    async with (
        api() as upstream,
        command.running("--upstream", upstream.url, *option[way], "--listen", FREE, stdin=stdin) as program,
    ):
        async with program.client() as client:
            assert (await client.ask("GET", "/")).status == 200
        assert upstream.seen[0].all("authorization") == [f"Bearer {token}"]
        assert (await command("healthcheck")).status == 0
        assert await program.end() == 0


@pytest.mark.threat(16)
async def test_a_unix_socket_is_private_and_goes_away(command: Command) -> None:
    """Mode 0600 while it is there."""
    door = command.folder / "p.sock"
    config = {"listen": f"unix:{door}"}
    async with (
        api() as upstream,
        command.running("-c", command.config({"upstream": upstream.url, **config})) as program,
    ):
        assert program.url == f"unix:{door}"
        assert stat.S_IMODE(door.stat().st_mode) == 0o600
        async with program.client() as client:
            assert (await client.ask("GET", "/")).status == 200
        assert await program.end() == 0
        assert not door.exists()


async def test_the_log_is_json_from_its_first_line(command: Command) -> None:
    """Also the warnings of the configuration, which come before anything listens."""
    config = {
        "log": {"format": "json"},
        "routes": [{"prefix": "/", "upstream": "http://127.0.0.1:9"}],
        "credentials": {"idle": {"type": "static", "token": {"env": "TOKEN"}}},
    }
    command.variables["TOKEN"] = "0123456789abcdef"
    async with command.running("-c", command.config(config)) as program:
        assert await program.end() == 0
        events = [json.loads(line) for line in "".join(program.err).splitlines()]
        root = ["running_as_root"] if os.geteuid() == 0 else []
        assert [each["event"] for each in events] == ["config_warning", "listening", *root, "draining", "stopped"]
        assert "no route uses this credential" in events[0]["detail"]


async def test_a_run_file_that_cannot_be_written_is_a_warning(command: Command) -> None:
    """The proxy serves all the same; only `token` and `healthcheck` will not find it."""
    (command.folder / "file").touch()
    command.variables["XDG_RUNTIME_DIR"] = str(command.folder / "file")
    async with api() as upstream, command.running("-c", command.config({"upstream": upstream.url})) as program:
        assert "set XDG_RUNTIME_DIR" in await program.line("run_file_failed")
        async with program.client() as client:
            assert (await client.ask("GET", "/")).status == 200
        assert await program.end() == 0


async def test_a_terminal_is_shown_where_to_go(command: Command) -> None:
    """The URLs of both listeners, and that of the inspector with its key, which no log has."""
    ours, theirs = os.openpty()
    config = command.config({"upstream": "http://127.0.0.1:9"})
    async with command.running("-c", config, stdout=theirs) as program:
        assert await program.end() == 0
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert f"listens on {program.url}" in shown
    assert "/readyz" in shown
    [key] = re.findall(r"inspector: http://127\.0\.0\.1:\d+/\?key=([A-Za-z0-9_-]{32})\r\n", shown)
    assert key not in "".join(program.err)


async def test_a_taken_address_is_a_failure_at_run_time(command: Command) -> None:
    """One sentence, exit 1; nothing else is left open."""
    async with api() as upstream:
        taken = upstream.url.removeprefix("http://")
        config = command.config({"upstream": "http://127.0.0.1:9", "listen": [FREE, taken]})
        ended = await command("run", "-c", config)
    assert ended.status == 1
    assert ended.err.startswith(f"cannot listen on {taken}: another process listens there")
    assert ended.err.count("\n") == 1


# -- wrong usage and wrong configurations


QUICK = ["run", "--upstream", "http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["run", "--nonsense"], "No such option"),
        (["run", "--token", "x"], "No such option"),
        (["run", "--token-env", "TOKEN"], "go with --upstream"),
        (["run", "--token-stdin"], "go with --upstream"),
        (["run", "--listen", FREE], "go with --upstream"),
        ([*QUICK, "-c", "config.yaml"], "either --config or --upstream"),
        (QUICK, "one of --token-env NAME, --token-file PATH and --token-stdin"),
        ([*QUICK, "--token-env", "NOT_SET"], "NOT_SET"),
        ([*QUICK, "--token-env", "A", "--token-stdin"], "one of --token-env NAME"),
        (["run"], "there is no configuration"),
        (["check", "-c", "missing.yaml"], "missing.yaml: this file does not exist"),
        (["presets", "telletracker"], "did you mean teletracker"),
    ],
)
async def test_wrong_usage_is_told_and_is_status_2(command: Command, arguments: list[str], sentence: str) -> None:
    """What was wrong and what to write instead; no traceback, nothing on standard output."""
    ended = await command(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert sentence in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.threat(127)
@pytest.mark.parametrize("name", ["run", "check"])
async def test_all_problems_of_a_configuration_are_told_one_a_line(command: Command, name: str) -> None:
    """With file and line, and without starting anything."""
    path = command.folder / "config.yaml"
    path.write_text("listn: 127.0.0.1:1\nupstream: ftp://x\n")
    ended = await command(name, "-c", "config.yaml")
    assert (ended.status, ended.out) == (2, "")
    first, second = ended.err.splitlines()
    assert first.startswith("config.yaml:1: listn: unknown key, did you mean listen?")
    assert second.startswith("config.yaml:2: upstream: ")


async def test_without_a_home_it_says_what_to_set(command: Command) -> None:
    """There must be a place for state."""
    command.variables.update(HOME="", XDG_STATE_HOME="")
    ended = await command("check", "-c", command.config({"upstream": "http://127.0.0.1:9"}))
    assert ended.status == 2
    assert "set one" in ended.err


# -- check, presets, schema, help


@pytest.mark.threat(84)
async def test_check_shows_what_is_in_effect_without_secrets(command: Command, canaries: Canaries) -> None:
    """The configuration goes to standard output and can be read back; warnings go to standard error."""
    command.variables["TOKEN"] = canaries.mint()
    unused = {"type": "static", "token": {"env": "TOKEN"}}
    document = {"routes": [{"prefix": "/", "upstream": "http://127.0.0.1:9"}], "credentials": {"idle": unused}}
    config = command.config(document)
    ended = await command("check", "-c", config)
    assert ended.status == 0
    shown = yaml.safe_load(ended.out)
    assert shown["credentials"]["idle"]["token"] == {"env": "TOKEN"}
    assert shown["limits"]["connections"] == 1000
    [warning] = ended.err.splitlines()
    assert warning.startswith(f"warning: {config}:")
    scripted = await command("check", "-c", config, "--json")
    assert (scripted.status, scripted.err) == (0, "")
    assert json.loads(scripted.out) == {
        "ok": True,
        "problems": [],
        "warnings": [warning.removeprefix("warning: ")],
        "config": shown,
    }
    assert not (command.folder / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["check"], 2), (["doctor"], 2), (["leaktest"], 2), (["explain", "GET", "/"], 2), (["token"], 1)],
)
async def test_scripts_are_told_what_is_wrong(command: Command, arguments: list[str], status: int) -> None:
    """The same sentences as for people in a document, and the same exit status; `token` finds no instance."""
    config = command.config({"upstream": "ftp://x"})
    people, scripts = await command(*arguments, "-c", config), await command(*arguments, "-c", config, "--json")
    assert scripts.status == people.status == status
    assert (people.out, scripts.err) == ("", "")
    found = json.loads(scripts.out)
    assert found == {"ok": False, "problems": people.err.splitlines()}
    assert found["problems"]


async def test_check_finds_what_only_building_shows(command: Command, canaries: Canaries) -> None:
    """A token that cannot stand in a header is known once it is put there; `run` would end with the same."""
    token = command.folder / "token"
    token.touch(mode=0o600)
    token.write_text(f"{canaries.mint()}\n{canaries.mint()}")
    credential = {"type": "static", "token": {"file": str(token)}}
    config = command.config({"upstream": "http://127.0.0.1:9", "credential": credential})
    ended = await command("check", "-c", config)
    assert ended.status == 2
    assert "token" in ended.err


def test_presets_are_listed_and_shown(command: Command) -> None:
    """A list, one of them by its alias, and both as JSON."""
    listed = command.inside("presets")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names == list(all_presets())
    assert {"mainbrainer", "teletracker", "vanilla", "vault"} <= set(names)
    found = json.loads(command.inside("presets", "--json").out)
    assert [each["name"] for each in found] == names
    assert {each["name"]: each["aliases"] for each in found}["mainbrainer"] == ["loyalty-communication"]
    shown = command.inside("presets", "loyalty-communication")
    assert command.inside("presets", "mainbrainer").out == shown.out
    one = json.loads(command.inside("presets", "mainbrainer", "--json").out)
    assert one["config"] == yaml.safe_load(shown.out)
    assert one["config"]["credentials"]["mainbrainer"]["type"] == "login"
    assert {"name", "aliases", "title", "parameters", "config", "facts"} == one.keys()


def test_init_tells_scripts_where_it_wrote_and_what(command: Command) -> None:
    """A document alone; the text is that of the file, which its owner alone reads, and an alias is resolved."""
    ended = command.inside("init", "loyalty-communication", "-o", "new.yaml", "--json")
    assert (ended.status, ended.err) == (0, "")
    written = command.folder / "new.yaml"
    text = starter("mainbrainer")
    assert json.loads(ended.out) == {"ok": True, "preset": "mainbrainer", "path": "new.yaml", "text": text}
    assert (written.read_text(), written.stat().st_mode & 0o777) == (text, 0o600)


def test_init_gives_scripts_the_text_without_a_file(command: Command) -> None:
    """The text that `-o -` prints for people, as it is; no file is written."""
    people, scripts = (command.inside("init", "vanilla", "-o", "-", *more) for more in ([], ["--json"]))
    assert (people.status, scripts.status, scripts.err) == (0, 0, "")
    assert json.loads(scripts.out) == {"ok": True, "preset": "vanilla", "path": None, "text": people.out}
    assert not (command.folder / "bearer-proxy.yaml").exists()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("there.yaml", "there.yaml is there already: name another file with -o PATH"),
        ("none/new.yaml", "none/new.yaml cannot be written (No such file or directory)"),
    ],
)
def test_init_tells_scripts_why_it_wrote_nothing(command: Command, output: str, problem: str) -> None:
    """The sentence for people in a document, with the same exit status; what is there stays as it is."""
    there = command.folder / "there.yaml"
    there.write_text("mine")
    people, scripts = (command.inside("init", "vanilla", "-o", output, *more) for more in ([], ["--json"]))
    assert (people.status, people.out, people.err) == (2, "", f"{problem}\n")
    assert (scripts.status, scripts.err) == (2, "")
    assert json.loads(scripts.out) == {"ok": False, "problems": [problem]}
    assert there.read_text() == "mine"


#: They leave standard output to others: `run` to nobody, `exec` to its program, and a JSON Schema is JSON.
WITHOUT_JSON: Final = {"exec", "run", "schema"}


def test_every_other_command_prints_json_for_scripts() -> None:
    """As the page on debugging says, which names both; a new command has the option or stands there."""
    context = click.Context(main)
    made = {name: main.get_command(context, name) for name in main.list_commands(context)}
    takes = {name for name, each in made.items() if each and any("--json" in given.opts for given in each.params)}
    assert made.keys() - takes == WITHOUT_JSON
    sentence = re.search(r"(`\w+`[^.]*?) print JSON with `--json`(.*?)\(", DEBUGGING.read_text(), re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", "".join(sentence.groups()))) == takes


def test_schema_is_the_json_schema(command: Command) -> None:
    """For editors: of the configuration as it is written."""
    ended = command.inside("schema")
    assert ended.status == 0
    found = json.loads(ended.out)
    assert found["$schema"].startswith("https://json-schema.org/")
    assert {"listen", "upstream", "routes", "credential"} <= found["properties"].keys()


def test_the_version_is_told(command: Command) -> None:
    """That of the package."""
    assert command.inside("--version").out == f"bearer-proxy, version {__version__}\n"


def test_help_lists_every_command(command: Command) -> None:
    """With a sentence that is not cut off, and what to try first."""
    ended = command.inside("--help")
    listed = ended.out.partition("Commands:")[2].split("\n")[1:-1]
    names = ["check", "demo", "doctor", "exec", "explain", "healthcheck", "init", "keygen", "leaktest", "login"]
    names += ["logout", "presets", "run", "schema", "token"]
    assert [line.split()[0] for line in listed] == names
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
    assert "bearer-proxy demo\n" in ended.out


@pytest.mark.parametrize(
    "name",
    [
        "check",
        "demo",
        "doctor",
        "exec",
        "explain",
        "init",
        "keygen",
        "leaktest",
        "login",
        "logout",
        "presets",
        "run",
        "schema",
        "token",
    ],
)
def test_every_command_explains_itself(command: Command, name: str) -> None:
    """Short, with an example."""
    ended = command.inside(name, "-h")
    assert ended.status == 0
    assert f"bearer-proxy {name}" in ended.out.partition("Example")[2]


@pytest.mark.parametrize("arguments", [["check"], ["doctor"], ["explain", "GET", "/a"]])
async def test_what_tries_a_configuration_takes_the_quick_form(
    command: Command, canaries: Canaries, arguments: list[str]
) -> None:
    """The options of `run`, with the same meaning, and refused in the same sentences."""
    command.variables["TOKEN"] = canaries.mint()
    async with api() as upstream:
        quick = ["--upstream", upstream.url, "--token-env", "TOKEN", "--listen", FREE]
        done = await command(*arguments, *quick)
        both = await command(*arguments, *quick, "-c", "config.yaml")
    assert (done.status, done.err) == (0, "")
    assert upstream.url.removeprefix("http://") in done.out
    assert both.status == 2
    assert "either --config or --upstream" in both.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(command: Command, shell: str) -> None:
    """A script by the variable that README names; what it asks then are the names of commands."""
    program = [sys.executable, "-m", "proxy"]
    environ = {**command.environ, "_BEARER_PROXY_COMPLETE": f"{shell}_source"}
    script = subprocess.run(program, env=environ, capture_output=True, text=True, check=True).stdout
    assert f"_BEARER_PROXY_COMPLETE={shell}_complete" in script
    environ |= {"_BEARER_PROXY_COMPLETE": f"{shell}_complete", "COMP_WORDS": "bearer-proxy ex", "COMP_CWORD": "1"}
    environ["COMP_CWORD"] = "ex" if shell == "fish" else "1"
    found = subprocess.run(program, env=environ, capture_output=True, text=True, check=True).stdout
    assert "exec" in found
    assert "explain" in found


PERSON = {
    "type": "oauth2",
    "grant": "device_code",
    "issuer": "https://id.example.com",
    "client_id": "tools",
}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("init github-a", ["github-app"]),
        ("presets teletr", ["teletracker"]),
        ("explain p", ["PATCH", "POST", "PUT"]),
        ("token -c config.yaml p", ["person", "plain"]),
        ("login -c config.yaml p", ["person"]),
        ("logout -c config.yaml pl", ["plain"]),
        ("token ", ["nobody-asks"]),
        ("token -c missing.yaml ", []),
        ("token -c broken.yaml ", []),
    ],
)
async def test_a_shell_completes_names(command: Command, words: str, found: list[str]) -> None:
    """Of presets, methods, credentials; no secret is read, and of what is no configuration nothing is said."""
    secret = {"type": "static", "token": {"command": ["touch", str(command.folder / "run")]}}
    person = {**PERSON, "client_secret": {"env": "NOT_SET"}}
    command.config({"upstream": "https://a.example", "credentials": {"person": person, "plain": secret}})
    command.config({"upstream": "https://a.example", "credentials": {"nobody-asks": secret}}, "bearer-proxy.yaml")
    (command.folder / "broken.yaml").write_text("credentials: [")
    given = words.split(" ")
    command.variables.update(
        _BEARER_PROXY_COMPLETE="bash_complete",
        COMP_WORDS=f"bearer-proxy {words}",
        COMP_CWORD=str(len(given)),
    )
    ended = await command()
    assert ended.err == ""
    assert [line.removeprefix("plain,") for line in ended.out.split()] == found
    assert not (command.folder / "run").exists()


# -- token, healthcheck


async def test_token_shows_and_refreshes_what_runs(command: Command, tracker: Vendor[TeleTracker]) -> None:
    """Before the first token, after a refresh, as a table and as JSON."""
    command.variables.update(tracker.environ)
    config = command.config(tracker.config)
    async with command.running("-c", config) as program:
        before = await command("token", "-c", config)
        assert before.out.splitlines()[1].split() == ["default", "invalid", "0", "no", "token", "yet", "-", "-"]
        refreshed = await command("token", "default", "--refresh", "-c", config)
        row = refreshed.out.splitlines()[1].split()
        assert row[:4] == ["default", "fresh", "1", "59m"]
        assert tracker.double.token_requests == {"login": 1}
        [state] = json.loads((await command("token", "-c", config, "--json")).out)["credentials"]
        assert (state["name"], state["generation"], state["last_error"]) == ("default", 1, None)
        unknown = await command("token", "other", "-c", config)
        assert unknown.status == 2
        assert "write one of default" in unknown.err
        assert await program.end() == 0


async def test_token_tells_why_a_refresh_failed(command: Command, canaries: Canaries) -> None:
    """A fixed token cannot be refreshed; which of several is meant must be said."""
    command.variables["TOKEN"] = canaries.mint()
    static = {"type": "static", "token": {"env": "TOKEN"}}
    routes = [{"prefix": f"/{name}", "upstream": "http://127.0.0.1:9", "credential": name} for name in ("a", "b")]
    config = command.config({"routes": routes, "credentials": {"a": static, "b": static}})
    async with command.running("-c", config) as program:
        failed = await command("token", "a", "--refresh", "-c", config)
        assert (failed.status, failed.out) == (1, "")
        assert failed.err.startswith("Credential 'a' is a fixed token")
        which = await command("token", "--refresh", "-c", config)
        assert which.status == 2
        assert "write one of a, b" in which.err
        assert await program.end() == 0


@pytest.mark.parametrize("arguments", [["token"], ["token", "--refresh"], ["healthcheck"]])
async def test_what_asks_an_instance_says_where_none_runs(command: Command, arguments: list[str]) -> None:
    """Exit 1, and how to start one."""
    ended = await command(*arguments, "-c", "config.yaml")
    assert (ended.status, ended.out) == (1, "")
    assert (
        ended.err
        == f"bearer-proxy is not running with {command.folder}/config.yaml: start it with `bearer-proxy run`\n"
    )


@pytest.mark.parametrize("way", ["option", "variable", "text", "usual place"])
async def test_healthcheck_finds_the_instance_as_run_found_its_configuration(command: Command, way: str) -> None:
    """By option, by variable, by the text in a variable, in the usual place."""
    name = "bearer-proxy.yaml" if way == "usual place" else "other.yaml"
    config = command.config({"upstream": "http://127.0.0.1:9"}, name)
    arguments: list[object] = ["-c", config] if way == "option" else []
    if way == "variable":
        command.variables["BEARER_PROXY_CONFIG"] = str(config)
    elif way == "text":
        command.variables["BEARER_PROXY_CONFIG_YAML"] = config.read_text()
    async with command.running(*arguments) as program:
        ended = await command("healthcheck", *arguments, "--json")
        assert (ended.status, json.loads(ended.out)) == (0, {"ready": True, "why": None})
        assert await program.end() == 0


def test_healthcheck_is_an_ordinary_command_too(command: Command) -> None:
    """Where the program is entered past the short cut, it says the same."""
    program = [sys.executable, "-c", "from proxy.cli import main; main()", "healthcheck", "-c", "config.yaml"]
    ended = subprocess.run(
        program, cwd=command.folder, env=command.environ, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"bearer-proxy is not running with {command.folder}/config.yaml")


# -- the table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3605, "1h"),
        (3660, "1h 1m"),
        (86399, "23h 59m"),
        (30 * 86400 - 1, "29d 23h"),
        (86400 + 59, "1d"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    """A unit that is zero is left out."""
    assert duration(seconds) == text


def test_the_table_has_a_line_a_credential() -> None:
    """Columns under their headings; what is not known is a dash."""
    empty = {"refresh_expires_in": None, "last_error": None}
    reports: list[dict[str, Any]] = [
        {
            "name": "billing",
            "state": "fresh",
            "generation": 12,
            "expires_in": 3000.5,
            **empty,
            "refresh_expires_in": 0,
        },
        {"name": "crm", "state": "invalid", "generation": 1, "expires_in": -90.0, **empty, "last_error": "No."},
        {"name": "key", "state": "fresh", "generation": 1, "expires_in": None, **empty},
        {"name": "new", "state": "invalid", "generation": 0, "expires_in": None, **empty},
    ]
    assert [click.unstyle(line) for line in lines(reports, 1_800_000_000.0)] == [
        "CREDENTIAL  STATE    GENERATION  EXPIRES IN    RE-LOGIN BY        LAST ERROR",
        "billing     fresh    12          50m           2027-01-15 08:00Z  -",
        "crm         invalid  1           1m 30s ago    -                  No.",
        "key         fresh    1           unknown       -                  -",
        "new         invalid  0           no token yet  -                  -",
    ]
