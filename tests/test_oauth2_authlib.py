"""Credentials of type `oauth2` against Authlib's server: a second opinion beside `test_oauth2_server.py`."""

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwk

from tests.support.api import Seen, api
from tests.support.authlib_server import LIFETIME, AuthlibServer, Client, authlib_server
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries

#: Every character that a form-encoded Basic password has to be encoded for.
SECRET: Final = "a:b/c+d %e&f=g~h-0123456789-0123456789"
OBSERVER: Final = ("observer", "observer-0123456789-0123456789-01")
PASSWORD: Final = "ann's +%&= password 0123456789"
BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _keys() -> dict[str, PrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {"RS256": key, "ES256": ec.generate_private_key(ec.SECP256R1())}


KEYS: Final = _keys()
KINDS: Final[dict[str, Any]] = {"RS256": jwk.RSAKey, "ES256": jwk.ECKey}


def _pem(algorithm: str) -> str:
    return KEYS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public(algorithm: str) -> Any:
    pem = KEYS[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return KINDS[algorithm].import_key(pem)


GRANTS: Final = ("client_credentials", "password", "refresh_token", BEARER)
CLIENTS: Final = [
    Client(OBSERVER[0], "client_secret_basic", (), OBSERVER[1]),
    Client("basic client+1", "client_secret_basic", GRANTS, SECRET),
    Client("post", "client_secret_post", GRANTS, SECRET),
    Client("public", "none", GRANTS),
    Client("secret-jwt", "client_assertion_jwt", GRANTS, SECRET, jwk.OctKey.import_key(SECRET)),
    *(Client(algorithm, "client_assertion_jwt", GRANTS, key=_public(algorithm)) for algorithm in KEYS),
]
#: How each of them is written in a configuration.
WRITTEN: Final[dict[str, dict[str, Any]]] = {
    "basic client+1": {"client_secret": {"env": "SECRET"}},
    "post": {"client_secret": {"env": "SECRET"}, "client_auth": "post"},
    "public": {"client_auth": "none"},
    "secret-jwt": {"client_secret": {"env": "SECRET"}, "client_auth": "client_secret_jwt"},
    **{
        algorithm: {"client_auth": "private_key_jwt", "algorithm": algorithm, "key": {"env": f"KEY_{algorithm}"}}
        for algorithm in KEYS
    },
}
ENVIRON: Final = {
    "SECRET": SECRET,
    "WRONG": "wrong" * 9,
    "PASSWORD": PASSWORD,
    **{f"KEY_{name}": _pem(name) for name in KEYS},
}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[AuthlibServer]:
    """A server with nothing issued."""
    folder = tmp_path_factory.mktemp("authlib")
    with authlib_server(folder, CLIENTS, {"ann": PASSWORD}, lambda: canaries.mint("token")) as running:
        yield running


@pytest.fixture
def clock() -> HeldClock:
    """Held, at the time of the server."""
    return HeldClock(epoch=time.time() - HeldClock.at)


class Upstream:
    """An API that takes the tokens which the server says are live."""

    def __init__(self, server: AuthlibServer) -> None:
        self._server = server
        #: Token and client of each request, with None for a token that is not live.
        self.called: list[tuple[str, str | None]] = []

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """401 for the others."""
        token = seen.all("authorization")[0].removeprefix("Bearer ")
        known = await self._server.knows(token, OBSERVER)
        self.called.append((token, known.get("client_id")))
        return web.Response(status=200 if known["active"] else 401, text=known.get("username") or "-")


async def ask(proxy: Proxy) -> tuple[int, str]:
    """One request through the proxy: status, and whose token it was (or the code of a refusal)."""
    answer = await proxy.ask("GET", "/", {"Host": "localhost"})
    return answer.status, answer.code or answer.body.decode()


def written(server: AuthlibServer, grant: str, client: str, **more: Any) -> dict[str, Any]:
    """A credential."""
    where = {"token_url": f"{server.url}/token"}
    given = {"type": "oauth2", "grant": grant, "client_id": client, **where, **WRITTEN[client], **more}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize("client", WRITTEN)
@pytest.mark.parametrize("by_issuer", [True, False], ids=["by issuer", "by token_url"])
async def test_each_way_to_authenticate_a_client_gets_a_token_that_is_live(
    server: AuthlibServer, proxying: StartProxy, client: str, *, by_issuer: bool
) -> None:
    """This server decodes a Basic password in another way than oidc-provider, and they agree on ours."""
    where = {"issuer": server.url, "token_url": None} if by_issuer else {}
    credential = written(server, "client_credentials", client, scope=["read"], **where)
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying({"upstream": far_end.url, "credential": credential}, environ=ENVIRON, ca=server.ca) as proxy,
    ):
        assert await ask(proxy) == (200, "-")
        assert await ask(proxy) == (200, "-")
    [issued] = server.records.issued
    assert upstream.called == [(issued.access_token, client)] * 2
    assert issued.scope == "read"


@pytest.mark.parametrize(
    ("client", "change", "error"),
    [
        ("post", {"client_secret": {"env": "WRONG"}}, "invalid_client"),
        ("basic client+1", {"client_secret": {"env": "WRONG"}}, "invalid_client"),
        ("secret-jwt", {"client_secret": {"env": "WRONG"}}, "invalid_client"),
        ("post", {"client_id": "nobody"}, "invalid_client"),
        ("post", {"client_auth": "basic"}, "invalid_client"),
        ("post", {"scope": ["offline_access"]}, "invalid_scope"),
        ("post", {"grant": "password", "username": "ann", "password": {"env": "WRONG"}}, "invalid_request"),
        ("post", {"grant": "refresh_token", "refresh_token": {"env": "WRONG"}}, "invalid_grant"),
        (
            "post",
            {"grant": "token_exchange", "subject_token": {"env": "WRONG"}, "subject_token_type": "urn:x"},
            "unsupported_grant_type",
        ),
        ("RS256", {"grant": "jwt_bearer", "claims": {"iss": "nobody"}}, "invalid_grant"),
        ("RS256", {"grant": "jwt_bearer", "claims": {"iss": "ES256"}}, "invalid_grant"),
    ],
)
async def test_what_the_server_refuses_is_told_by_its_code(
    server: AuthlibServer, proxying: StartProxy, client: str, change: dict[str, Any], error: str
) -> None:
    """502, the code in the answer and in the log; nothing goes to the upstream, and nobody asks again.

    That a wrong password is an `invalid_request` is this server's own idea; it is a rejection either way.
    """
    credential = {**written(server, "client_credentials", client), **change}
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying({"upstream": far_end.url, "credential": credential}, environ=ENVIRON, ca=server.ca) as proxy,
    ):
        answer = await proxy.ask("GET", "/", {"Host": "localhost"})
        assert await ask(proxy) == (502, "credential_rejected")
        [event] = proxy.lines("credential_rejected")
    assert (answer.status, answer.code) == (502, "credential_rejected")
    assert f", {error}." in answer.json()["detail"]
    assert event["oauth_error"] == error
    assert upstream.called == []


