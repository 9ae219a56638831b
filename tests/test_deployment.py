"""What deploy/ holds: the unit of systemd and the pod are as closed as they say, and the program serves in them."""

import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from proxy.demo.teletracker import TeleTracker
from tests.support.confining import settings
from tests.support.instances import ROOT, Fleet, Running, fleet
from tests.support.leaks import Artefacts
from tests.support.manager import listening_manager
from tests.support.vendors import Vendor

UNIT: Final = ROOT / "deploy" / "bearer-proxy.service"
SOCKET: Final = ROOT / "deploy" / "bearer-proxy.socket"
POD: Final = ROOT / "deploy" / "kubernetes.yaml"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze"
)
needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or find_library("seccomp") is None, reason="this machine has no libseccomp"
)
#: In tenths (systemd-analyze(1)). What is left it uses: the network, Unix sockets, netlink, chown, setrlimit.
MOST_EXPOSED: Final = 15

#: Asks to be debugged, which needs no privilege; prints "done", or why not.
TRACED: Final = (
    "import ctypes, os; c = ctypes.CDLL(None, use_errno=True)\n"
    "print('done' if c.ptrace(0, 0, 0, 0) == 0 else os.strerror(ctypes.get_errno()))"
)


def installed(tmp_path: Path) -> Path:
    """The unit, with a program that is there, and beside it its socket."""
    (tmp_path / SOCKET.name).write_text(SOCKET.read_text("utf-8"))
    unit = tmp_path / UNIT.name
    program = settings(UNIT)["ExecStart"][0].split()[0]
    unit.write_text(UNIT.read_text("utf-8").replace(program, sys.executable))
    return unit


