"""Logins that need a person, and logouts, with a server that says what the test wants: order, times, and ends."""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import requests
import yaml
from aiohttp import web

from proxy.build import Means
from proxy.build.opened import Opened, opened, resting
from proxy.config import Config, Source, load
from proxy.credentials.callback import CallbackError
from proxy.credentials.endpoint import Clients
from proxy.credentials.interactive import LoggedIn, Login, LoginFailed, keep
from proxy.credentials.logout import LoggedOut, log_out
from proxy.errors import ConfigError, CredentialRejected, CredentialUnavailable, LoginRequired
from proxy.grants.request import Granted
from proxy.redact import Redactor, Secret
from proxy.stores.base import Record
from tests.support.api import Seen, api
from tests.support.harness import HeldClock
from tests.support.keeping import Kept
from tests.support.leaks import Artefacts, Canaries
from tests.support.person import Somebody

BINDING: Final = b"binding"
ISSUER_MEMBERS: Final = {
    "token_endpoint": "/token",
    "authorization_endpoint": "/authorize",
    "device_authorization_endpoint": "/device",
    "revocation_endpoint": "/revoke",
}
Reply = tuple[int, Any]


@dataclass
class Server:
    """Answers each path from a list of its own, the last entry for ever; `asked` keeps path and fields."""

    url: str
    clock: HeldClock
    outside: Means
    canaries: Canaries
    artefacts: Artefacts
    replies: dict[str, deque[Reply]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    drawn: int = 0

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """One request."""
        path = seen.target.partition("?")[0]
        self.asked.append((path, dict(parse_qsl(seen.body.decode()))))
        known = self.replies.get(path, deque([(404, {})]))
        status, document = known.popleft() if len(known) > 1 else known[0]
        return web.json_response(document, status=status)

    def says(self, path: str, *replies: Reply) -> None:
        """What this path answers, one after another."""
        self.replies[path] = deque(replies)

    def is_issuer(self, **more: Any) -> None:
        """Publish metadata."""
        members = {name: f"{self.url}{path}" for name, path in ISSUER_MEMBERS.items()}
        self.says("/.well-known/openid-configuration", (200, {"issuer": self.url, **members, **more}))

    def tokens(self, **more: Any) -> Reply:
        """A token reply, with tokens of which nobody may hear."""
        given = {"access_token": self.canaries.mint("token"), "refresh_token": self.canaries.mint("uuid")}
        return 200, {"token_type": "Bearer", "expires_in": 300, **given, **more}

    def credential(self, grant: str, **more: Any) -> Opened:
        """A credential of this server, by its endpoints or (where it is one) as an issuer."""
        return opened(self.config(grant, **more), "calendar", self.outside)

    def config(self, grant: str, **more: Any) -> Config:
        """The same, in a configuration whose store is gone with the process."""
        where: dict[str, Any] = {
            "token_url": f"{self.url}/token",
            "authorization_url": f"{self.url}/authorize?prompt=consent",
            "device_url": f"{self.url}/device",
        }
        if "issuer" in more:
            where = {"insecure_http": True}
        written = {"type": "oauth2", "grant": grant, "client_id": "tool", "scope": "a b", **where, **more}
        document = {
            "routes": [{"prefix": "/api", "upstream": "https://api.example.com", "credential": "calendar"}],
            "credentials": {"calendar": {name: value for name, value in written.items() if value is not None}},
        }
        return load(Source(yaml.safe_dump(document), "test.yaml", None, "test"), environ={})

    def login(self, person: Somebody, grant: str, **more: Any) -> Login:
        """A login that sleeps by moving the clock."""
        self.artefacts.watch("what the person was told", lambda: person.text)

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.clock.move(seconds)

        return replace(self.credential(grant, **more).login(person, self._random), sleep=sleep)

    def _random(self, size: int) -> bytes:
        """First the verifier, of which nobody may hear; then the state, which stands in the page's address."""
        self.drawn += 1
        return self.canaries.mint("token").encode()[:size] if self.drawn % 2 else secrets.token_bytes(size)


@pytest.fixture
async def server(canaries: Canaries, artefacts: Artefacts) -> AsyncIterator[Server]:
    """A server that knows no path yet, and a clock that is held."""
    clock = HeldClock()
    outside = Means(clock=clock, redactor=Redactor(), clients=Clients())
    async with api() as behind:
        made = Server(behind.url, clock, outside, canaries, artefacts)
        behind.answer = made.answer
        try:
            yield made
        finally:
            await outside.clients.close()


def _returning(query: Mapping[str, str] | None = None) -> Any:
    """A browser that comes back at once, with this besides the state."""

    def open_page(url: str) -> requests.Response:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        back = {"code": "the-code-of-this-login", "state": asked["state"], **(query or {})}
        return requests.get(asked["redirect_uri"], back, timeout=5)

    return open_page


# -- the authorization code


async def test_the_request_is_what_the_standards_say(server: Server) -> None:
    """One page with one set of parameters; the code goes to the token endpoint with the verifier, once."""
    server.says("/token", server.tokens())
    person = Somebody(_returning())
    login = await server.login(person, "authorization_code", audience="https://api", resource="https://r").run()
    url = urlsplit(person.opened[0])
    asked = dict(parse_qsl(url.query))
    assert asked == {
        "prompt": "consent",
        "response_type": "code",
        "client_id": "tool",
        "redirect_uri": asked["redirect_uri"],
        "scope": "a b",
        "audience": "https://api",
        "resource": "https://r",
        "state": asked["state"],
        "code_challenge": asked["code_challenge"],
        "code_challenge_method": "S256",
    }
    ((path, fields),) = server.asked
    assert (path, fields.pop("code_verifier") != asked["code_challenge"]) == ("/token", True)
    assert fields == {
        "grant_type": "authorization_code",
        "code": "the-code-of-this-login",
        "redirect_uri": asked["redirect_uri"],
        "client_id": "tool",
        "resource": "https://r",
    }
    assert login.at == server.outside.clock.wall()
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")


async def test_verifier_and_code_are_masked_and_the_tokens_too(server: Server) -> None:
    """Whatever is logged afterwards: none of them is in it."""
    server.says("/token", server.tokens())
    login = server.login(Somebody(_returning()), "authorization_code")
    granted = (await login.run()).granted
    assert granted.refresh_token is not None
    spoken = [server.asked[0][1]["code_verifier"], "the-code-of-this-login"]
    spoken += [granted.token.reveal(), granted.refresh_token.reveal()]
    assert server.outside.redactor.text(" ".join(spoken)) == "*** *** *** ***"


@pytest.mark.threat(110)
@pytest.mark.parametrize(
    ("promised", "name", "taken"),
    [(True, True, True), (True, False, False), (False, False, True), (False, "https://evil.example", False)],
)
async def test_the_server_must_be_the_one_that_was_asked(
    server: Server,
    promised: bool,  # noqa: FBT001  a column of the table
    name: bool | str,  # noqa: FBT001  same
    taken: bool,  # noqa: FBT001  same
) -> None:
    """RFC 9207: a name is compared, and missed where metadata promise it; a code of another is sent nowhere."""
    server.is_issuer(authorization_response_iss_parameter_supported=promised)
    server.says("/token", server.tokens())
    query = {True: {"iss": server.url}, False: {}}.get(name) if isinstance(name, bool) else {"iss": name}
    login = server.login(Somebody(_returning(query)), "authorization_code", issuer=server.url).run()
    if taken:
        await login
    else:
        with pytest.raises(LoginFailed, match="names another server"):
            await login
    assert ("/token" in [path for path, _ in server.asked]) == taken


async def test_a_login_waits_for_its_own_answer_only(server: Server) -> None:
    """A page of somebody else comes first; it is told how many such came, when nobody comes."""

    def others(url: str) -> None:
        for state in ("wrong", "", "wrong again"):
            _returning({"state": state})(url)

    person = Somebody(others)
    login = replace(server.login(person, "authorization_code"), wait=1.0)
    with pytest.raises(
        LoginFailed, match=r"no answer came within 0 minutes \(3 that came were not for this login\)"
    ):
        await login.run()
    assert server.asked == []


@pytest.mark.threat(110)
async def test_nobody_comes(server: Server) -> None:
    """The wait ends, and the person is told how to begin again."""
    login = replace(server.login(Somebody(lambda _url: None), "authorization_code"), wait=0.05)
    with pytest.raises(LoginFailed, match=r"no answer came within 0 minutes\. Run `bearer-proxy login calendar`"):
        await login.run()


async def test_without_browser_and_terminal_nothing_is_begun(server: Server) -> None:
    """A sentence says what to do; nothing is asked and nothing listens."""
    person = Somebody()
    with pytest.raises(LoginFailed, match=r"neither one nor a terminal here: run .* --no-browser` in a terminal"):
        await server.login(person, "authorization_code").run()
    assert (server.asked, person.told) == ([], [])


async def test_an_input_that_ends_without_an_address_ends_the_login(server: Server) -> None:
    """Nobody can answer any more."""
    person = Somebody(types=True)
    person.lines.put_nowait(None)
    with pytest.raises(LoginFailed, match="no address was pasted"):
        await server.login(person, "authorization_code").run()


async def test_an_input_that_ends_does_not_end_the_wait_for_a_browser(server: Server) -> None:
    """It comes back later."""
    server.says("/token", server.tokens())
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def later(url: str) -> None:
        asyncio.run_coroutine_threadsafe(ended.wait(), loop).result(5)
        _returning()(url)

    person = Somebody(later, types=True)
    person.lines.put_nowait(None)
    login = asyncio.create_task(server.login(person, "authorization_code").run())
    await person.page()
    ended.set()
    assert (await login).granted.lifetime == 300


@pytest.mark.parametrize("line", ["not an address", "http://[", "https://evil.example/callback?code=a"])
async def test_a_pasted_line_that_is_no_answer_is_asked_for_again(server: Server, line: str) -> None:
    """Only what begins with the callback's own address, and carries the state, counts."""
    server.says("/token", server.tokens())
    person = Somebody(types=True)
    login = asyncio.create_task(server.login(person, "authorization_code").run())
    asked = dict(parse_qsl(urlsplit(await person.page()).query))
    person.lines.put_nowait(line)
    person.lines.put_nowait(f"{asked['redirect_uri']}?code=abc&state=wrong")
    person.lines.put_nowait(f"{asked['redirect_uri']}?code=abc&state={asked['state']}")
    await login
    assert person.text.count("That is not the address") == 2
    assert server.asked[0][1]["code"] == "abc"


async def test_a_pasted_refusal_ends_the_login(server: Server) -> None:
    """The address that the browser ended at says no."""
    person = Somebody(types=True)
    login = asyncio.create_task(server.login(person, "authorization_code").run())
    asked = dict(parse_qsl(urlsplit(await person.page()).query))
    person.lines.put_nowait(f"{asked['redirect_uri']}?error=access_denied&state={asked['state']}")
    with pytest.raises(LoginFailed, match="did not agree, access_denied"):
        await login


async def test_a_code_that_the_server_does_not_take_ends_the_login(server: Server) -> None:
    """It is sent once: a second time it would revoke what the first one gave (RFC 6749 section 4.1.2)."""
    server.says("/token", (400, {"error": "invalid_grant"}))
    with pytest.raises(LoginFailed, match="rejects the request, invalid_grant"):
        await server.login(Somebody(_returning()), "authorization_code").run()
    assert len(server.asked) == 1


async def test_a_registered_port_and_path_are_used(server: Server) -> None:
    """Some servers compare the whole address."""
    async with api() as elsewhere:
        port = urlsplit(elsewhere.url).port
        with pytest.raises(CallbackError, match=str(port)):
            await server.login(Somebody(_returning()), "authorization_code", redirect_port=port).run()
    server.says("/token", server.tokens())
    person = Somebody(_returning())
    await server.login(person, "authorization_code", redirect_port=port, redirect_path="/cb").run()
    assert f"redirect_uri=http%3A//127.0.0.1%3A{port}/cb".replace("/", "%2F") in person.opened[0]


# -- the code for a device

CODES: Final = {
    "device_code": "device-code-0123456789",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://id.example.com/device",
    "expires_in": 60,
    "interval": 5,
}
PENDING: Final = (400, {"error": "authorization_pending"})
SLOWER: Final = (400, {"error": "slow_down"})
DOWN: Final[Reply] = (503, {})


@pytest.mark.parametrize(
    ("replies", "slept", "end"),
    [
        ([PENDING, PENDING, None], [5, 5, 5], None),
        ([None], [5], None),
        ([PENDING, SLOWER, PENDING, None], [5, 5, 10, 10], None),
        ([DOWN, DOWN, PENDING, None], [5, 10, 20, 5], None),
        ([PENDING], [5] * 11, "has expired before anybody entered it"),
        ([PENDING, (400, {"error": "expired_token"})], [5, 5], "has expired before anybody entered it"),
        ([PENDING, (400, {"error": "access_denied"})], [5, 5], "did not agree"),
        ([(401, {"error": "invalid_client"})], [5], "The server refused the token request, invalid_client."),
        ([(200, {"error": "access_denied"})], [5], "did not agree"),
        ([(200, {"token_type": "Bearer"})], [5], "no text where the token is expected"),
    ],
    ids=["pending", "at once", "slow down", "down", "nobody", "expired", "denied", "client", "GitHub", "no token"],
)
async def test_questions_go_on_until_somebody_answers(
    server: Server, replies: list[Reply | None], slept: list[float], end: str | None
) -> None:
    """At the pace that the server asks for, and never after the end of the code."""
    server.says("/device", (200, CODES))
    server.says("/token", *(server.tokens() if reply is None else reply for reply in replies))
    person = Somebody()
    login = server.login(person, "device_code").run()
    if end is None:
        begun_at = server.outside.clock.wall()
        assert (await login).at == begun_at + sum(slept)
    else:
        with pytest.raises((LoginFailed, CredentialUnavailable), match=end):
            await login
    assert server.slept == slept
    assert server.asked[0] == ("/device", {"client_id": "tool", "scope": "a b"})
    assert server.asked[1][1] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "device-code-0123456789",
        "client_id": "tool",
    }
    assert "https://id.example.com/device\n\nand enter this code:\n\n  WDJB-MJHT" in person.text
    assert "device-code-0123456789" not in person.text


