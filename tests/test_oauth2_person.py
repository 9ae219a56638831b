"""The grants that need a person, against an authorization server that nobody here wrote (`tests/support/oidc.py`).

The person is made of plain HTTP requests: a browser that follows redirects with cookies, and says yes or no.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
import yaml

from proxy.build import Means
from proxy.build.opened import Opened, opened
from proxy.clock import SystemClock
from proxy.config import Source, load
from proxy.credentials.endpoint import Clients
from proxy.credentials.interactive import LoginFailed, keep
from proxy.credentials.logout import LoggedOut, log_out
from proxy.errors import LoginRequired
from proxy.grants.request import TokenReply
from proxy.redact import Redactor
from proxy.stores.base import Missing, Record
from tests.support.keeping import Kept
from tests.support.leaks import Artefacts, Canaries
from tests.support.oidc import OIDCProvider, oidc_provider
from tests.support.person import Somebody

SECRET: Final = "a:b/c+d %e&f=g~h-0123456789-0123456789"
OBSERVER: Final = ("observer", "observer-0123456789-0123456789-01")
BINDING: Final = b"binding"
CODE: Final = "authorization_code"
DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"


def _client(name: str, **more: Any) -> dict[str, Any]:
    return {
        "client_id": name,
        "application_type": "native",
        "grant_types": [CODE, DEVICE, "refresh_token"],
        "redirect_uris": ["http://127.0.0.1/callback"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "openid offline_access read",
        **more,
    }


CLIENTS: Final = [
    _client("public"),
    _client("secret", token_endpoint_auth_method="client_secret_basic", client_secret=SECRET),
    {
        "client_id": OBSERVER[0],
        "client_secret": OBSERVER[1],
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "client_secret_basic",
    },
]
#: How they are written in a configuration.
WRITTEN: Final[Mapping[str, Mapping[str, Any]]] = {"public": {}, "secret": {"client_secret": {"env": "SECRET"}}}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OIDCProvider]:
    """One server for all tests."""
    with oidc_provider(tmp_path_factory.mktemp("oidc"), CLIENTS) as server:
        yield server


@dataclass
class Calendar:
    """The credential under test, its store, and the server's view of its tokens."""

    provider: OIDCProvider
    credential: Opened
    store: Kept
    canaries: Canaries
    artefacts: Artefacts

    async def log_in(self, person: Somebody) -> Record:
        """What `bearer-proxy login` does."""
        self.artefacts.watch("what the person was told", lambda: person.text)
        login = self.credential.login(person, secrets.token_bytes)
        record = await keep(self.store, "calendar", BINDING, await login.run())
        await asyncio.gather(*person.browsing)
        return self.known(record)

    async def refresh(self, record: Record) -> Record:
        """What a running instance does."""
        assert self.credential.server is not None
        granted = await self.credential.server[0].obtain(record.refresh_token)
        assert granted.renewed
        return self.known(Record(record.generation + 1, granted.token, 0.0, None, granted.refresh_token))

    async def log_out(self) -> LoggedOut:
        """What `bearer-proxy logout` does."""
        return await log_out(self.store, "calendar", BINDING, self.credential.server)

    async def is_live(self, record: Record) -> tuple[bool, bool]:
        """What the server itself says of access token and refresh token."""
        assert record.refresh_token is not None
        tokens = record.token, record.refresh_token
        return tuple([(await self.provider.introspect(each.reveal(), OBSERVER))["active"] for each in tokens])

    def known(self, record: Record) -> Record:
        """From now on a leak of these fails the test."""
        self.canaries.adopt(record.token.reveal(), "token")
        if record.refresh_token is not None:
            self.canaries.adopt(record.refresh_token.reveal(), "token")
        return record


Using = Callable[..., Any]


@pytest.fixture
def using(provider: OIDCProvider, canaries: Canaries, artefacts: Artefacts) -> Using:
    """`using(grant, client, **more)`: an async context manager that gives a `Calendar`."""

    @asynccontextmanager
    async def start(grant: str, client: str = "public", **more: Any) -> AsyncIterator[Calendar]:
        credential = {
            "type": "oauth2",
            "grant": grant,
            "issuer": provider.issuer,
            "client_id": client,
            "scope": "openid offline_access read",
            **WRITTEN[client],
            **more,
        }
        document = {
            "routes": [{"prefix": "/api", "upstream": "https://api.example.com", "credential": "calendar"}],
            "credentials": {"calendar": credential},
        }
        config = load(Source(yaml.safe_dump(document), "test.yaml", None, "test"), environ={"SECRET": SECRET})
        outside = Means(clock=SystemClock(), redactor=Redactor(), clients=Clients(ca=provider.ca))
        try:
            yield Calendar(provider, opened(config, "calendar", outside), Kept(), canaries, artefacts)
        finally:
            await outside.clients.close()

    return start


@pytest.mark.parametrize("client", WRITTEN)
async def test_a_person_logs_in_with_a_browser(provider: OIDCProvider, using: Using, client: str) -> None:
    """Redirects there, yes, back to the callback; both tokens are live, and are stored with their times."""
    person = Somebody(provider.visit)
    async with using("authorization_code", client) as calendar:
        record = await calendar.log_in(person)
        assert await calendar.is_live(record) == (True, True)
        assert await calendar.store.load("calendar", BINDING) is record
    assert record.generation == 1
    assert record.expires_at == pytest.approx(record.obtained_at + 300)
    assert "code_challenge_method=S256" in person.opened[0]
    page = person.browsing[0].result()
    assert page.status_code == 200
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert record.token.reveal() not in page.text


