"""The examples of deploy/ for containers: valid by schema, as closed as they say, and true to the program."""

import asyncio
import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from proxy import runfile
from proxy.config import Source, UnixAddress, load
from proxy.config.model import LimitsConfig
from proxy.config.values import duration
from proxy.demo.teletracker import TeleTracker
from tests.support.instances import ROOT, fleet
from tests.support.leaks import Artefacts
from tests.support.manager import listening_manager
from tests.support.vendors import Vendor
from tests.test_readme import Block, fenced, is_compose

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final = DEPLOY / "compose.yaml"
POD: Final = DEPLOY / "kubernetes.yaml"
JOB: Final = DEPLOY / "kubernetes-job.yaml"
#: Native sidecars came with the first; the last is the newest that the schemas know.
RELEASES: Final = ("1.29", kubernetes_validate.latest_version())


def documents(path: Path) -> list[dict[str, Any]]:
    """Each document of a file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def of_kind(path: Path, kind: str) -> dict[str, Any]:
    """The document of this kind."""
    [found] = [each for each in documents(path) if each["kind"] == kind]
    return found


# -- Kubernetes


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", [POD, JOB], ids=lambda path: path.name)
def test_kubernetes_takes_each_document(path: Path, release: str) -> None:
    """By its own schema, in which no field is unknown."""
    for document in documents(path):
        kubernetes_validate.validate(document, release, strict=True)


def test_the_schema_of_kubernetes_is_strict() -> None:
    """A field that is misspelt, and one of another type, are found."""
    pod = of_kind(POD, "Pod")
    for name, value in (("restartPolici", "Always"), ("restartPolicy", 17)):
        broken = copy.deepcopy(pod)
        broken["spec"]["initContainers"][0][name] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, "1.29", strict=True)


def test_the_sidecar_starts_before_the_tool_and_is_probed() -> None:
    """It is a native one; the pod ends with as much patience as the drain takes."""
    spec = of_kind(POD, "Pod")["spec"]
    [sidecar] = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    probes = {kind: sidecar[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert spec["terminationGracePeriodSeconds"] > LimitsConfig().drain


@pytest.mark.threat(20, 129)
def test_129_the_containers_of_the_job_are_closed_and_only_one_has_the_password() -> None:
    """The tool has the admin key alone, in a variable of its own."""
    spec = of_kind(JOB, "Job")["spec"]["template"]["spec"]
    tool, proxy = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for each in (tool, proxy):
        closed = each["securityContext"]
        assert closed["readOnlyRootFilesystem"] is True
        assert closed["allowPrivilegeEscalation"] is False
        assert closed["capabilities"] == {"drop": ["ALL"]}
    assert tool["securityContext"]["runAsUser"] != proxy["securityContext"]["runAsUser"]
    assert "volumeMounts" not in tool
    assert [each["valueFrom"]["secretKeyRef"]["key"] for each in tool["env"]] == ["admin-key"]
    keys = of_kind(JOB, "Secret")["stringData"].keys()
    config = of_kind(JOB, "ConfigMap")["data"]["config.yaml"]
    folder = next(each["mountPath"] for each in proxy["volumeMounts"] if each["name"] == "secrets")
    assert all(f"{{file: {folder}/{key}}}" in config for key in keys)


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
@pytest.mark.parametrize(("path", "status"), [("/calls", 0), ("/no-such-path", 22)])
async def test_the_tool_of_the_job_ends_the_proxy(
    tracker: Vendor[TeleTracker], tmp_path: Path, artefacts: Artefacts, path: str, status: int
) -> None:
    """Whatever becomes of its work, and with the status of that; the script is the one of the file."""
    config = yaml.safe_load(of_kind(JOB, "ConfigMap")["data"]["config.yaml"])
    key = "admin-key-of-the-tests-0123456789"
    config |= {"upstream": tracker.url, "credential": dict(tracker.credential), "listen": "127.0.0.1:0"}
    config["admin"] = {"listen": "127.0.0.1:0", "key": {"env": "ADMIN_KEY"}}
    notify, environ = str(tmp_path / "notify"), {**tracker.environ, "ADMIN_KEY": key}
    with listening_manager(notify) as manager:
        async with fleet(tmp_path, config, environ, artefacts) as instances:
            running = await instances.start(NOTIFY_SOCKET=notify)
            await manager.hears("READY")  # the run file is there
            home = tmp_path / "instance-1"
            admin = runfile.find(str(home / "config.yaml"), {"XDG_RUNTIME_DIR": str(home)}).admin_url
            assert admin is not None
            [script] = of_kind(JOB, "Job")["spec"]["template"]["spec"]["containers"][0]["args"]
            script = script.replace("http://127.0.0.1:8081", admin).replace(
                "http://127.0.0.1:8080/calls", running.url + path
            )
            tool = await asyncio.create_subprocess_exec(
                *("sh", "-c", script),
                env={"PATH": os.environ["PATH"], "ADMIN_KEY": key},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await tool.communicate()
            assert tool.returncode == status, said
            assert await running.process.wait() == 0


# -- Compose


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    """What the schema of the Compose specification says of a file."""
    command = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)


def test_compose_takes_the_examples(tmp_path: Path) -> None:
    """That of deploy/, and those of the pages; and nothing else would do."""
    paths = [COMPOSE]
    blocks: list[Block] = [block for block in fenced("yaml") if is_compose(block)]
    assert blocks
    for number, block in enumerate(blocks):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(block.text)
    for path in paths:
        run = validated(path)
        assert run.returncode == 0, run.stdout
    broken = tmp_path / "broken.yaml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("stop_grace_period: 30s", "stop_grace_period: [30s]"))
    assert validated(broken).returncode == 1


def compose() -> dict[str, Any]:
    """The example."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return found


def test_compose_waits_until_the_proxy_has_drained() -> None:
    """Its own patience is ten seconds."""
    assert duration(compose()["services"]["proxy"]["stop_grace_period"]) > LimitsConfig().drain


@pytest.mark.threat(20, 129)
def test_129_the_services_of_compose_are_closed() -> None:
    """No port is published, no capability kept, no root written; one of them alone has the password."""
    services = compose()["services"]
    for each in services.values():
        assert "ports" not in each
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
    assert [name for name, each in services.items() if "secrets" in each] == ["proxy"]
    others = {name: each for name, each in services.items() if name != "proxy"}
    assert {each["network_mode"] for each in others.values()} == {"none", "service:proxy"}


def test_the_configuration_of_compose_is_one(tmp_path: Path) -> None:
    """By the environment alone; the socket is where both have the volume, for the group that both have."""
    parts = compose()
    proxy, tool = parts["services"]["proxy"], parts["services"]["by-socket"]
    password = tmp_path / "teletracker_password"
    password.write_text("password-0123456789")
    password.chmod(0o600)
    text = proxy["environment"]["BEARER_PROXY_CONFIG_YAML"].replace("/run/secrets", str(tmp_path))
    config = load(Source(text, "test.yaml", None, "test"), environ=proxy["environment"])
    socket, _tcp = config.listen
    assert isinstance(socket, UnixAddress)
    [group] = proxy["group_add"]
    assert (socket.group, socket.mode) == (group, 0o660)
    assert tool["user"].split(":")[1] == group
    assert f"gid={group}" in parts["volumes"]["shared"]["driver_opts"]["o"]
    folder = str(Path(socket.path).parent)
    assert f"shared:{folder}" in proxy["volumes"]
    assert tool["volumes"] == [f"shared:{folder}:ro"]
    assert socket.path in tool["command"]
