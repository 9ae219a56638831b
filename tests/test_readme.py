"""What README and the pages for users show is true: commands run, snippets work, configurations load."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from proxy.cli import main as command_line
from proxy.clock import SystemClock
from proxy.config import Source, load
from proxy.demo.serving import serving
from proxy.demo.teletracker import Account, TeleTracker
from tests.support.leaks import Artefacts, Canaries

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))]
#: The pages with commands and snippets for a proxy to TeleTracker at http://127.0.0.1:8080.
RUN = ["README.md", "docs/clients.md", "docs/debugging.md", "docs/legacy-tool.md"]
SERVE = "bearer-proxy run -c bearer-proxy.yaml"
QUICK = ".venv/bin/bearer-proxy run --upstream"
#: Commands that no test here runs, and why.
NOT_RUN = {
    "make demo": "it installs first; what it shows then is run by tests/test_demo.py",
    "make test": "it is what runs this test",
}
URL = "http://127.0.0.1:8080"
VENDOR = "https://api.teletracker.net"
#: Seconds that end a hang, on a busy machine, too.
DEADLINE = 60.0


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def fenced(*languages: str, pages: list[str] = PAGES) -> list[Block]:
    """The fenced blocks of the pages in these languages; all of them without one."""
    found = []
    for page in pages:
        text = (ROOT / page).read_text("utf-8")
        matches = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found += [Block(page, text.count("\n", 0, each.start()) + 1, each[1], each[2]) for each in matches]
    return [block for block in found if not languages or block.language in languages]


def is_run_here(command: str) -> bool:
    """Is it a command that ends by itself and shows something?"""
    return command not in NOT_RUN and not command.startswith(("bearer-proxy run", QUICK, "export "))


def is_compose(block: Block) -> bool:
    """Is it a Compose file, which holds a configuration inside?"""
    return block.text.startswith("services:")


COMMANDS = [line for block in fenced("sh") for line in block.text.splitlines()]
CONFIGS = [block for block in fenced("yaml") if not is_compose(block)]
TELETRACKER = next(block.text for block in CONFIGS if block.page == "README.md" and VENDOR in block.text)


@pytest.fixture
def environ(canaries: Canaries) -> dict[str, str]:
    """Every variable that the configurations name."""
    names = {name for block in fenced("yaml") for name in re.findall(r"\{env: (\w+)\}", block.text)}
    return {name: canaries.mint("token") for name in names}


@dataclass
class Running:
    """A proxy that was started as README says, with its folder as working directory."""

    url: str
    folder: Path
    environ: dict[str, str]
    artefacts: Artefacts

    async def succeeds(self, *command: str) -> str | None:
        """Run a command; what went wrong, None if nothing did."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(DEADLINE):
            out, _ = await process.communicate()
        self.artefacts.add(command[-1], out)
        return None if process.returncode == 0 and out.strip() else f"{command[-1]}: {out.decode()}"

    def here(self, text: str) -> str:
        """A command or snippet for the address where this proxy is; curl then fails where an answer is an error."""
        return text.replace(URL, self.url).replace("curl ", "curl --silent --show-error --fail ")


@asynccontextmanager
async def started(
    command: str, folder: Path, environ: dict[str, str], artefacts: Artefacts
) -> AsyncIterator[Running]:
    """Runs a serving command of README until the block ends; it must end with 0 then."""
    binary = folder / "bin" / "bearer-proxy"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m proxy "$@"\n')
    binary.chmod(0o755)
    surroundings = {
        **{name: value for name, value in os.environ.items() if name.startswith(("COV", "LANG", "LC_"))},
        **environ,
        "PATH": f"{binary.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    process = await asyncio.create_subprocess_exec(
        *command.split(), cwd=folder, env=surroundings, stderr=asyncio.subprocess.PIPE, executable=binary
    )
    assert process.stderr is not None
    log = b""
    try:
        async with asyncio.timeout(DEADLINE):
            while not (match := re.search(rb"listening url=(http\S+)", log)):
                line = await process.stderr.readline()
                assert line, f"it ended before it listened: {log.decode()}"
                log += line
        yield Running(match[1].decode(), folder, surroundings, artefacts)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            log += (await process.communicate())[1]
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        artefacts.add("log", log)


@pytest.fixture
async def running(
    tmp_path: Path, environ: dict[str, str], canaries: Canaries, artefacts: Artefacts
) -> AsyncIterator[Running]:
    """The proxy of README's first configuration, with a double for the vendor and free ports."""
    account = Account(environ["TELETRACKER_USER"], environ["TELETRACKER_PASSWORD"])
    double = TeleTracker(clock=SystemClock(), mint=lambda: canaries.mint("uuid"), account=account)
    async with serving(double) as upstream:
        config = (
            TELETRACKER.replace(VENDOR, upstream)
            .replace("listen: 127.0.0.1:8080", f"listen: [127.0.0.1:0, 'unix:{tmp_path}/bearer-proxy.sock']")
            .replace("preset: teletracker", f"preset: teletracker\n  base_url: {upstream}")
        )
        (tmp_path / "bearer-proxy.yaml").write_text(f"{config}admin: {{listen: 127.0.0.1:0}}\n")
        async with started(SERVE, tmp_path, environ, artefacts) as found:
            yield found


def test_every_block_has_a_language_that_a_test_reads() -> None:
    """Commands, configurations, snippets and the transcript; blocks without a language are drawings."""
    assert {block.language for block in fenced()} == {"sh", "yaml", "python", "js", "text", ""}
    assert {block.page for block in fenced("sh", "python", "js")} == set(RUN)
    assert [
        str(block)
        for block in fenced("")
        if re.search(r"^ *(\$ |curl .*http|bearer-proxy [a-z]+\b)", block.text, re.MULTILINE)
    ] == []


