"""The settings of the way to an upstream, in a running proxy: Unix sockets, outbound proxies, certificates."""

import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy import build
from proxy.config import Source, load
from proxy.errors import ConfigError
from tests.support.connectproxy import ConnectProxy
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import OK, Keyed, received
from tests.support.upstreams import REQUEST, Upstream


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A route with a static token."""
    return Keyed(canaries.mint("token"))


async def test_an_upstream_on_a_unix_socket_gets_its_base_path_and_localhost_as_host(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path
) -> None:
    """The prefix gives way to the base path, as with any other upstream."""
    path = tmp_path / "api.sock"
    async with Upstream([REQUEST, OK], unix=path) as upstream:
        config = keyed.config(f"http+unix://{path}:/v2", prefix="/api")
        async with proxying(config, environ=keyed.environ) as proxy:
            assert (await proxy.ask("GET", "/api/users?id=1")).status == 200
        request = received(upstream.peers[0].received)
    assert request.target == "/v2/users?id=1"
    assert request.all("Host") == ["localhost"]
    assert request.all("Authorization") == [f"Bearer {keyed.token}"]


async def test_a_request_takes_its_way_through_an_outbound_proxy(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries, tmp_path: Path
) -> None:
    """Certificate, name and token are the upstream's affair; user and password the outbound proxy's."""
    password = canaries.mint("password")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("client@example.com")
    client = tmp_path / "client.pem"
    client.touch(mode=0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(str(client))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("inner.example.com").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with (
        Upstream([REQUEST, OK], tls=context) as upstream,
        ConnectProxy(user=f"tools:{password}", elsewhere={"api.invalid": "127.0.0.1"}) as outbound,
    ):
        config = keyed.config(
            f"https://api.invalid:{upstream.port}",
            tls={"ca": str(tmp_path / "ca.pem"), "cert": str(client), "server_name": "inner.example.com"},
            via={"url": f"http://127.0.0.1:{outbound.port}", "username": "tools", "password": {"env": "OUT"}},
        )
        async with proxying(config, environ={**keyed.environ, "OUT": password}) as proxy:
            assert (await proxy.ask("GET", "/x")).status == 200
        request = received(upstream.peers[0].received)
        assert request.all("Authorization") == [f"Bearer {keyed.token}"]
        assert request.all("Host") == [f"api.invalid:{upstream.port}"]
        assert request.all("Proxy-Authorization") == []
        assert len(outbound.heads) == 1


async def test_an_outbound_proxy_that_refuses_is_502_and_says_so(proxying: StartProxy, keyed: Keyed) -> None:
    """Nothing reached the upstream, and the client learns which setting to look at."""
    async with ConnectProxy(user="somebody:else") as outbound:
        config = keyed.config("https://api.invalid", via=f"http://127.0.0.1:{outbound.port}")
        async with proxying(config, environ=keyed.environ) as proxy:
            answer = await proxy.ask("GET", "/x")
            assert (answer.status, answer.code) == (502, "upstream_unreachable")
            assert "via" in answer.json()["detail"]
            assert [line["error"] for line in proxy.lines()] == ["upstream_unreachable"]


def junk(folder: Path) -> dict[str, str]:
    """A CA file that holds no certificate."""
    (folder / "ca.pem").write_bytes(b"no PEM")
    return {"ca": "ca.pem"}


def stranger(folder: Path) -> dict[str, str]:
    """A key that belongs to another certificate."""
    one, other = (trustme.CA().issue_cert("a.example") for _ in range(2))
    one.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    (folder / "key.pem").touch(mode=0o600)
    other.private_key_pem.write_to_path(str(folder / "key.pem"))
    return {"cert": "cert.pem", "key": "key.pem"}


def locked(folder: Path) -> dict[str, str]:
    """A key with a passphrase, for which nobody is there to be asked."""
    issued = trustme.CA().issue_cert("a.example")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    return {"cert": "cert.pem", "key": "key.pem"}


MEND: Final = "write PEM files that this user can read, and a key without a passphrase that fits the certificate"


@pytest.mark.parametrize(
    ("written", "keys"), [(junk, "tls.ca"), (stranger, "tls.cert, tls.key"), (locked, "tls.cert, tls.key")]
)
def test_certificates_that_cannot_be_used_are_an_error_of_the_configuration(
    written: Callable[[Path], dict[str, str]], keys: str, tmp_path: Path
) -> None:
    """Before anything is served, and without a question on the terminal."""
    tls: dict[str, Any] = {key: str(tmp_path / name) for key, name in written(tmp_path).items()}
    config = load(Source(f"upstream: https://a.example\ntls: {tls}", "text", None, "test"), environ={})
    with pytest.raises(ConfigError) as refused:
        build.bindings(config, {})
    assert refused.value.problems == [f"Route 'default': {keys} cannot be used: {MEND}."]


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path) -> None:
    """OpenSSL would read it from the terminal, or from standard input."""
    tls = {key: str(tmp_path / name) for key, name in locked(tmp_path).items()}
    path = tmp_path / "config.yaml"
    path.write_text(f"upstream: https://a.example\ntls: {tls}\n")
    command = [sys.executable, "-m", "proxy", "check", "-c", str(path)]
    done = subprocess.run(
        command, input=b"passphrase\n" * 3, capture_output=True, check=False, timeout=60, start_new_session=True
    )
    assert done.returncode == 2
    assert done.stderr.decode() == f"Route 'default': tls.cert, tls.key cannot be used: {MEND}.\n"