async def test_a_question_that_got_no_answer_is_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More seldom each time (RFC 8628 section 3.5)."""
    server.says("/device", (200, CODES))
    server.says("/token", server.tokens())
    login = server.login(Somebody(), "device_code")
    question, lost = login.grant.question, [1, 2]

    async def losing(*arguments: Any) -> Any:
        if lost:
            lost.pop()
            raise CredentialUnavailable("The connection to the token endpoint was lost.")
        return await question(*arguments)

    monkeypatch.setattr(login.grant, "question", losing)
    await login.run()
    assert server.slept == [5, 10, 20]


async def test_a_browser_here_gets_the_page_with_the_code(server: Server) -> None:
    """The person compares it."""
    page = "https://id.example.com/device?user_code=WDJB-MJHT"
    server.says("/device", (200, {**CODES, "verification_uri_complete": page}))
    server.says("/token", server.tokens())
    person = Somebody(lambda _url: None)
    await server.login(person, "device_code").run()
    assert person.opened == [page]
    assert f"compare it: {page}" in person.text


async def test_a_server_that_gives_no_code_ends_the_login(server: Server) -> None:
    """With the server's word for it."""
    server.says("/device", (400, {"error": "unauthorized_client"}))
    with pytest.raises(LoginFailed, match="gave no code for this device, unauthorized_client"):
        await server.login(Somebody(), "device_code").run()