async def test_the_address_that_the_browser_ends_at_can_be_pasted(provider: OIDCProvider, using: Using) -> None:
    """The browser is on another machine; a wrong line is said to be one, and asked for again."""
    person = Somebody(types=True)
    async with using("authorization_code") as calendar:
        login = asyncio.create_task(calendar.log_in(person))
        page = await person.page()

        _, address = await asyncio.to_thread(provider.leave, page)
        for line in ("", page, f"{address}x&state=other", address):
            person.lines.put_nowait(f"{line}\n")
        record = await login
        assert await calendar.is_live(record) == (True, True)
    assert person.text.count("That is not the address") == 2


async def test_a_person_who_says_no_is_told_apart(provider: OIDCProvider, using: Using) -> None:
    """The server's own code, once; nothing is stored."""
    person = Somebody(lambda url: provider.visit(url, "deny"))
    async with using("authorization_code") as calendar:
        with pytest.raises(LoginFailed, match=r"did not agree, access_denied\. Run `bearer-proxy login calendar`"):
            await calendar.log_in(person)
        assert calendar.store.saved == []


async def test_a_person_enters_a_code_on_another_screen(
    provider: OIDCProvider, using: Using, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pending until they do; then both tokens are live."""
    person = Somebody()
    async with using("device_code") as calendar:
        replies = _watched(calendar, monkeypatch)
        login = _eager(calendar, person)
        page = await person.page()
        assert json.loads((await replies.get()).body)["error"] == "authorization_pending"
        await asyncio.to_thread(provider.enter, page, _user_code(person))
        record = await login
        assert await calendar.is_live(record) == (True, True)


async def test_a_person_who_aborts_on_the_other_screen_is_told_apart(provider: OIDCProvider, using: Using) -> None:
    """`access_denied` ends the questions."""
    person = Somebody()
    async with using("device_code") as calendar:
        login = _eager(calendar, person)
        page = await person.page()
        await asyncio.to_thread(provider.enter, page, _user_code(person), "abort")
        with pytest.raises(LoginFailed, match="did not agree"):
            await login


def _user_code(person: Somebody) -> str:
    told = [line.strip() for line in person.text.splitlines() if line.strip()]
    return told[told.index("and enter this code:") + 1]


def _eager(calendar: Calendar, person: Somebody) -> "asyncio.Task[Record]":
    """A login that asks without waiting by the clock."""
    login = calendar.credential.login(person, secrets.token_bytes)
    calendar.artefacts.watch("what the person was told", lambda: person.text)

    async def run() -> Record:
        logged_in = await replace(login, sleep=lambda _seconds: asyncio.sleep(0.02)).run()
        return calendar.known(await keep(calendar.store, "calendar", BINDING, logged_in))

    return asyncio.create_task(run())


def _watched(calendar: Calendar, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[TokenReply]:
    """The replies to the questions, as they come."""
    assert calendar.credential.server is not None
    grant = calendar.credential.server[0]
    replies: asyncio.Queue[TokenReply] = asyncio.Queue()
    question = grant.question

    async def watching(*arguments: Any) -> TokenReply:
        reply = await question(*arguments)
        replies.put_nowait(reply)
        return reply

    monkeypatch.setattr(grant, "question", watching)
    return replies


async def test_a_refresh_rotates_and_an_old_refresh_token_ends_the_login(
    provider: OIDCProvider, using: Using
) -> None:
    """The server takes an old one for theft: it revokes the whole family, and somebody has to log in again."""
    async with using("authorization_code") as calendar:
        first = await calendar.log_in(Somebody(provider.visit))
        second = await calendar.refresh(first)
        assert second.refresh_token != first.refresh_token
        assert await calendar.is_live(second) == (True, True)
        with pytest.raises(LoginRequired, match="Run `bearer-proxy login calendar`"):
            await calendar.refresh(first)
        assert await calendar.is_live(second) == (False, False)
        with pytest.raises(LoginRequired):
            await calendar.refresh(second)


@pytest.mark.parametrize("client", WRITTEN)
async def test_a_logout_revokes_both_tokens_and_forgets_them(
    provider: OIDCProvider, using: Using, client: str
) -> None:
    """The server itself says that they are dead; a second one finds nothing."""
    async with using("authorization_code", client) as calendar:
        record = await calendar.log_in(Somebody(provider.visit))
        assert await calendar.log_out() == LoggedOut(found=True)
        assert await calendar.is_live(record) == (False, False)
        assert await calendar.store.load("calendar", BINDING) is Missing.LOGGED_OUT
        assert await calendar.log_out() == LoggedOut(found=False)


async def test_a_second_login_is_the_next_generation(provider: OIDCProvider, using: Using) -> None:
    """A running instance takes what is newer than its own; the configured end counts from the login."""
    async with using("authorization_code", refresh_lifetime="180d") as calendar:
        first = await calendar.log_in(Somebody(provider.visit))
        second = await calendar.log_in(Somebody(provider.visit))
    assert [first.generation, second.generation] == [1, 2]
    assert second.refresh_expires_at == pytest.approx(second.obtained_at + 180 * 86400)