@needs_systemd
@pytest.mark.threat(129)
def test_129_systemd_finds_the_unit_closed(tmp_path: Path) -> None:
    """And understands each of its lines."""
    unit = installed(tmp_path)
    for command in (["verify"], ["security", "--offline=true", f"--threshold={MOST_EXPOSED}"]):
        run = subprocess.run(
            ["systemd-analyze", "--no-pager", *command, str(unit)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "bearer-proxy" not in run.stderr


@needs_systemd
def test_systemd_understands_the_socket_of_the_unit(tmp_path: Path) -> None:
    """Which belongs to it by its name."""
    installed(tmp_path)
    command = ["systemd-analyze", "--no-pager", "verify", str(tmp_path / SOCKET.name)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert SOCKET.stem == UNIT.stem


def test_the_unit_is_of_a_type_whose_signs_the_program_gives() -> None:
    """They are tried in tests/test_manager.py; nothing but its main process may give them."""
    given = settings(UNIT)
    assert given["Type"] == ["notify"]
    assert "NotifyAccess" not in given
    assert float(given["WatchdogSec"][0]) > 30


@pytest.mark.threat(127)
def test_127_a_wrong_configuration_is_not_started_again() -> None:
    """Whatever else ends it is."""
    given = settings(UNIT)
    assert (given["Restart"], given["RestartPreventExitStatus"]) == (["on-failure"], ["2"])


async def test_a_reload_of_the_unit_is_one_of_the_program(tmp_path: Path, artefacts: Artefacts) -> None:
    """What systemd runs for it, with the variable that systemd sets."""
    [command] = settings(UNIT)["ExecReload"]
    async with fleet(tmp_path, {"upstream": "http://127.0.0.1:9"}, {}, artefacts) as instances:
        running = await instances.start()
        program = command.replace("$MAINPID", str(running.process.pid)).split()
        subprocess.run(program, check=True)
        assert (await running.event("reloaded"))["changed"] == "nothing"


@needs_systemd
@needs_seccomp
@pytest.mark.threat(129)
async def test_129_the_program_serves_with_the_system_calls_that_the_unit_leaves(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """Without capabilities: it listens, knows who asks, logs in, stores, refreshes, and ends."""
    config = {
        "listen": ["127.0.0.1:0", f"unix:{tmp_path}/http.sock"],
        "upstream": tracker.url,
        "credential": dict(tracker.credential),
        "store": {"kind": "file", "path": str(tmp_path / "tokens"), "key": {"env": "STORE_KEY"}},
    }
    environ = {**tracker.environ, "STORE_KEY": "A" * 43 + "="}
    notify = str(tmp_path / "notify")
    with listening_manager(notify) as manager:
        async with fleet(tmp_path, config, environ, artefacts) as instances:
            running = await instances.start(
                sys.executable,
                "-m",
                "tests.support.confining",
                str(UNIT),
                NOTIFY_SOCKET=notify,
                WATCHDOG_USEC="1000000",
            )
            await manager.hears("READY")
            await _lives(instances, running, tracker)
            await manager.hears("STOPPING")


async def _lives(instances: Fleet, running: Running, tracker: Vendor[TeleTracker]) -> None:
    """From its first token to its end."""
    seccomp = Path("/proc", str(running.process.pid), "status").read_text("ascii")
    assert "Seccomp:\t2\n" in seccomp
    assert "CapEff:\t0000000000000000\n" in seccomp
    for generation in (1, 2):
        assert await instances.asked(running) == [200]
        await running.event("token_refreshed", generation)
        tracker.double.expire()
    assert not running.all("peers_unknown")
    assert not running.all("token_not_persisted")
    running.process.terminate()
    assert await running.process.wait() == 0


@needs_systemd
@needs_seccomp
@pytest.mark.threat(129)
def test_129_what_the_unit_does_not_leave_fails() -> None:
    """Nobody becomes the debugger of another one."""
    tried = [sys.executable, "-c", TRACED]
    confined = [sys.executable, "-m", "tests.support.confining", str(UNIT), *tried]
    for command, said in ((tried, "done\n"), (confined, "Operation not permitted\n")):
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout == said


def pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of deploy/kubernetes.yaml, and the configuration that is mounted in it."""
    found = {each["kind"]: each for each in yaml.safe_load_all(POD.read_text("utf-8"))}
    return found["Pod"]["spec"], yaml.safe_load(found["ConfigMap"]["data"]["config.yaml"])


@pytest.mark.threat(129, 20)
def test_129_each_container_of_the_pod_is_a_user_of_its_own_without_privileges() -> None:
    """On a read-only root, and none of them may become another."""
    spec, _config = pod()
    containers = [*spec["initContainers"], *spec["containers"]]
    closed = [each["securityContext"] for each in containers]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert len({each["runAsUser"] for each in closed}) == len(containers) == 2
    for each in closed:
        assert each["readOnlyRootFilesystem"] is True
        assert each["allowPrivilegeEscalation"] is False
        assert each["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.threat(20)
def test_020_only_the_proxy_of_the_pod_sees_the_secrets_and_both_see_the_socket() -> None:
    """The folders that are mounted are those of the configuration and of the image."""
    spec, config = pod()
    [sidecar], [tool] = spec["initContainers"], spec["containers"]
    mounts = {each["mountPath"]: each["name"] for each in sidecar["volumeMounts"]}
    others = {each["mountPath"]: each["name"] for each in tool["volumeMounts"]}
    socket = Path(config["listen"]["unix"])
    assert mounts[str(socket.parent)] == others[str(socket.parent)] == "shared"
    assert len(others) == 1
    assert str(socket) in tool["command"]
    secrets = {Path(config["credential"][name]["file"]) for name in ("username", "password")}
    assert {str(each.parent) for each in secrets} <= mounts.keys()
    assert int(config["listen"]["group"]) == spec["securityContext"]["fsGroup"]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    kept = mounts.keys() & {"/var/lib/bearer-proxy", "/run/bearer-proxy"}
    assert len(kept) == 2
    assert all(f'"{each}"' in dockerfile for each in kept)
    assert f"USER {sidecar['securityContext']['runAsUser']}:" in dockerfile


async def test_the_configuration_of_the_pod_serves(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts
) -> None:
    """With an upstream, folders and a group that are here."""
    _spec, config = pod()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)  # as an emptyDir is
    assert config["credential"].keys() == {"preset", "username", "password"}
    mode = f"{config['listen']['mode']:04o}"  # YAML reads it as a number
    listen = {"unix": str(shared / "api.sock"), "mode": mode, "group": str(os.getgid())}
    config |= {
        "listen": listen,
        "upstream": tracker.url,
        "credential": dict(tracker.credential),
        "admin": {"listen": "0.0.0.0:0"},
    }
    async with fleet(tmp_path, config, tracker.environ, artefacts) as instances:
        running = await instances.start()
        assert await instances.asked(running) == [200]