async def test_an_endpoint_that_nobody_knows_is_named(server: Server) -> None:
    """Discovered metadata may lack what a grant needs."""
    server.is_issuer(device_authorization_endpoint=None)
    with pytest.raises(CredentialUnavailable, match="no device_authorization_endpoint"):
        await server.login(Somebody(), "device_code", issuer=server.url).run()
    known = server.credential("device_code", revocation_url=None).server
    assert known is not None
    with pytest.raises(CredentialUnavailable, match="no revocation_endpoint is known"):
        await known[1].url("revocation_endpoint")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://id.example.com/authorize", "its authorization_endpoint is not https"),
        ("javascript:alert(1)", "its authorization_endpoint is no URL that can be used"),
        ("https://id.example.com/\x1b]0;title\x07", "its authorization_endpoint is no URL"),
    ],
)
async def test_a_page_that_is_no_proper_address_is_shown_to_nobody(server: Server, url: str, sentence: str) -> None:
    """Metadata come from elsewhere, and end in a terminal and in a browser."""
    issuer = server.url
    server.is_issuer(authorization_endpoint=url)
    person = Somebody(lambda _url: None, types=True)
    with pytest.raises(CredentialUnavailable, match=sentence):
        await server.login(person, "authorization_code", issuer=issuer, insecure_http=False).run()
    assert (person.told, person.opened) == ([], [])


