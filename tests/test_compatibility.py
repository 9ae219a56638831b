"""Programs that people use, as they are, at a service that demands the bearer: none of them knows of a token.

The table of `docs/compatibility.md` has a row for each of them. What only asks an API is in `test_clients.py`.
"""

import base64
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.gate import Gate, before, gate, git
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.npm import BIN, ROOT, installed
from tests.support.programs import attempt, program, run, started, surroundings

pytestmark = pytest.mark.slow

#: More than `replay.memory`, and than what git sends at once.
LARGE: Final = 3 * 1024 * 1024


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the programs, whose megabytes are not searched for canaries."""
    return tmp_path_factory.mktemp("home")


# -- git


async def test_git_clones_fetches_and_pushes(
    proxying: StartProxy, canaries: Canaries, home: Path
) -> None:
    """Under the name that it always had; a push of megabytes in chunks is repeated with a new token."""
    program("git")
    served, work, other = (home / name for name in ("served", "work", "other"))
    served.mkdir()
    async with gate(git(served), canaries) as server, proxying(server.config, environ=server.environ) as proxy:
        identity = {f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environ = surroundings(home, GIT_TERMINAL_PROMPT="0", **identity)

        async def told(*arguments: str | Path) -> str:
            return (await run(proxy, "git", *arguments, environ=environ)).decode()

        await told("init", "--quiet", "--bare", "--initial-branch=main", served / "app.git")
        await told("config", "--global", f"url.{proxy.url}/.insteadOf", "https://git.example.com/")
        await told("clone", "--quiet", "https://git.example.com/app.git", work)
        await told("-C", work, "checkout", "--quiet", "-b", "main")
        (work / "large").write_bytes(os.urandom(LARGE))
        await told("-C", work, "add", ".")
        await told("-C", work, "commit", "--quiet", "--message=first")
        server.once(lambda request: request.headers.get("Transfer-Encoding") == "chunked")
        await told("-C", work, "push", "--quiet", "origin", "main")
        assert server.refused == ["/app.git/git-receive-pack"]

        await told("clone", "--quiet", "https://git.example.com/app.git", other)
        assert (other / "large").read_bytes() == (work / "large").read_bytes()
        await told("-C", work, "commit", "--quiet", "--allow-empty", "--message=second")
        await told("-C", work, "push", "--quiet")
        server.end()
        await told("-C", other, "pull", "--quiet")
        assert (await told("-C", other, "log", "--format=%s")).split() == ["second", "first"]
    assert server.tokens == 3


# -- packages of Python

#: Serves the folder that is its argument, and takes uploads, from whoever asks; prints its port.
INDEX: Final = """
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
import pypiserver
WSGIRequestHandler.log_message = lambda *_: None
app = pypiserver.app(roots=[sys.argv[1]], password_file=".", authenticate=[], disable_fallback=True)
server = make_server("127.0.0.1", 0, app)
print(server.server_port, flush=True)
server.serve_forever()
"""


def wheel(folder: Path, version: str) -> Path:
    """A package `probe` with a module and something large, of which nothing can be left out."""
    info = f"probe-{version}.dist-info"
    files = {
        "probe/__init__.py": f'version = "{version}"\n'.encode(),
        "probe/large": os.urandom(LARGE),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: probe\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    made = folder / f"probe-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    return made


async def test_twine_uploads_and_pip_installs(proxying: StartProxy, canaries: Canaries, home: Path) -> None:
    """An upload and a download meet an old token each; the word that twine asks for opens nothing."""
    served = home / "served"
    served.mkdir()
    environ = surroundings(home, PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1")
    async with (
        started(sys.executable, "-c", INDEX, served, environ=environ) as index,
        before(index) as behind,
        gate(behind, canaries) as server,
        proxying(server.config, environ=server.environ) as proxy,
    ):
        twine = [BIN / "twine", "upload", "--non-interactive", "--disable-progress-bar"]
        twine += ["--username=any", "--password=any", f"--repository-url={proxy.url}/"]
        await run(proxy, *twine, wheel(home, "1.0"), environ=environ)
        server.end()
        await run(proxy, *twine, wheel(home, "1.1"), environ=environ)
        assert server.refused == ["/"]
        server.once(lambda request: request.path.endswith(".whl"))
        pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", f"--index-url={proxy.url}/simple/"]
        await run(proxy, *pip, f"--target={home / 'there'}", "probe<1.1", environ=environ)
        assert (home / "there" / "probe" / "__init__.py").read_text() == 'version = "1.0"\n'
        assert server.refused[1:] == ["/packages/probe-1.0-py3-none-any.whl"]
        assert ("GET", "/simple/probe/", 200) in server.seen
