"""Credentials of type `oauth2` against an authorization server that nobody here wrote (`tests/support/oidc.py`)."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.api import Seen, api
from tests.support.harness import HeldClock, StartProxy
from tests.support.oidc import OIDCProvider, oidc_provider

#: Every character that a form-encoded Basic password has to be encoded for.
SECRET: Final = "a:b/c+d %e&f=g~h-0123456789-0123456789"
OBSERVER: Final = ("observer", "observer-0123456789-0123456789-01")
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _keys() -> dict[str, PrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    return {"RS256": key, "PS256": key, "ES256": curve, "EdDSA": ed25519.Ed25519PrivateKey.generate()}


KEYS: Final = _keys()


def _jwk(algorithm: str) -> Mapping[str, Any]:
    public = KEYS[algorithm].public_key()
    made: Mapping[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    return {**made, "alg": algorithm, "use": "sig", "kid": f"key-{algorithm}"}


def _pem(algorithm: str) -> str:
    return KEYS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _client(name: str, auth: str, **more: Any) -> dict[str, Any]:
    return {
        "client_id": name,
        "client_secret": SECRET,
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": auth,
        "scope": "read",
        **more,
    }


CLIENTS: Final = [
    _client("observer", "client_secret_basic", client_secret=OBSERVER[1]),
    _client("basic client+1", "client_secret_basic"),
    _client("post", "client_secret_post"),
    _client("secret-jwt", "client_secret_jwt", token_endpoint_auth_signing_alg="HS256"),
    {**_client("tls", "tls_client_auth", tls_client_auth_san_dns="tool.example.com"), "client_secret": None},
    *(
        {
            **_client(algorithm, "private_key_jwt", token_endpoint_auth_signing_alg=algorithm),
            "client_secret": None,
            "jwks": {"keys": [_jwk(algorithm)]},
        }
        for algorithm in KEYS
    ),
]
#: How each of them is written in a configuration.
WRITTEN: Final[dict[str, dict[str, Any]]] = {
    "basic client+1": {"client_secret": {"env": "SECRET"}},
    "post": {"client_secret": {"env": "SECRET"}, "client_auth": "post"},
    "secret-jwt": {"client_secret": {"env": "SECRET"}, "client_auth": "client_secret_jwt"},
    **{
        algorithm: {
            "client_auth": "private_key_jwt",
            "algorithm": algorithm,
            "key": {"env": f"KEY_{algorithm}"},
            "key_id": f"key-{algorithm}",
        }
        for algorithm in KEYS
    },
}
ENVIRON: Final = {"SECRET": SECRET, "WRONG": "wrong" * 9, **{f"KEY_{name}": _pem(name) for name in KEYS}}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OIDCProvider]:
    """One server for all tests."""
    clients = [{key: value for key, value in each.items() if value is not None} for each in CLIENTS]
    with oidc_provider(tmp_path_factory.mktemp("oidc"), clients) as server:
        yield server


async def _echo(seen: Seen) -> web.StreamResponse:
    return web.json_response({"authorization": seen.all("authorization")[0]})


@pytest.mark.parametrize("client", WRITTEN)
@pytest.mark.parametrize("by_issuer", [True, False], ids=["by issuer", "by token_url"])
async def test_each_way_to_authenticate_a_client_gets_a_token_that_is_live(
    provider: OIDCProvider, proxying: StartProxy, client: str, *, by_issuer: bool
) -> None:
    """The server itself says whose it is; the upstream gets it, and nobody else sees it."""
    where = {"issuer": provider.issuer} if by_issuer else {"token_url": f"{provider.issuer}/token"}
    credential = {
        "type": "oauth2",
        "grant": "client_credentials",
        "client_id": client,
        "scope": ["read"],
        **where,
        **WRITTEN[client],
    }
    async with (
        api(_echo) as upstream,
        proxying({"upstream": upstream.url, "credential": credential}, environ=ENVIRON, ca=provider.ca) as proxy,
    ):
        answer = await proxy.ask("GET", "/", {"Host": "localhost"})
    assert answer.status == 200
    scheme, _, token = json.loads(answer.body)["authorization"].partition(" ")
    known = await provider.introspect(token, OBSERVER)
    assert (scheme, known["active"], known["client_id"], known["scope"]) == ("Bearer", True, client, "read")


@pytest.mark.parametrize("client", ["secret-jwt", "ES256"])
async def test_095_a_client_proves_who_it_is_by_the_servers_clock_where_its_own_is_wrong(
    provider: OIDCProvider, proxying: StartProxy, client: str
) -> None:
    """Two hours behind: what is over already is refused, and the refusal says what time it is."""
    credential = {
        "type": "oauth2",
        "grant": "client_credentials",
        "issuer": provider.issuer,
        "client_id": client,
        **WRITTEN[client],
    }
    config = {"upstream": "", "credential": credential}
    clock = HeldClock(epoch=time.time() - HeldClock.at - 7200)
    async with api(_echo) as upstream:
        config["upstream"] = upstream.url
        async with proxying(config, environ=ENVIRON, ca=provider.ca, clock=clock) as proxy:
            assert (await proxy.ask("GET", "/", {"Host": "localhost"})).status == 200
            [skewed] = proxy.lines("clock_skewed")
            assert round(skewed["seconds"] / 60) == 120
            assert (await proxy.admin("POST", "/api/credentials/default/refresh")).status == 200
            assert len(proxy.lines("clock_skewed")) == 1


@pytest.mark.parametrize(("name", "is_known"), [("tool.example.com", True), ("other.example.com", False)])
async def test_a_client_may_prove_who_it_is_by_its_certificate(
    provider: OIDCProvider, proxying: StartProxy, tmp_path: Path, name: str, *, is_known: bool
) -> None:
    """RFC 8705; a certificate of the same authority for another name is not enough."""
    issued = provider.authority.issue_cert(name)
    for path, content in (("key.pem", issued.private_key_pem), ("cert.pem", issued.cert_chain_pems[0])):
        (tmp_path / path).touch(mode=0o600)
        content.write_to_path(str(tmp_path / path))
    tls = {"ca": str(provider.ca), "cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    credential = {
        "type": "oauth2",
        "grant": "client_credentials",
        "issuer": provider.issuer,
        "client_id": "tls",
        "client_auth": "tls",
        "tls": tls,
    }
    async with api(_echo) as upstream, proxying({"upstream": upstream.url, "credential": credential}) as proxy:
        answer = await proxy.ask("GET", "/", {"Host": "localhost"})
    if not is_known:
        assert (answer.status, answer.json()["code"]) == (502, "credential_rejected")
        return
    token = answer.json()["authorization"].removeprefix("Bearer ")
    assert (await provider.introspect(token, OBSERVER))["client_id"] == "tls"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"client_secret": {"env": "WRONG"}}, "invalid_client"),
        ({"scope": ["offline_access"]}, "invalid_scope"),
        ({"client_id": "nobody"}, "invalid_client"),
    ],
    ids=["wrong secret", "wrong scope", "unknown client"],
)
async def test_what_the_server_refuses_is_told_by_its_code(
    provider: OIDCProvider, proxying: StartProxy, change: dict[str, Any], sentence: str
) -> None:
    """502, what to mend, and nothing goes to the upstream."""
    credential = {
        "type": "oauth2",
        "grant": "client_credentials",
        "issuer": provider.issuer,
        "client_id": "post",
        "client_auth": "post",
        "client_secret": {"env": "SECRET"},
        **change,
    }
    async with (
        api(_echo) as upstream,
        proxying({"upstream": upstream.url, "credential": credential}, environ=ENVIRON, ca=provider.ca) as proxy,
    ):
        answer = await proxy.ask("GET", "/", {"Host": "localhost"})
    assert answer.status == 502
    problem = json.loads(answer.body)
    assert problem["code"] == "credential_rejected"
    assert sentence in problem["detail"]
    assert upstream.seen == []