# -- what a login leaves behind


@pytest.mark.parametrize(
    ("reply", "configured", "ends_in"),
    [
        ({}, None, None),
        ({"refresh_expires_in": 1800}, None, 1800.0),
        ({"refresh_token_expires_in": "15811200"}, None, 15811200.0),
        ({"refresh_expires_in": 0}, None, None),
        ({"refresh_expires_in": 1800}, "180d", 180 * 86400.0),
        ({}, "180d", 180 * 86400.0),
        ({"refresh_token": None}, "180d", None),
    ],
    ids=["silent", "Keycloak", "GitHub", "without end", "configured wins", "Spotify", "no refresh token"],
)
async def test_the_end_of_a_login_is_known(
    server: Server, reply: dict[str, Any], configured: str | None, ends_in: float | None
) -> None:
    """As the server says, or as it is configured."""
    server.says("/token", server.tokens(**reply))
    login = server.login(Somebody(_returning()), "authorization_code", refresh_lifetime=configured)
    record = await keep(Kept(), "calendar", BINDING, await login.run())
    wall = server.outside.clock.wall()
    assert (record.obtained_at, record.expires_at) == (wall, wall + 300)
    assert record.refresh_expires_at == (None if ends_in is None else wall + ends_in)


async def test_no_refresh_moves_the_configured_end_of_a_login(server: Server) -> None:
    """A refresh says nothing of it, so what was known holds; an unconfigured one follows the server."""
    server.says("/token", server.tokens(refresh_expires_in=1800))
    for configured, lifetime in (("180d", None), (None, 1800.0)):
        known = server.credential("authorization_code", refresh_lifetime=configured).server
        assert known is not None
        granted = await known[0].obtain(Secret("an earlier refresh token"))
        assert (granted.renewed, granted.refresh_lifetime) == (True, lifetime)


