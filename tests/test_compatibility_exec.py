"""`bearer-proxy exec` with git and package managers: the command lines of `docs/compatibility.md`."""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.support.gate import Gate, before, gate, git
from tests.support.leaks import Artefacts, Canaries
from tests.support.npm import BIN, ROOT
from tests.support.packages import PIP, index, registry, wheel
from tests.support.programs import program, run, surroundings

pytestmark = pytest.mark.slow

BEGINNING: Final = "bearer-proxy exec -- "
#: Each runs a single command by a shell.
LINES: Final = re.findall(
    rf"^- `({BEGINNING}sh -c '.+')`$", (ROOT / "docs" / "compatibility.md").read_text("utf-8"), re.MULTILINE
)


def line(words: str) -> list[str]:
    """What the line of the page runs whose command begins like this."""
    [found] = [line for line in LINES if line.startswith(f"{BEGINNING}sh -c '{words} ")]
    return shlex.split(found.removeprefix(BEGINNING))


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the programs, whose megabytes are not searched for canaries."""
    return tmp_path_factory.mktemp("home")


async def execute(server: Gate, home: Path, artefacts: Artefacts, *command: str) -> bytes:
    """Run it under `exec` in `home`, where the configuration is; gives what it said."""
    credential, variables = server.config["credentials"]["gate"], {"npm_config_registry": "default"}
    config = {"upstream": server.url, "credential": credential, "exec": {"env": variables}}
    (home / "bearer-proxy.yaml").write_text(yaml.safe_dump(config))
    environ = surroundings(
        home,
        **server.environ,
        **PIP,
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        PIP_TARGET=str(home / "installed"),
        npm_config_update_notifier="false",
        XDG_RUNTIME_DIR=str(home / "run"),
    )
    beginning = [sys.executable, "-m", "proxy", "exec", "--"]
    return await run(artefacts, *beginning, *command, cwd=home, environ=environ)


async def test_git_under_exec(canaries: Canaries, artefacts: Artefacts, home: Path) -> None:
    """A clone by the URL that the repository always had."""
    program("git")
    served = home / "served"
    await run(artefacts, "git", "init", "--quiet", "--bare", served / "app.git", environ=surroundings(home))
    async with gate(git(served), canaries) as server:
        await execute(server, home, artefacts, *line("git"))
        url = await run(artefacts, "git", "-C", home / "app", "config", "remote.origin.url")
    assert url == b"https://git.example.com/app.git\n"
    assert {status for _, _, status in server.seen} == {200}


async def test_twine_and_pip_under_exec(canaries: Canaries, artefacts: Artefacts, home: Path) -> None:
    """An upload, and its installation."""
    (home / "dist").mkdir()
    wheel(home / "dist", "1.0")
    async with index(home) as url, before(url) as behind, gate(behind, canaries) as server:
        await execute(server, home, artefacts, *line("twine"))
        await execute(server, home, artefacts, *line("pip"))
    assert (home / "installed" / "probe" / "__init__.py").exists()


async def test_npm_under_exec(canaries: Canaries, artefacts: Artefacts, home: Path) -> None:
    """A publication, and its installation."""
    (home / "package.json").write_text(json.dumps({"name": "probe", "version": "1.0.0", "files": ["it"]}))
    (home / "it").write_text("fine")
    async with registry(home) as url, before(url) as behind, gate(behind, canaries) as server:
        await execute(server, home, artefacts, *line("npm publish"))
        # A package does not depend on itself.
        (home / "package.json").write_text("{}")
        await execute(server, home, artefacts, *line("npm install"))
        # By the variable of `exec.env` alone.
        assert await execute(server, home, artefacts, "npm", "view", "probe", "version") == b"1.0.0\n"
    assert (home / "node_modules" / "probe" / "it").read_text() == "fine"


def test_every_line_is_tried() -> None:
    """There are no others on the page."""
    assert {shlex.split(each)[-1].split()[0] for each in LINES} == {"pip", "twine", "npm", "git"}
    assert len(LINES) == 5
