"""Finding the endpoints of an authorization server from its issuer, over real sockets."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from aiohttp import web

from proxy.credentials.discovery import Discovery, locations
from proxy.credentials.token_endpoint import TokenEndpoint
from proxy.errors import CredentialUnavailable
from proxy.grants.reply import BODY_LIMIT
from tests.support.api import Api, Seen, api

OPENID: Final = "/.well-known/openid-configuration"
OAUTH: Final = "/.well-known/oauth-authorization-server"


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("https://id.example.com", (f"https://id.example.com{OPENID}", f"https://id.example.com{OAUTH}")),
        ("https://id.example.com/", (f"https://id.example.com{OPENID}", f"https://id.example.com{OAUTH}")),
        (
            "https://id.example.com:8443/realms/a",
            (f"https://id.example.com:8443/realms/a{OPENID}", f"https://id.example.com:8443{OAUTH}/realms/a"),
        ),
        (
            "https://id.example.com/t/",
            (f"https://id.example.com/t{OPENID}", f"https://id.example.com{OAUTH}/t"),
        ),
    ],
)
def test_metadata_may_be_at_two_places(issuer: str, expected: tuple[str, str]) -> None:
    """Behind the path of the issuer (OpenID Connect), or before it (RFC 8414 section 3.1)."""
    assert locations(issuer) == expected


@dataclass
class Server:
    """An authorization server: what it serves by path, all else is 404."""

    far_end: Api
    pages: dict[str, Callable[[], web.StreamResponse]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        """With a path, so that the two places differ."""
        return f"{self.far_end.url}/realms/a"

    @property
    def asked(self) -> list[str]:
        """Which paths, in order."""
        return [seen.target for seen in self.far_end.seen]

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """One request."""
        return self.pages.get(seen.target, lambda: web.Response(status=404, text="nothing here"))()

    def says(self, path: str, document: Mapping[str, Any] | None = None, **response: Any) -> None:
        """Serve this at `path`."""
        given = {"issuer": self.issuer, "token_endpoint": f"{self.issuer}/token"} if document is None else document
        made = {"text": json.dumps(given), "status": 200, "content_type": "application/json", **response}
        if "body" in made:
            del made["text"]
        self.pages[path] = lambda: web.Response(**made)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """On a free port."""
    async with api() as far_end:
        made = Server(far_end)
        far_end.answer = made.answer
        yield made


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """A client with the defaults."""
    client = TokenEndpoint()
    yield client
    await client.close()


async def failure(discovery: Discovery, member: str = "token_endpoint") -> str:
    """The sentence that it ends with; it names the credential."""
    with pytest.raises(CredentialUnavailable) as caught:
        await discovery.url(member)
    assert caught.value.detail.startswith("Credential 'billing', issuer: ")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.detail


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        (f"/realms/a{OPENID}", [f"/realms/a{OPENID}"]),
        (f"{OAUTH}/realms/a", [f"/realms/a{OPENID}", f"{OAUTH}/realms/a"]),
    ],
)
async def test_the_token_endpoint_is_found_at_both_places_and_asked_for_once(
    server: Server, endpoint: TokenEndpoint, place: str, asked: list[str]
) -> None:
    """What was found is remembered; the request says what it wants and carries no secret."""
    server.says(place)
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    for _ in range(2):
        assert await discovery.url("token_endpoint") == f"{server.issuer}/token"
    assert server.asked == asked
    seen = server.far_end.seen[0]
    assert (seen.method, seen.body) == ("GET", b"")
    assert seen.all("accept") == ["application/json"]
    assert seen.all("accept-encoding") == ["identity"]
    assert seen.all("authorization") == []


async def test_other_endpoints_are_found_by_their_names(server: Server, endpoint: TokenEndpoint) -> None:
    """From the same document."""
    url = "https://id.example.com/device?v=1"
    server.says(f"/realms/a{OPENID}", {"issuer": server.issuer, "device_authorization_endpoint": url, "n": 7})
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert await discovery.url("device_authorization_endpoint") == url
    assert "its metadata has no token_endpoint" in await failure(discovery)
    assert "has no n;" in await failure(discovery, "n")
    assert len(server.asked) == 1


@pytest.mark.parametrize("named", ["https://evil.example.com", "", None, 7, ["x"]])
async def test_metadata_of_another_issuer_is_refused(
    server: Server, endpoint: TokenEndpoint, named: object
) -> None:
    """One server could else speak for another (RFC 8414 section 3.3, RFC 9700 section 4.4)."""
    server.says(f"/realms/a{OPENID}", {"issuer": named, "token_endpoint": "https://evil.example.com/token"})
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert "names another issuer" in await failure(discovery)


async def test_an_issuer_that_differs_by_a_slash_is_another_one(server: Server, endpoint: TokenEndpoint) -> None:
    """The sentence says how to write it."""
    server.says(f"/realms/a{OPENID}")
    discovery = Discovery("billing", f"{server.issuer}/", endpoint, secure=True)
    assert "write the issuer as it does" in await failure(discovery)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>login</html>", b"[]", b"null", b'"text"', b"\xff\xfe", b"{", b'{"a":' + b"[" * 60_000],
    ids=["empty", "html", "list", "null", "text", "no text", "broken", "deep"],
)
async def test_metadata_that_is_no_json_object_is_refused(
    server: Server, endpoint: TokenEndpoint, body: bytes
) -> None:
    """Without a byte of it in the sentence."""
    server.says(f"/realms/a{OPENID}", body=body)
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert "its metadata is no JSON" in await failure(discovery)


async def test_metadata_that_is_too_large_is_refused(server: Server, endpoint: TokenEndpoint) -> None:
    """The same limit as for token replies (threat 56)."""
    server.says(f"/realms/a{OPENID}", {"issuer": server.issuer, "pad": "x" * BODY_LIMIT})
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert "cannot be had" in await failure(discovery)


@pytest.mark.threat(54)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(server: Server, endpoint: TokenEndpoint, status: int) -> None:
    """Where the endpoints are is for the issuer alone to say."""
    server.says(f"/realms/a{OPENID}", {}, status=status, headers={"Location": f"{server.far_end.url}/other"})
    server.says("/other")
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert f"cannot be had (status {status})" in await failure(discovery)
    assert server.asked == [f"/realms/a{OPENID}"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_a_failure_is_not_remembered(server: Server, endpoint: TokenEndpoint, status: int) -> None:
    """The next token request asks again."""
    server.says(f"/realms/a{OPENID}", status=status)
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert f"(status {status})" in await failure(discovery)
    server.says(f"/realms/a{OPENID}")
    assert await discovery.url("token_endpoint") == f"{server.issuer}/token"


async def test_a_server_without_metadata_needs_a_token_url(server: Server, endpoint: TokenEndpoint) -> None:
    """404 at both places."""
    discovery = Discovery("billing", server.issuer, endpoint, secure=True)
    assert "it has no metadata; name token_url in the configuration" in await failure(discovery)
    assert server.asked == [f"/realms/a{OPENID}", f"{OAUTH}/realms/a"]


async def test_nobody_there_is_told_with_the_name_of_the_credential(
    endpoint: TokenEndpoint, unused_tcp_port: int
) -> None:
    """One of several credentials has the wrong issuer; which?"""
    discovery = Discovery("billing", f"http://127.0.0.1:{unused_tcp_port}", endpoint, secure=True)
    assert "No connection to the token endpoint could be made." in await failure(discovery)


@pytest.mark.threat(55)
@pytest.mark.parametrize(
    ("url", "secure", "fine"),
    [
        ("https://id.example.com/token", True, True),
        ("HTTPS://id.example.com/token", True, True),
        ("http://id.example.com/token", True, False),
        ("http://id.example.com/token", False, True),
        ("http://127.0.0.1:8080/token", True, True),
        ("http://[::1]/token", True, True),
        ("http://localhost/token", True, True),
        ("http://localhost.example.com/token", True, False),
        ("http://127.0.0.1.example.com/token", True, False),
    ],
)
async def test_an_endpoint_in_plain_http_is_refused_unless_it_is_on_this_machine(
    server: Server, endpoint: TokenEndpoint, url: str, *, secure: bool, fine: bool
) -> None:
    """As for a URL in the configuration (threat 55): a server for development is on loopback."""
    server.says(f"/realms/a{OPENID}", {"issuer": server.issuer, "token_endpoint": url})
    discovery = Discovery("billing", server.issuer, endpoint, secure=secure)
    if fine:
        assert await discovery.url("token_endpoint") == url
    else:
        assert "its token_endpoint is not https" in await failure(discovery)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/token",
        "ftp://id.example.com/token",
        "https://",
        "https://id.example.com:0/token",
        "https://[::1/token",
        "https://id.example.com/to ken",
        "https://id.example.com/token\r\nX-Evil: 1",
        "https://ann:secret@id.example.com/token",
        "https://id.example.com/token#fragment",
        "https://id.éxample.com/token",
    ],
)
@pytest.mark.parametrize("secure", [True, False])
async def test_an_endpoint_that_is_no_proper_url_is_refused(
    server: Server, endpoint: TokenEndpoint, url: str, *, secure: bool
) -> None:
    """Nothing of it gets into a request."""
    server.says(f"/realms/a{OPENID}", {"issuer": server.issuer, "token_endpoint": url})
    discovery = Discovery("billing", server.issuer, endpoint, secure=secure)
    assert "its token_endpoint is no URL that can be used" in await failure(discovery)


@pytest.mark.parametrize(("mutual", "expected"), [(True, "https://mtls.example.com/token"), (False, "{}/token")])
@pytest.mark.parametrize("odd", [False, True])
async def test_a_client_that_shows_a_certificate_is_sent_to_the_endpoints_for_that(
    server: Server, endpoint: TokenEndpoint, expected: str, *, mutual: bool, odd: bool
) -> None:
    """RFC 8705 section 5; aliases that are no object are none."""
    aliases: object = ["odd"] if odd else {"token_endpoint": "https://mtls.example.com/token"}
    document = {
        "issuer": server.issuer,
        "token_endpoint": f"{server.issuer}/token",
        "mtls_endpoint_aliases": aliases,
    }
    server.says(f"/realms/a{OPENID}", document)
    found = await Discovery("billing", server.issuer, endpoint, secure=True, mutual=mutual).url("token_endpoint")
    assert found == ("{}/token" if odd else expected).format(server.issuer)