def test_a_login_without_times_is_a_record_without_times() -> None:
    """Nobody knows, and nothing is made up."""
    record = LoggedIn(Granted(Secret("t")), 5.0).record(3)
    assert record == Record(3, Secret("t"), 5.0, None, None, None)


async def test_a_login_is_kept_under_the_turn_as_the_next_generation() -> None:
    """What another has stored meanwhile counts; what is bound to something else does not."""
    store = Kept()
    login = LoggedIn(Granted(Secret("t")), 5.0)
    assert (await keep(store, "calendar", BINDING, login)).generation == 1
    async with store.turn("calendar"):
        late = asyncio.create_task(keep(store, "calendar", BINDING, login))
        await asyncio.sleep(0)
        await store.save("calendar", BINDING, login.record(7))
    assert (await late).generation == 8
    assert (await keep(store, "calendar", b"other", login)).generation == 1


def test_without_a_store_that_lasts_nobody_is_asked(server: Server) -> None:
    """The seam says what to set."""
    with pytest.raises(ConfigError, match=r"login needs a store that lasts: set store\.kind: file"):
        resting(server.config("authorization_code"), "calendar")
    with pytest.raises(ConfigError, match="needs no person"):
        server.credential("client_credentials").login(Somebody(), bytes)


# -- a running instance


