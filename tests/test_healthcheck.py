"""`healthcheck`: one question to a running instance, asked without importing the rest of the program."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy import adminclient, runfile
from proxy.adminclient import AdminError
from proxy.runfile import Running

ROOT = Path(__file__).parent.parent
KEY = "key-of-the-admin-listener"


@dataclass
class Listener:
    """Something that listens and gives one fixed answer; `asked` holds what it was sent."""

    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    def running(self, host: str = "127.0.0.1") -> Running:
        """An instance whose admin listener this is."""
        return Running(os.getpid(), [], f"http://{host}:{self.port}", KEY)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Listener]:
    """Listen on loopback; b"" closes without a word."""
    made = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


def http(status: int, document: object) -> bytes:
    """An answer as the admin listener writes it."""
    return f"HTTP/1.0 {status} X\r\nContent-Type: application/json\r\n\r\n{json.dumps(document)}\n".encode()


async def healthcheck(runtime: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of the real program."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "proxy", "healthcheck", *arguments),
        cwd=runtime,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def write(runtime: Path, running: Running) -> None:
    """Write the run file of the quick form."""
    runfile.write(runfile.path_for("quick", {"XDG_RUNTIME_DIR": str(runtime)}), running)


@pytest.mark.parametrize(
    ("answer", "status", "out", "err"),
    [
        (http(200, {"ready": True}), 0, "ready\n", ""),
        (http(503, {"draining": True, "credentials": {}}), 1, "", "not ready: it is draining\n"),
        (http(503, {"draining": False, "credentials": {"crm": "No."}}), 1, "", "not ready: No.\n"),
        (b"", 1, "", "what answers at URL is not the admin listener of bearer-proxy\n"),
        (b"SSH-2.0-OpenSSH\r\n", 1, "", "what answers at URL is not the admin listener of bearer-proxy\n"),
        (http(200, ["ready"]), 1, "", "what answers at URL is not the admin listener of bearer-proxy\n"),
    ],
)
async def test_the_answer_becomes_an_exit_status_and_a_sentence(
    tmp_path: Path, answer: bytes, status: int, out: str, err: str
) -> None:
    """Ready is 0, everything else 1 with the reason; the key is not sent where it is not needed."""
    async with answering(answer) as listener:
        write(tmp_path, listener.running())
        url = f"http://127.0.0.1:{listener.port}"
        assert await healthcheck(tmp_path) == (status, out, err.replace("URL", url))
        [asked] = listener.asked
        assert asked.startswith(b"GET /readyz HTTP/1.0\r\n")
        assert KEY.encode() not in asked


@pytest.mark.parametrize(
    ("running", "sentence"),
    [
        (None, "bearer-proxy is not running without a configuration"),
        (Running(os.getpid(), [], None, KEY), "the admin listener is off (admin.listen: null)"),
        (Running(os.getpid(), [], "http://127.0.0.1:1", KEY), "http://127.0.0.1:1 does not answer"),
    ],
)
async def test_what_cannot_be_asked_is_not_ready(tmp_path: Path, running: Running | None, sentence: str) -> None:
    """No run file, no admin listener, nobody there: 1, and JSON says the same."""
    if running is not None:
        write(tmp_path, running)
    status, out, err = await healthcheck(tmp_path)
    assert (status, out) == (1, "")
    assert sentence in err
    status, out, _ = await healthcheck(tmp_path, "--json")
    assert (status, json.loads(out)) == (1, {"ready": False, "why": err.rstrip("\n")})


async def test_a_wrong_option_is_wrong_usage(tmp_path: Path) -> None:
    """Exit 2, as everywhere; what it was is not repeated, since it may be a secret."""
    status, _, err = await healthcheck(tmp_path, "--nonsense")
    assert status == 2
    assert err.endswith("there are no other arguments\n")
    assert "--nonsense" not in err


def test_it_imports_the_standard_library_only(tmp_path: Path) -> None:
    """Nothing of the environment, and of our own what is needed: it must end within 100 ms."""
    program = (
        "import sys; before = set(sys.modules); sys.argv = ['bearer-proxy', 'healthcheck']\n"
        "from proxy.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(set(sys.modules) - before))"
    )
    environ = {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = set(run.stdout.split())
    own = {name for name in found if name.startswith("proxy")}
    assert own == {
        "proxy",
        *(f"proxy.{each}" for each in ("__main__", "adminclient", "errors", "healthcheck", "runfile")),
    }
    foreign = {name.partition(".")[0] for name in found - own} - sys.stdlib_module_names
    assert foreign == set()
    assert not found & {"asyncio", "dataclasses", "http.client", "inspect", "pathlib", "ssl"}


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", True), ("localhost", True), ("[::]", False)])
async def test_a_listener_on_every_address_is_asked_on_this_machine(host: str, *, reached: bool) -> None:
    """The address it was bound to is no address to connect to everywhere; [::] means ::1, where nobody is here."""
    async with answering(http(200, {})) as listener:
        asking = asyncio.to_thread(adminclient.ask, listener.running(host), "GET", "/readyz", wait=2.0)
        if reached:
            assert await asking == (200, {})
        else:
            with pytest.raises(AdminError, match="does not answer"):
                await asking


def test_a_listener_that_says_nothing_is_not_waited_for() -> None:
    """It took the connection and is silent; the wait ends after the given time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = Listener(silent.getsockname()[1]).running()
        with pytest.raises(AdminError, match="does not answer"):
            adminclient.ask(running, "GET", "/readyz", wait=0.05)


async def test_the_key_goes_along_where_it_is_needed() -> None:
    """As a Bearer token."""
    async with answering(http(200, {})) as listener:
        await asyncio.to_thread(adminclient.ask, listener.running(), "GET", "/api/credentials", wait=2.0)
        assert f"Authorization: Bearer {KEY}\r\n".encode() in listener.asked[0]