def test_what_is_not_run_has_its_reason() -> None:
    """Each reason is for a command that is there; each serving command has a test of its own."""
    assert set(NOT_RUN) <= set(COMMANDS)
    assert SERVE in COMMANDS
    quick = f"{QUICK} https://api.example.com --token-env API_TOKEN --listen 127.0.0.1:8080"
    # As README has it, behind `make demo`, and as a command of the shell.
    assert {line for line in COMMANDS if "bearer-proxy run" in line and line != SERVE} == {
        quick,
        quick.removeprefix(".venv/bin/"),
    }


@pytest.mark.parametrize("page", RUN)
async def test_commands_and_snippets_work(page: str, running: Running) -> None:
    """All of them against one proxy, in their order, each with an exit status of 0 and something to show."""
    failures = []
    for block in fenced("sh", "python", "js", pages=[page]):
        if block.language == "python":
            failures.append(await running.succeeds(sys.executable, "-c", running.here(block.text)))
        elif block.language == "js" and shutil.which("node"):
            failures.append(await running.succeeds("node", "--input-type=module", "-e", running.here(block.text)))
        elif block.language == "sh":
            lines = [line for line in block.text.splitlines() if is_run_here(line)]
            failures += [await running.succeeds("sh", "-c", running.here(line)) for line in lines]
    assert len(failures) >= 4
    assert [failure for failure in failures if failure is not None] == []


@pytest.mark.skipif(shutil.which("node") is None, reason="this machine has no node")
def test_the_snippets_for_node_are_run() -> None:
    """So that a skip says what the test above left out."""
    assert {block.page for block in fenced("js")} == {"README.md", "docs/clients.md"}


async def test_the_quick_form_serves(
    tmp_path: Path, environ: dict[str, str], canaries: Canaries, artefacts: Artefacts
) -> None:
    """One upstream and the name of a variable: the token arrives, and its value is on no command line."""
    double = TeleTracker(clock=SystemClock(), mint=lambda: canaries.mint("uuid"))
    [command] = {line for line in COMMANDS if line.startswith(QUICK)}
    async with serving(double) as upstream:
        command = command.replace("https://api.example.com", upstream).replace(":8080", ":0")
        async with started(command, tmp_path, environ, artefacts) as proxy:
            await proxy.succeeds("curl", "--silent", f"{proxy.url}/calls")
    assert [(entry.target, entry.places) for entry in double.journal] == [("/calls", ("header:authorization",))]


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_configurations_load(block: Block, environ: dict[str, str], tmp_path: Path) -> None:
    """Without an error and without a warning, once the files are there that they name."""
    text = re.sub(r"(?<=[: ])/(?:var/)?run/", "run/", block.text)
    for named in re.findall(r"(?:file|ca|path): ([\w./-]+)|key_file: ([\w./-]+)", text):
        path = tmp_path / "".join(named)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        account = json.dumps({"private_key": "a key as PEM", "client_email": "tool@project.example.com"})
        path.write_text(b64encode(bytes(32)).decode() if path.name == "store.key" else account)
    path = tmp_path / "config.yaml"
    path.touch(mode=0o644)
    assert load(Source(text, str(block), path, str(path)), environ=environ).warnings == []


def test_the_configuration_inside_the_compose_file_loads(tmp_path: Path, environ: dict[str, str]) -> None:
    """Its secret comes from a file, as the page says."""
    [block] = [block for block in fenced("yaml") if is_compose(block)]
    services = yaml.safe_load(block.text)["services"]
    given = services["proxy"]["environment"]
    secret = tmp_path / "teletracker_password"
    secret.write_text(environ["TELETRACKER_PASSWORD"])
    secret.chmod(0o600)
    text = given.pop("BEARER_PROXY_CONFIG_YAML").replace("/run/secrets/teletracker_password", str(secret))
    config = load(Source(text, str(block), None, "page"), environ=given)
    assert config.warnings == []
    assert services["tool"]["command"] == [f"http://{config.listen[0]}/calls"]


def normal(transcript: str) -> str:
    """The words of a transcript, without what differs in each run: ports, times, ids, where lines break."""
    text = " ".join(transcript.split())
    for pattern in (
        r"(?<=127\.0\.0\.1:)\d+",
        r"\d{4}-\d\d-\d\dT\S+Z",
        r"\d+\.\d+(?= ?m?s\b)",
        r"(?<=upstream_ms=)\S+",
        r" token_wait_ms=\S+",
        r"(?<=request_id=)\w+",
    ):
        text = re.sub(pattern, "", text)
    return text


def test_the_transcripts_are_what_demo_prints() -> None:
    """Each part between the marked cuts stands in a real run, and the parts come in its order."""
    run = subprocess.run(
        [sys.executable, "-m", "proxy", "demo"],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
        cwd=ROOT,
    )
    for page, cuts in (("README.md", 2), ("docs/demo.md", 1)):
        [block] = fenced("text", pages=[page])
        parts = [normal(part) for part in block.text.split("[...]")]
        assert len(parts) == cuts + 1
        rest = normal(run.stdout)
        for part in parts:
            found = rest.find(part)
            assert found >= 0, part
            rest = rest[found + len(part) :]
        assert rest == ""


def test_the_table_of_commands_is_complete() -> None:
    """Every command is in it, and none that does not exist."""
    table = (ROOT / "README.md").read_text("utf-8").partition("## Commands")[2].partition("```")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(
        command_line.list_commands(click.Context(command_line))
    )