@pytest.mark.parametrize(
    ("reply", "raised", "sentence"),
    [
        ((400, {"error": "invalid_grant"}), LoginRequired, "is logged out: .* Run `bearer-proxy login calendar`"),
        ((401, {"error": "invalid_request"}), LoginRequired, "Run `bearer-proxy login calendar`"),
        ((401, {"error": "invalid_client"}), CredentialRejected, "invalid_client"),
        ((400, {"error": "unauthorized_client"}), CredentialRejected, "unauthorized_client"),
        ((503, {}), CredentialUnavailable, "status 503"),
    ],
    ids=["revoked", "League", "wrong secret", "not allowed", "down"],
)
@pytest.mark.parametrize("grant", ["authorization_code", "device_code"])
async def test_a_refresh_that_fails_asks_for_a_person_only_where_one_helps(
    server: Server, grant: str, reply: Reply, raised: type[Exception], sentence: str
) -> None:
    """A wrong client secret is mended elsewhere, and an outage passes."""
    server.says("/token", reply)
    known = server.credential(grant).server
    assert known is not None
    with pytest.raises(raised, match=sentence):
        await known[0].obtain(Secret("an earlier refresh token"))
    assert [fields["grant_type"] for _, fields in server.asked] == ["refresh_token"]


async def test_nothing_to_refresh_with_asks_for_a_person(server: Server) -> None:
    """And asks nobody else."""
    known = server.credential("authorization_code").server
    assert known is not None
    with pytest.raises(LoginRequired, match=r"needs a person\. Run `bearer-proxy login calendar`"):
        await known[0].obtain(None)
    assert server.asked == []


# -- logout

TOKENS: Final = Record(4, Secret("access"), 0.0, None, Secret("refresh"))


@pytest.mark.parametrize(
    ("revocation", "replies", "asked", "expected"),
    [
        ("/revoke", [(200, {})], ["refresh_token", "access_token"], LoggedOut(found=True)),
        (None, [], [], LoggedOut(found=True, problem="the server has no place to revoke tokens")),
        (
            "/revoke",
            [(200, {}), (400, {"error": "unsupported_token_type"})],
            ["refresh_token", "access_token"],
            LoggedOut(
                found=True,
                problem="the server did not revoke the access token (status 400, unsupported_token_type)",
                failed=True,
            ),
        ),
        (
            "/revoke",
            [(503, {}), (200, {})],
            ["refresh_token", "access_token"],
            LoggedOut(found=True, problem="the server did not revoke the refresh token (status 503)", failed=True),
        ),
    ],
    ids=["revoked", "nowhere", "one kind only", "down"],
)
async def test_what_becomes_of_the_tokens_is_told(
    server: Server, revocation: str | None, replies: list[Reply], asked: list[str], expected: LoggedOut
) -> None:
    """The refresh token first, since it makes others; forgotten they are in any case."""
    store = Kept(records={"calendar": (BINDING, TOKENS)})
    server.says("/revoke", *replies or [(500, {})])
    url = None if revocation is None else f"{server.url}{revocation}"
    known = server.credential("authorization_code", revocation_url=url).server
    assert await log_out(store, "calendar", BINDING, known) == expected
    assert store.records == {}
    assert [fields["token_type_hint"] for _, fields in server.asked] == asked
    assert all(fields["client_id"] == "tool" for _, fields in server.asked)


async def test_a_server_that_does_not_answer_does_not_keep_tokens_here(server: Server) -> None:
    """The token lives on there, which is said; nobody here has it any more."""
    store = Kept(records={"calendar": (BINDING, TOKENS)})
    known = server.credential("authorization_code", revocation_url="http://127.0.0.1:1/revoke").server
    ended = await log_out(store, "calendar", BINDING, known)
    assert (ended.found, ended.failed, store.records) == (True, True, {})
    assert ended.problem is not None
    assert "No connection to the token endpoint could be made" in ended.problem


async def test_a_logout_says_where_it_could_not_read_what_it_forgot() -> None:
    """Another issuer, or another key: the tokens may live on, and nobody could revoke them."""
    store = Kept()
    async with store.turn("c"):
        await store.save("c", b"another binding", Record(1, Secret("t"), 0.0))
    ended = await log_out(store, "c", BINDING, None)
    assert (ended.found, ended.failed) == (True, True)
    assert "does not open with this configuration" in str(ended.problem)
    assert store.records == {}


async def test_without_a_server_that_revokes_a_logout_forgets() -> None:
    """Any credential with a stored token can be forgotten."""
    store = Kept(records={"calendar": (BINDING, TOKENS)})
    assert (await log_out(store, "calendar", BINDING, None)).problem == "the server has no place to revoke tokens"
    assert await log_out(store, "calendar", BINDING, None) == LoggedOut(found=False)
    assert json.dumps(sorted(store.records)) == "[]"
