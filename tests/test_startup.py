"""What a start loads: everything that it needs and, since people wait for it, nothing else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from proxy import build
from proxy.config import Source, load

ROOT: Final = Path(__file__).parent.parent
STATIC: Final = "{type: static, token: {env: T}}"
LOGIN: Final = "{type: login, login: {url: 'http://127.0.0.1:9/login', fields: {password: {env: T}}}}"
#: Builds all that a run builds, and prints which modules that took.
BUILD: Final = """
import asyncio, json, os, sys
from pathlib import Path
from proxy.cli.common import find, load
from proxy.cli.run import Instance, World
from proxy.redact import Redactor
async def build():
    config = load(find(None, os.environ), environ=os.environ)
    await Instance(config, World(Redactor(), Path(sys.argv[1]))).close()
asyncio.run(build())
print(json.dumps(sorted(sys.modules)))
"""


def loaded(credential: str, folder: Path) -> set[str]:
    """The modules that a start with this credential loads."""
    config = f"upstream: http://127.0.0.1:9\ncredential: {credential}\n"
    run = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        env={"BEARER_PROXY_CONFIG_YAML": config, "T": "token-0123456789", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(run.stdout))


@pytest.fixture(scope="module")
def with_static(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a static token takes."""
    return loaded(STATIC, tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize(
    "module",
    [
        "aiohttp",
        "cryptography",
        "difflib",
        "jwt",
        "opentelemetry",
        "prometheus_client",
        "proxy.config.effective",
        "proxy.config.schema",
        "proxy.credentials.token_endpoint",
        "proxy.demo",
        "proxy.tracing",
        "requests",
    ],
)
def test_a_start_with_a_static_token_loads_nothing_that_it_does_not_need(
    module: str, with_static: set[str]
) -> None:
    """The commands that show things, what only mistakes need, the client for token endpoints."""
    assert "proxy.server" in with_static
    assert module not in with_static


def test_a_start_with_a_login_loads_the_client_for_token_endpoints(tmp_path: Path) -> None:
    """Before the first request, which would have to wait for it."""
    assert {"proxy.credentials.token_endpoint", "aiohttp"} <= loaded(LOGIN, tmp_path)


def test_routes_that_trust_alike_read_the_certificates_once() -> None:
    """And those that do not have a context of their own."""
    routes = "".join(
        f"  - {{prefix: /{name}, upstream: 'https://{name}.example'{more}}}\n"
        for name, more in (("a", ""), ("b", ""), ("c", ", tls: {insecure: true}"))
    )
    config = load(Source(f"routes:\n{routes}", "text", None, "test"), environ={})
    a, b, c = (binding.pool._dialer._tls for binding in build.bindings(config, {}).values())
    assert a is b is not None
    assert c is not a