async def test_refresh_tokens_rotate_and_each_is_redeemed_once(
    server: AuthlibServer, proxying: StartProxy, clock: HeldClock
) -> None:
    """The password goes out for the first token only."""
    credential = written(server, "password", "post", username="ann", password={"env": "PASSWORD"}, scope=["read"])
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying(
            {"upstream": far_end.url, "credential": credential}, environ=ENVIRON, ca=server.ca, clock=clock
        ) as proxy,
    ):
        for _ in range(3):
            assert await ask(proxy) == (200, "ann")
            clock.move(LIFETIME + 1)
    issued = server.records.issued
    assert [token for token, _ in upstream.called] == [each.access_token for each in issued]
    assert [each.is_dead for each in issued] == [True, True, False]
    assert [each.scope for each in issued] == ["read"] * 3


async def test_a_revoked_token_is_renewed_before_the_client_notices(
    server: AuthlibServer, proxying: StartProxy
) -> None:
    """Revoked at the server by somebody else (RFC 7009), refresh token included: begin anew by the password."""
    credential = written(server, "password", "basic client+1", username="ann", password={"env": "PASSWORD"})
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying({"upstream": far_end.url, "credential": credential}, environ=ENVIRON, ca=server.ca) as proxy,
    ):
        assert await ask(proxy) == (200, "ann")
        [first] = server.records.issued
        await server.revoke(first.access_token, ("basic client+1", SECRET))
        assert await ask(proxy) == (200, "ann")
    [_, second] = server.records.issued
    assert upstream.called == [
        (first.access_token, "basic client+1"),
        (first.access_token, None),
        (second.access_token, "basic client+1"),
    ]


async def test_a_refresh_token_from_elsewhere_lives_until_it_is_revoked(
    server: AuthlibServer, proxying: StartProxy, clock: HeldClock, canaries: Canaries
) -> None:
    """It rotates; when the server has revoked it, nobody can get another one but a person."""
    client = server.records.clients["public"]
    begin = canaries.mint("token")
    server.records.save({"access_token": canaries.mint("token"), "refresh_token": begin}, _Request(client, "ann"))
    credential = written(server, "refresh_token", "public", refresh_token={"env": "BEGIN"})
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying(
            {"upstream": far_end.url, "credential": credential},
            environ={**ENVIRON, "BEGIN": begin},
            ca=server.ca,
            clock=clock,
        ) as proxy,
    ):
        for _ in range(2):
            assert await ask(proxy) == (200, "ann")
            clock.move(LIFETIME + 1)
        server.records.issued[-1].is_dead = True
        assert await ask(proxy) == (502, "credential_rejected")
    assert len(server.records.issued) == 3


class _Request:
    def __init__(self, client: Client, user: str) -> None:
        self.client = client
        self.user = user


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_signed_assertion_is_redeemed_for_a_token(
    server: AuthlibServer, proxying: StartProxy, clock: HeldClock, algorithm: str
) -> None:
    """RFC 7523 section 2.1, a new one for each token; the client itself needs no other proof."""
    credential = written(
        server,
        "jwt_bearer",
        algorithm,
        client_id=None,
        client_auth="none",
        claims={"iss": algorithm, "sub": "ann"},
        scope=["read", "write"],
    )
    upstream = Upstream(server)
    async with (
        api(upstream.answer) as far_end,
        proxying(
            {"upstream": far_end.url, "credential": credential}, environ=ENVIRON, ca=server.ca, clock=clock
        ) as proxy,
    ):
        assert await ask(proxy) == (200, "ann")
        server.records.issued[0].is_dead = True
        assert await ask(proxy) == (200, "ann")
    assert [name for _, name in upstream.called] == [algorithm, None, algorithm]
    assert [each.scope for each in server.records.issued] == ["read write"] * 2
