"""The doubles behave as the vendors' documents say: driven over real sockets, on a clock that the test holds."""

import asyncio
import base64
import contextlib
import hashlib
import io
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import jwt
import pytest
import trustme
from aiohttp import web
from pydantic import ValidationError

from proxy.demo import mainbrainer, teletracker, vanilla
from proxy.demo.control import PREFIX
from proxy.demo.double import Double, bearer
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import ADMIN, READER, Vanilla
from proxy.demo.vanilla_limits import READS, WRITES, Limiter
from proxy.demo.vanilla_tokens import InvalidTokenError, sign, verify

SECRET = "a-secret-of-the-tests-that-is-long-enough"
EPOCH = 1_600_000_000.25


@dataclass
class HeldClock:
    """Stands still unless the test moves it."""

    at: float = 1000.0

    def now(self) -> float:
        """Seconds, as set."""
        return self.at

    def awake(self) -> float:
        """The same."""
        return self.now()

    def wall(self) -> float:
        """Epoch seconds that move along."""
        return EPOCH + self.at - 1000.0


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Bench:
    """The three doubles, served, and a client for each."""

    clock: HeldClock
    session: aiohttp.ClientSession
    tele: TeleTracker
    brain: MainBrainer
    vani: Vanilla
    urls: dict[int, str] = field(default_factory=dict)

    async def ask(self, double: Double[Any], method: str, path: str, **options: Any) -> Answer:
        """One request to `double`."""
        async with self.session.request(method, self.urls[id(double)] + path, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def login(self, **fields: Any) -> Any:
        """The reply to a TeleTracker login of the demo account."""
        data = {"username": teletracker.ACCOUNT.username, "password": teletracker.ACCOUNT.password, **fields}
        return (await self.ask(self.tele, "POST", "/auth/login", data=data)).json

    async def refresh(self, token: str) -> Answer:
        """The answer to a TeleTracker refresh."""
        return await self.ask(self.tele, "POST", "/auth/refresh", data={"refresh_token": token})

    async def token(self, **changes: Any) -> Answer:
        """The answer to a MainBrainer token request of the demo account, with changes."""
        account = mainbrainer.ACCOUNT
        fields = {
            "userName": account.username,
            "password": account.password,
            "privateToken": account.private_token,
            **changes,
        }
        return await self.ask(self.brain, "POST", "/token", json=fields)


def auth(token: str, name: str = "Authorization") -> dict[str, str]:
    """The header that carries `token`."""
    return {name: f"Bearer {token}"}


def counting(prefix: str) -> Callable[[], str]:
    """A mint whose values the test can foretell."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}-canary-{next(numbers)}"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """The three doubles on free ports, with tokens whose values the test knows."""
    clock = HeldClock()
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        bench = Bench(
            clock,
            session,
            TeleTracker(clock=clock, mint=counting("tele")),
            MainBrainer(clock=clock, mint=counting("brain"), secret=SECRET),
            Vanilla(clock=clock, mint=counting("vanilla"), secret=SECRET),
        )
        for double in (bench.tele, bench.brain, bench.vani):
            bench.urls[id(double)] = await stack.enter_async_context(serving(double))
        yield bench


# --- TeleTracker ---------------------------------------------------------------------------------------------


def _multipart(fields: dict[str, str]) -> dict[str, Any]:
    """A multipart body of known length: the vendor wants Content-Length."""
    lines = [f'--edge\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    body = "".join([*lines, "--edge--\r\n"]).encode()
    return {"data": body, "headers": {"Content-Type": "multipart/form-data; boundary=edge"}}


ENCODINGS: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
    "form": lambda fields: {"data": fields},
    "json": lambda fields: {"json": fields},
    "multipart": _multipart,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_login_answers_the_documented_shape_in_each_encoding(bench: Bench, encoding: str) -> None:
    """Form, JSON and multipart give the same session; the lifetimes are 3600 s and 29 days."""
    account = teletracker.ACCOUNT
    body = ENCODINGS[encoding]({"username": account.username, "password": account.password})
    answer = await bench.ask(bench.tele, "POST", "/auth/login", **body)
    assert answer.status == 200
    reply = answer.json
    assert {name: reply[name] for name in ("success", "token", "tokenLifetime", "refreshToken")} == {
        "success": True,
        "token": "tele-canary-1",
        "tokenLifetime": 3600,
        "refreshToken": "tele-canary-2",
    }
    assert reply["tokenExpiration"] == "2020-09-13T13:26:40+00:00"
    assert reply["refreshTokenExpiration"] == "2020-10-12T12:26:40+00:00"
    assert set(reply) > {"guid"}
    assert bench.tele.token_requests == {"login": 1}


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "Missing variables: username, password."),
        ({"username": "someone"}, 400, "Missing variables: password."),
        ({"username": teletracker.ACCOUNT.username, "password": "wrong"}, 401, "wrong"),
        ({"username": "someone", "password": teletracker.ACCOUNT.password}, 401, "wrong"),
        (
            {"username": teletracker.ACCOUNT.username, "password": teletracker.ACCOUNT.password, "account_id": "1"},
            401,
            "no such account",
        ),
    ],
)
async def test_login_refuses_with_success_false(
    bench: Bench, fields: dict[str, str], status: int, says: str
) -> None:
    """400 names what is missing, 401 is for what is wrong; neither issues a token, both are counted."""
    answer = await bench.ask(bench.tele, "POST", "/auth/login", data=fields)
    assert answer.status == status
    assert answer.json["success"] is False
    assert says in answer.json["message"]
    assert bench.tele.issued == ()
    assert bench.tele.token_requests == {"login": 1}
    assert not bench.tele.refusals  # a login's 401 is not the refusal of a token


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"data": b"{", "headers": {"Content-Type": "application/json"}}, id="broken JSON"),
        pytest.param({"data": b"[1]", "headers": {"Content-Type": "application/json"}}, id="no object"),
        pytest.param({"data": b"\xff", "headers": {"Content-Type": "application/json"}}, id="no UTF-8"),
        pytest.param({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, id="no boundary"),
        pytest.param({"data": b"username=a&password=b", "headers": {"Content-Type": "text/plain"}}, id="text"),
        pytest.param({"params": {"username": "a", "password": "b"}}, id="query"),
    ],
)
async def test_login_reads_nothing_from_a_body_that_is_not_what_it_says(bench: Bench, body: Any) -> None:
    """An unreadable body, and variables in the query, count as missing."""
    answer = await bench.ask(bench.tele, "POST", "/auth/login", **body)
    assert (answer.status, answer.json["message"]) == (400, "Missing variables: username, password.")


async def test_auth_only_verifies_without_tokens(bench: Bench) -> None:
    """`auth_only=1` is a self-test of the credential."""
    assert await bench.login(auth_only=1) == {"success": True}
    assert bench.tele.issued == ()


async def test_a_session_is_bound_to_the_account_of_its_login(bench: Bench) -> None:
    """`account_id` chooses the account; without it the first one counts; a refresh keeps it."""
    first, second = await bench.login(), await bench.login(account_id=4712)
    renewed = (await bench.refresh(second["refreshToken"])).json
    seen = []
    for reply in (first, second, renewed):
        answer = await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))
        seen.append([call["account_id"] for call in answer.json["data"]])
    assert seen == [[4711], [4712], [4712]]


async def test_refresh_rotates_token_guid_and_refresh_token_and_slides(bench: Bench) -> None:
    """All three are new, nothing undocumented comes along, and the 29 days begin anew."""
    old = await bench.login()
    bench.clock.at += 28 * 86400
    new = (await bench.refresh(old["refreshToken"])).json
    assert all(new[name] != old[name] for name in ("guid", "token", "refreshToken"))
    assert set(old) - set(new) == {"accountId", "locale"}
    bench.clock.at += 28 * 86400
    assert (await bench.refresh(new["refreshToken"])).status == 200


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_reused_refresh_token_fails_is_counted_and_ends_the_family(bench: Bench, status: int) -> None:
    """Both the successor and its access token end; another login is not touched."""
    bench.tele.set(reuse_status=status)
    other, old = await bench.login(), await bench.login()
    new = (await bench.refresh(old["refreshToken"])).json
    again = await bench.refresh(old["refreshToken"])
    assert (again.status, again.json["success"], bench.tele.refresh_reuses) == (status, False, 1)
    assert (await bench.refresh(new["refreshToken"])).status == status
    assert bench.tele.refresh_reuses == 1  # the successor was revoked, it was never used
    for reply, expected in ((new, 401), (old, 401), (other, 200)):
        answer = await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))
        assert answer.status == expected
    assert (await bench.refresh(other["refreshToken"])).status == 200


async def test_a_refresh_token_ends_after_29_days_and_when_revoked(bench: Bench) -> None:
    """Too old, revoked, unknown and missing are four refusals, and no reuse."""
    old, revoked = await bench.login(), None
    bench.clock.at += 29 * 86400
    assert (await bench.refresh(old["refreshToken"])).status == 400
    revoked = await bench.login()
    assert bench.tele.revoke_refresh() == 2
    assert (await bench.refresh(revoked["refreshToken"])).status == 400
    assert (await bench.refresh("never issued")).status == 400
    assert "refresh_token" in (await bench.refresh("")).json["message"]
    assert bench.tele.refresh_reuses == 0
    answer = await bench.ask(bench.tele, "GET", "/calls", headers=auth(revoked["token"]))
    assert answer.status == 200  # access tokens stay


@pytest.mark.parametrize("status", [401, 403])
async def test_an_expired_token_is_refused_as_switched(bench: Bench, status: int) -> None:
    """By the clock at its lifetime, not before, and by `expire()`; a refresh cures both."""
    bench.tele.set(refusal_status=status)
    reply = await bench.login()
    statuses = []
    for ahead in (3599.9, 0.1):
        bench.clock.at += ahead
        statuses.append((await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))).status)
    assert statuses == [200, status]
    reply = (await bench.refresh(reply["refreshToken"])).json
    assert bench.tele.expire() == 1
    refused = await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))
    assert (refused.status, refused.json["success"]) == (status, False)
    reply = (await bench.refresh(reply["refreshToken"])).json
    assert (await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))).status == 200
    assert bench.tele.refusals == {status: 2}


async def test_a_skewed_clock_shows_in_dates_and_not_in_the_lifetime(bench: Bench) -> None:
    """The vendor's warning: `tokenExpiration` is not reliable, `tokenLifetime` is."""
    bench.tele.set(skew_minutes=-90, lifetime=600)
    answer = await bench.ask(bench.tele, "POST", "/auth/login", data={})
    reply = await bench.login()
    now = datetime.fromtimestamp(EPOCH, UTC)
    assert (datetime.fromisoformat(reply["tokenExpiration"]) - now).total_seconds() == pytest.approx(-4800, abs=1)
    assert reply["tokenLifetime"] == 600
    assert (parsedate_to_datetime(answer.headers["Date"]) - now).total_seconds() == pytest.approx(-5400, abs=1)


@pytest.mark.parametrize(
    ("honour", "sent", "status"),
    [
        ("authorization", ["Authorization"], 200),
        ("authorization", ["Authentication"], 401),
        ("authentication", ["Authentication"], 200),
        ("authentication", ["Authorization"], 401),
        ("authentication", ["Authorization", "Authentication"], 200),
        ("both", ["Authorization"], 200),
        ("both", ["Authentication"], 200),
    ],
)
async def test_the_honoured_header_is_switchable(bench: Bench, honour: str, sent: list[str], status: int) -> None:
    """Only the named header counts; the journal shows every place that carried a credential."""
    bench.tele.set(honour=honour)
    token = (await bench.login())["token"]
    headers = {name: value for each in sent for name, value in auth(token, each).items()}
    assert (await bench.ask(bench.tele, "GET", "/calls", headers=headers)).status == status
    assert bench.tele.journal[-1].places == tuple(f"header:{name.lower()}" for name in sent)
    assert bench.tele.journal[-1].generation == (1 if status == 200 else None)


async def test_a_body_without_content_length_is_411(bench: Bench) -> None:
    """A chunked body is refused on every endpoint and method; nothing was changed."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"caller=1"

    headers = auth((await bench.login())["token"]) | {"Content-Type": "application/x-www-form-urlencoded"}
    for method, path in (("POST", "/auth/login"), ("POST", "/calls"), ("GET", "/calls"), ("DELETE", "/calls")):
        answer = await bench.ask(bench.tele, method, path, data=chunks(), headers=headers)
        assert answer.status == 411, (method, path)
    answer = await bench.ask(bench.tele, "GET", "/calls", headers=headers)
    assert len(answer.json["data"]) == 1


async def test_a_post_with_neither_body_nor_length_is_411(bench: Bench) -> None:
    """The header must be set even where there is no body; aiohttp's client would always set it."""
    host, port = bench.urls[id(bench.tele)].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 411 ")
    writer.close()
    await writer.wait_closed()


async def test_calls_are_created_changed_listed_and_removed(bench: Bench) -> None:
    """The envelope throughout; GET and DELETE take parameters from the query and from a body."""
    headers = auth((await bench.login())["token"])

    async def calls(method: str, **options: Any) -> Any:
        return (await bench.ask(bench.tele, method, "/calls", headers=headers, **options)).json

    assert await calls("POST", json={"caller": "+1"}) == {
        "success": True,
        "data": [{"id": 3, "account_id": 4711, "caller": "+1"}],
    }
    assert (await calls("PUT", data={"id": "3", "caller": "+2"}))["data"][0]["caller"] == "+2"
    assert [call["id"] for call in (await calls("GET"))["data"]] == [1, 3]
    assert [call["id"] for call in (await calls("GET", params={"id": "3"}))["data"]] == [3]
    assert [call["id"] for call in (await calls("GET", data={"id": "1"}))["data"]] == [1]
    assert [call["id"] for call in (await calls("DELETE", json={"id": 3}))["data"]] == [3]
    assert [call["id"] for call in (await calls("DELETE", params={"id": "1"}))["data"]] == [1]
    assert (await calls("DELETE", params={"id": "1"})) == {"success": False, "message": "There is no such call."}
    assert (await calls("POST"))["message"] == "Missing variables: caller."


async def test_echo_size_reads_a_body_beyond_the_server_default(bench: Bench) -> None:
    """Three MiB of bytes: length and digest are right."""
    body = bytes(range(256)) * 12288
    headers = auth((await bench.login())["token"])
    answer = await bench.ask(bench.tele, "POST", "/echo-size", headers=headers, data=io.BytesIO(body))
    assert answer.json["data"] == [{"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}]


@pytest.mark.parametrize(
    ("account_id", "status"), [("4712", 200), ("1", 403), ("", 400)], ids=["own", "foreign", "missing"]
)
async def test_masquerade_gives_a_session_for_another_account(bench: Bench, account_id: str, status: int) -> None:
    """The bearer of the first step and an account of this user lead to a session of the same shape."""
    first = await bench.login()
    request = {"data": {"account_id": account_id}, "headers": auth(first["token"])}
    answer = await bench.ask(bench.tele, "POST", "/auth/masquerade", **request)
    assert answer.status == status
    if status == 200:
        listed = await bench.ask(bench.tele, "GET", "/calls", headers=auth(answer.json["token"]))
        assert listed.json["data"][0]["account_id"] == 4712
        assert set(answer.json) <= set(first)
    bench.tele.expire()
    assert (await bench.ask(bench.tele, "POST", "/auth/masquerade", **request)).status == 401
    assert bench.tele.token_requests == {"login": 1, "masquerade": 2}


# --- MainBrainer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/token", "/token/"])
async def test_token_answers_minutes_and_seven_digits(bench: Bench, path: str) -> None:
    """`expires_in` is 120 for two hours; the dates agree with it; keys are taken in any case."""
    account = mainbrainer.ACCOUNT
    fields = {"USERNAME": account.username, "password": account.password, "privatetoken": account.private_token}
    answer = await bench.ask(bench.brain, "POST", path, json=fields)
    reply = answer.json
    token = reply.pop("access_token")
    assert reply == {
        "token_type": "Bearer",
        "expires_in": 120,
        "userName": account.username,
        "issued": "2020-09-13T12:26:40.2500000+00:00",
        "expires": "2020-09-13T14:26:40.2500000+00:00",
        "timeZoneOffset": "UTC+00.00",
        "locale": "en-US",
    }
    assert len(token) > 1500


async def test_the_jwt_has_net_claims_and_no_exp(bench: Bench) -> None:
    """HS256 with the secret; the expiry stands only in the .NET claim, with a space and milliseconds."""
    token = (await bench.token()).json["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert "exp" not in claims
    expiration = "http://schemas.microsoft.com/ws/2008/06/identity/claims/expiration"
    assert claims[expiration] == "2020-09-13 14:26:40.250"
    assert claims["email"] == mainbrainer.ACCOUNT.username
    assert claims["jti"] == "brain-canary-1"
    assert base64.b64decode(claims["usr"]).startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"password": "wrong"}, 401),
        ({"userName": None}, 401),
        ({"privateToken": "00000000-0000-0000-0000-000000000000"}, 401),
        ({"validity": "Forever"}, 422),
        ({"validity": None}, 200),
        ({"VALIDITY": "longlive"}, 200),
    ],
)
async def test_token_statuses(bench: Bench, changes: dict[str, Any], status: int) -> None:
    """Wrong secrets are 401, an unknown validity 422."""
    answer = await bench.token(**changes)
    assert answer.status == status
    assert len(bench.brain.issued) == (status == 200)


@pytest.mark.parametrize("body", [b"", b"null", b"{", b'"text"', b"\xff"])
async def test_token_of_a_null_item_is_400(bench: Bench, body: bytes) -> None:
    """`400` "If the item is null"."""
    headers = {"Content-Type": "application/json"}
    answer = await bench.ask(bench.brain, "POST", "/token", data=body, headers=headers)
    assert answer.status == 400


@pytest.mark.parametrize(("validity", "minutes"), [("Default", 120), ("ShortLive", 15), ("LongLive", 43200)])
async def test_validity_chooses_the_lifetime(bench: Bench, validity: str, minutes: int) -> None:
    """The server ends the token when it said so."""
    reply = (await bench.token(validity=validity)).json
    assert reply["expires_in"] == minutes
    headers = auth(reply["access_token"])
    bench.clock.at += minutes * 60 - 1
    assert (await bench.ask(bench.brain, "GET", "/customers", headers=headers)).status == 200
    bench.clock.at += 1
    assert (await bench.ask(bench.brain, "GET", "/customers", headers=headers)).status == 401
    assert bench.brain.state()["refresh_reuses"] == 0


async def test_the_private_token_can_be_wanted_in_a_header(bench: Bench) -> None:
    """With the switch the body's is not read; the header's name is taken in any case."""
    bench.brain.set(private_token_in="header")
    account = mainbrainer.ACCOUNT
    fields = {"username": account.username, "password": account.password, "privateToken": account.private_token}
    assert (await bench.ask(bench.brain, "POST", "/token", json=fields)).status == 401
    del fields["privateToken"]
    headers = {"PRIVATETOKEN": account.private_token}
    assert (await bench.ask(bench.brain, "POST", "/token", json=fields, headers=headers)).status == 200


@pytest.mark.parametrize("status", [401, 403])
async def test_customers_need_a_live_token_and_refuse_without_a_challenge(bench: Bench, status: int) -> None:
    """No `WWW-Authenticate` comes, and there is no refresh endpoint: logging in again is the cure."""
    bench.brain.set(refusal_status=status)
    for headers in ({}, auth("unknown")):
        answer = await bench.ask(bench.brain, "GET", "/customers", headers=headers)
        assert answer.status == status
        assert "WWW-Authenticate" not in answer.headers
    headers = auth((await bench.token()).json["access_token"])
    assert (await bench.ask(bench.brain, "GET", "/customers", headers=headers)).json[0]["customerId"] == 1
    assert (bench.brain.expire(), bench.brain.expire()) == (1, 0)
    assert (await bench.ask(bench.brain, "GET", "/customers", headers=headers)).status == status
    assert (await bench.ask(bench.brain, "POST", "/refresh", json={})).status == 404
    headers = auth((await bench.token()).json["access_token"])
    assert (await bench.ask(bench.brain, "GET", "/customers", headers=headers)).status == 200
    assert bench.brain.refusals == {status: 3}


async def test_each_token_differs_within_one_instant(bench: Bench) -> None:
    """The `jti` makes it so: a proxy must be able to tell generations apart."""
    tokens = {(await bench.token()).json["access_token"] for _ in range(3)}
    assert len(tokens) == 3


# --- Vanilla -------------------------------------------------------------------------------------------------

VECTOR = "va.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.gNjbcA.fgc0U5h"


def test_signing_gives_the_known_vector() -> None:
    """24 bytes 00 to 17, expiry 1893456000, secret `test-secret`; good until that second."""
    assert sign(bytes(range(24)), 1_893_456_000, "test-secret") == VECTOR
    verify(VECTOR, "test-secret", 1_893_455_999)


@pytest.mark.parametrize(
    ("token", "now", "says"),
    [
        ("", 0, "Missing access token."),
        ("va.only.three", 0, "Your access token missing parts."),
        ("garbage", 0, "Your access token missing parts."),
        (VECTOR.replace("gNjbcA", "????"), 0, "Your access token has an invalid expiry date."),
        (VECTOR.replace("gNjbcA", "g"), 0, "Your access token has an invalid expiry date."),
        (VECTOR.replace("gNjbcA", "\u00e9"), 0, "Your access token has an invalid expiry date."),
        (VECTOR, 1_893_456_000, "Your access token has expired."),
        (VECTOR[:-1] + "i", 0, "Your access token has an invalid signature."),
        (VECTOR[:-1] + "\u00e9", 0, "Your access token has an invalid signature."),
    ],
)
def test_verifying_complains_in_the_vendors_words(token: str, now: float, says: str) -> None:
    """Each broken part has its sentence, which does not hold the token."""
    with pytest.raises(InvalidTokenError) as caught:
        verify(token, "test-secret", now)
    assert str(caught.value) == says


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "header": lambda token: {"headers": auth(token)},
    "header in lower case": lambda token: {"headers": {"Authorization": f"bearer  {token}"}},
    "query": lambda token: {"params": {"access_token": token}},
    "query over header": lambda token: {"params": {"access_token": token}, "headers": auth("garbage")},
    "empty query and header": lambda token: {"params": {"access_token": ""}, "headers": auth(token)},
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_good_token_is_read_from_header_and_query(bench: Bench, place: str) -> None:
    """The query wins unless it is empty; a member sees more than a guest."""
    answer = await bench.ask(bench.vani, "GET", "/api/v2/discussions", **PLACES[place](bench.vani.issue()))
    assert len(answer.json) == 2
    assert "X-WWW-Authenticate" not in answer.headers
    me = await bench.ask(bench.vani, "GET", "/community/api/v2/users/me", **PLACES[place](bench.vani.issue()))
    assert (me.status, me.json["name"]) == (200, "member")


async def test_a_stale_query_token_overrides_a_good_header(bench: Bench) -> None:
    """The most surprising rule of this vendor: it makes a guest of a member, and says so in a header."""
    answer = await bench.ask(
        bench.vani,
        "GET",
        "/api/v2/discussions",
        params={"access_token": "stale"},
        headers=auth(bench.vani.issue()),
    )
    assert (answer.status, len(answer.json)) == (200, 1)
    assert answer.headers["X-WWW-Authenticate"] == (
        'error="invalid_token", error_description="Your access token missing parts."'
    )
    assert bench.vani.journal[-1].places == ("header:authorization", "query:access_token")
    assert bench.vani.journal[-1].generation == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v2/discussions", 200),
        ("GET", "/api/v2/users/me", 403),
        ("POST", "/api/v2/tokens", 403),
        ("GET", "/api/v2/none", 404),
        ("PUT", "/api/v2/users/me", 405),
    ],
)
async def test_an_expired_token_makes_a_guest_on_any_status(
    bench: Bench, method: str, path: str, status: int
) -> None:
    """There is no 401: public data is a guest's, the rest 403, and a header tells."""
    token = bench.vani.issue()
    assert bench.vani.expire() == 1
    answer = await bench.ask(bench.vani, method, path, headers=auth(token))
    assert answer.status == status
    complaint = 'error="invalid_token", error_description="Your access token has expired."'
    assert answer.headers["X-WWW-Authenticate"] == complaint
    guest = await bench.ask(bench.vani, method, path)
    assert (guest.status, guest.body) == (answer.status, answer.body)
    assert "X-WWW-Authenticate" not in guest.headers
    assert ("Allow" in guest.headers) == (status == 405)


async def test_the_403_has_the_vendors_shape(bench: Bench) -> None:
    """Message, status, permissions, description."""
    assert (await bench.ask(bench.vani, "GET", "/api/v2/users/me")).json == {
        "message": "Permission Problem",
        "status": 403,
        "permissions": ["Garden.SignIn.Allow"],
        "description": "You need the Garden.SignIn.Allow permission to do that.",
    }


async def test_a_token_ends_with_the_expiry_written_in_it(bench: Bench) -> None:
    """A lifetime of a minute: read offline from the third part, and obeyed."""
    bench.vani.set(lifetime=60)
    token = bench.vani.issue()
    assert int.from_bytes(base64.urlsafe_b64decode(token.split(".")[2] + "=="), "little") == int(EPOCH) + 60
    statuses = []
    for ahead in (59, 1):
        bench.clock.at += ahead
        statuses.append((await bench.ask(bench.vani, "GET", "/api/v2/users/me", headers=auth(token))).status)
    assert statuses == [200, 403]


async def test_a_well_signed_token_that_was_never_issued_is_not_found(bench: Bench) -> None:
    """The signature is right, the table does not have it."""
    token = sign(bytes(24), int(EPOCH) + 60, SECRET)
    answer = await bench.ask(bench.vani, "GET", "/api/v2/discussions", headers=auth(token))
    assert "Access token not found." in answer.headers["X-WWW-Authenticate"]


async def test_a_token_is_read_on_api_paths_only(bench: Bench) -> None:
    """The page beside the API shows a guest, whatever the token, and does not complain."""
    for token in (bench.vani.issue(), "garbage"):
        answer = await bench.ask(bench.vani, "GET", "/profile", params={"access_token": token})
        assert answer.body == b"<h1>Guest</h1>"
        assert "X-WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("spoof", "status", "name"),
    [("8", 200, "reader"), ("$name:member", 200, "member"), ("99", 404, None)],
)
async def test_an_administrator_spoofs_a_member(bench: Bench, spoof: str, status: int, name: str | None) -> None:
    """By number and by smart id; an unknown member is 404."""
    headers = auth(bench.vani.issue(ADMIN)) | {"X-Vanilla-Spoof": spoof}
    answer = await bench.ask(bench.vani, "GET", "/api/v2/users/me", headers=headers)
    assert (answer.status, answer.json.get("name")) == (status, name)


async def test_spoofing_needs_the_permission(bench: Bench) -> None:
    """A member and a guest are refused, also on a public path."""
    for headers in (auth(bench.vani.issue()), {}):
        answer = await bench.ask(
            bench.vani, "GET", "/api/v2/discussions", headers=headers | {"X-Vanilla-Spoof": "1"}
        )
        assert answer.json["permissions"] == ["Garden.Settings.Manage"]


async def test_tokens_are_made_listed_read_and_revoked(bench: Bench) -> None:
    """Only the active are listed, the value is shown only with the transient key, the revoked one is gone."""
    headers, key = auth(bench.vani.issue()), {"transientKey": vanilla.MEMBER.transient_key}

    async def tokens(method: str, path: str = "", **options: Any) -> Answer:
        return await bench.ask(bench.vani, method, f"/api/v2/tokens{path}", headers=headers, **options)

    made = await tokens("POST", json={"name": "second", **key})
    assert (made.status, made.json["accessTokenID"], made.json["name"]) == (201, 2, "second")
    second = made.json.pop("accessToken")
    assert bench.vani.journal[-1].issued == 2
    listed = (await tokens("GET")).json
    assert [sorted(row) for row in listed] == [["accessTokenID", "dateInserted", "name"]] * 2
    assert (await tokens("GET", "/2", params=key)).json["accessToken"] == second
    assert (await tokens("DELETE", "/2")).status == 204
    assert [row["accessTokenID"] for row in (await tokens("GET")).json] == [1]
    gone = await tokens("GET", "/2", params=key)
    assert (gone.status, gone.json["message"]) == (410, "Token revoked.")
    assert (await tokens("DELETE", "/2")).status == 410
    answer = await bench.ask(bench.vani, "GET", "/api/v2/discussions", headers=auth(second))
    assert "Your access token was revoked." in answer.headers["X-WWW-Authenticate"]


async def test_an_expired_token_row_is_410_and_a_foreign_one_404(bench: Bench) -> None:
    """A member sees no other member's tokens."""
    bench.vani.set(lifetime=60)
    bench.vani.issue()
    bench.vani.issue(ADMIN)
    bench.clock.at += 60
    bench.vani.set(lifetime=600)
    headers, key = auth(bench.vani.issue()), {"transientKey": vanilla.MEMBER.transient_key}
    expired = await bench.ask(bench.vani, "GET", "/api/v2/tokens/1", headers=headers, params=key)
    assert (expired.status, expired.json["message"]) == (410, "Token expired.")
    foreign = await bench.ask(bench.vani, "GET", "/api/v2/tokens/2", headers=headers, params=key)
    assert (foreign.status, foreign.json["message"]) == (404, "Access token not found.")


@pytest.mark.parametrize(
    ("method", "body", "status", "says"),
    [
        ("POST", b'{"name": "x", "transientKey": "wrong"}', 401, "Invalid transient key."),
        ("POST", b"", 401, "Invalid transient key."),
        ("POST", b"[]", 401, "Invalid transient key."),
        ("GET", b"", 401, "Invalid transient key."),
        ("POST", b'{"transientKey": "demo-transient-key"}', 422, "name is required."),
    ],
)
async def test_the_transient_key_keeps_headless_clients_out(
    bench: Bench, method: str, body: bytes, status: int, says: str
) -> None:
    """A good token is not enough: there is no headless rotation."""
    headers = auth(bench.vani.issue()) | {"Content-Type": "application/json"}
    path = "/api/v2/tokens/1" if method == "GET" else "/api/v2/tokens"
    answer = await bench.ask(bench.vani, method, path, data=body, headers=headers)
    assert (answer.status, answer.json["message"]) == (status, says)


async def test_the_tokens_endpoints_need_their_permission(bench: Bench) -> None:
    """A reader may sign in and nothing more."""
    headers = auth(bench.vani.issue(READER))
    assert (await bench.ask(bench.vani, "GET", "/api/v2/users/me", headers=headers)).status == 200
    refused = await bench.ask(bench.vani, "GET", "/api/v2/tokens", headers=headers)
    assert refused.json["permissions"] == ["Garden.Tokens.Add"]


async def test_the_121st_write_of_a_minute_is_429_and_reads_are_not(bench: Bench) -> None:
    """Reads have their own limit; the switch lifts both."""
    statuses = [(await bench.ask(bench.vani, "POST", "/api/v2/tokens")).status for _ in range(WRITES + 1)]
    assert statuses == [403] * WRITES + [429]
    assert (await bench.ask(bench.vani, "GET", "/api/v2/discussions")).status == 200
    bench.vani.set(rate_limit=False)
    assert (await bench.ask(bench.vani, "POST", "/api/v2/tokens")).status == 403


@pytest.mark.parametrize(("method", "limit"), [("GET", READS), ("DELETE", WRITES)])
def test_an_address_over_the_limit_is_refused_for_one_minute(method: str, limit: int) -> None:
    """The minute begins with the request that was too much; another address is not touched."""
    limiter = Limiter()
    assert all(limiter.admits("a", method, 10.0) for _ in range(limit))
    assert [limiter.admits("a", method, now) for now in (30.0, 89.9, 90.0)] == [False, False, True]
    assert limiter.admits("b", method, 30.0)


def test_a_window_of_a_minute_begins_anew() -> None:
    """The full limit within one minute, and again in the next."""
    limiter = Limiter()
    assert all(limiter.admits("a", "POST", now) for now in (0.0, 60.0) for _ in range(WRITES))


# --- What all three have -------------------------------------------------------------------------------------


async def test_the_journal_tells_places_and_generations_and_never_a_value(bench: Bench) -> None:
    """A token is noticed wherever it stands, and masked wherever it would show."""
    first, second = await bench.login(), await bench.login()
    token = second["token"]
    headers = auth(first["token"]) | {"X-Copy": f"x {token}", "Cookie": f"a=b; session={token}"}
    query = f"?q={quote(token)}&access_token=somebody-elses&n=1"
    await bench.ask(bench.tele, "GET", f"/calls{query}", headers=headers)
    await bench.ask(bench.tele, "GET", f"/lost/{token}")
    state = (await bench.ask(bench.tele, "GET", f"{PREFIX}/state")).body.decode()
    assert [value for value in (*bench.tele.issued, "somebody-elses") if value in state] == []
    calls, lost = json.loads(state)["journal"][-2:]
    assert calls == {
        "number": 3,
        "method": "GET",
        "target": "/calls?q=***&access_token=***&n=1",
        "status": 200,
        "generation": 1,
        "places": ["header:authorization", "header:x-copy", "query:q", "query:access_token", "cookie:session"],
        "grant": None,
        "issued": None,
    }
    assert (lost["target"], lost["status"], lost["generation"]) == ("/lost/***", 404, None)
    assert [entry.issued for entry in bench.tele.journal] == [1, 2, None, None]


async def test_the_counters_are_told_by_endpoint(bench: Bench) -> None:
    """Control requests are not counted; an unknown path is."""
    await bench.login()
    for path in ("/calls", "/calls", "/none"):
        await bench.ask(bench.tele, "GET", path)
    state = (await bench.ask(bench.tele, "GET", f"{PREFIX}/state")).json
    assert state["requests"] == {"POST /auth/login": 1, "GET /calls": 2, "unknown": 1}
    assert (state["refusals"], state["token_requests"]) == ({"401": 2}, {"login": 1})
    assert (state["generation"], state["refresh_reuses"], state["held"]) == (1, 0, 0)


async def test_a_forbidden_path_is_403_whatever_the_token(bench: Bench) -> None:
    """On each double, as a glob; other paths are not touched."""
    token, jwt_, personal = (
        (await bench.login())["token"],
        (await bench.token()).json["access_token"],
        bench.vani.issue(),
    )
    for double, path, value in (
        (bench.tele, "/calls", token),
        (bench.brain, "/customers", jwt_),
        (bench.vani, "/api/v2/discussions", personal),
    ):
        url = f"{PREFIX}/set"
        await bench.ask(double, "POST", url, json={"forbidden_paths": [f"{path[:-2]}*"]})
        assert (await bench.ask(double, "GET", path, headers=auth(value))).status == 403
        await bench.ask(double, "POST", url, json={"forbidden_paths": ["/other"]})
        assert (await bench.ask(double, "GET", path, headers=auth(value))).status == 200
        assert double.refusals == {403: 1}


async def test_the_control_endpoint_does_what_the_methods_do(bench: Bench) -> None:
    """Expire, revoke and set over HTTP; each says what it touched."""
    reply = await bench.login()
    assert (await bench.ask(bench.tele, "POST", f"{PREFIX}/expire")).json == {"touched": 1}
    assert (await bench.ask(bench.tele, "POST", f"{PREFIX}/revoke-refresh")).json == {"touched": 1}
    answer = await bench.ask(bench.tele, "POST", f"{PREFIX}/set", json={"refusal_status": 403, "lifetime": 5})
    assert answer.json["switches"] == bench.tele.switches.model_dump(mode="json")
    assert (await bench.ask(bench.tele, "GET", "/calls", headers=auth(reply["token"]))).status == 403
    assert (await bench.login())["tokenLifetime"] == 5


@pytest.mark.parametrize(
    ("operation", "body", "status", "says"),
    [
        ("set", b'{"refusal_status": 404}', 400, "refusal_status"),
        ("set", b'{"refusal_statsu": 403}', 400, "refusal_statsu"),
        ("set", b'{"self": 1}', 400, "self"),
        ("set", b'{"lifetime": 0}', 400, "lifetime"),
        ("set", b"[]", 400, "JSON object"),
        ("set", b"{", 400, "JSON object"),
        ("expand", b"", 404, "set, expire, release, revoke-refresh"),
    ],
)
async def test_a_control_request_that_makes_no_sense_changes_nothing(
    bench: Bench, operation: str, body: bytes, status: int, says: str
) -> None:
    """The sentence names the switch or the operations there are."""
    before = bench.tele.switches
    answer = await bench.ask(bench.tele, "POST", f"{PREFIX}/{operation}", data=body)
    assert answer.status == status
    assert says in answer.json["errors"][0]
    assert bench.tele.switches is before


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (MainBrainer, {"lifetime": 90}),
        (MainBrainer, {"honour": "both"}),
        (Vanilla, {"refusal_status": 403}),
        (TeleTracker, {"token_endpoint": "gone"}),
    ],
)
def test_a_switch_that_a_double_does_not_have_is_refused(make: Any, changes: dict[str, object]) -> None:
    """MainBrainer counts whole minutes; Vanilla never says 401."""
    double = make(clock=HeldClock())
    before = double.switches
    with pytest.raises(ValidationError):
        double.set(**changes)
    assert double.switches is before


async def test_a_token_endpoint_that_is_down_is_503_while_the_api_serves(bench: Bench) -> None:
    """Valid tokens keep working; the attempts are counted."""
    token = (await bench.login())["token"]
    bench.tele.set(token_endpoint="down")
    assert (await bench.login())["success"] is False
    assert (await bench.refresh("x")).status == 503
    assert (await bench.ask(bench.tele, "GET", "/calls", headers=auth(token))).status == 200
    assert bench.tele.token_requests == {"login": 2, "refresh": 1}


async def test_a_slow_token_endpoint_answers_after_release(bench: Bench) -> None:
    """Held requests are counted and waited for; released ones are answered, the next is held again."""
    bench.tele.set(token_endpoint="slow")
    held = [asyncio.create_task(bench.login()) for _ in range(3)]
    await bench.tele.holding(3)
    assert (bench.tele.state()["held"], bench.tele.issued) == (3, ())
    assert (await bench.ask(bench.tele, "POST", f"{PREFIX}/release")).json == {"touched": 3}
    assert all(reply["success"] for reply in await asyncio.gather(*held))
    later = asyncio.create_task(bench.login())
    await bench.tele.holding()
    assert not later.done()
    assert bench.tele.release() == 1
    assert (await later)["success"]


async def test_a_hanging_token_endpoint_never_answers(bench: Bench) -> None:
    """After release the connection is dropped, and no token was issued."""
    bench.tele.set(token_endpoint="hang")
    held = asyncio.create_task(bench.login())
    await bench.tele.holding()
    bench.tele.release()
    with pytest.raises(aiohttp.ClientConnectionError):
        await held
    assert (bench.tele.issued, bench.tele.token_requests) == ((), {"login": 1})


async def test_the_end_of_serving_lets_held_requests_go() -> None:
    """A double that is shut down while it holds a request answers it and does not wait for anybody."""
    double = TeleTracker(clock=HeldClock())
    double.set(token_endpoint="slow")
    async with aiohttp.ClientSession() as session:
        async with serving(double) as url:
            held = asyncio.create_task(session.post(f"{url}/auth/login", data={}))
            await double.holding()
        async with await held as answer:
            assert answer.status == 400


async def test_a_bug_in_a_double_is_journaled_as_500(caplog: pytest.LogCaptureFixture) -> None:
    """An exception inside an endpoint is still one entry."""

    def broken() -> str:
        raise RuntimeError("no more tokens")

    double = TeleTracker(clock=HeldClock(), mint=broken)
    account = {"username": teletracker.ACCOUNT.username, "password": teletracker.ACCOUNT.password}
    async with (
        serving(double) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/auth/login", data=account) as response,
    ):
        assert response.status == 500
    assert double.journal[-1].status == 500
    assert "no more tokens" in caplog.text


async def test_serving_takes_an_application_tls_and_ipv6() -> None:
    """The URL names scheme and host as a client needs them."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    authority = trustme.CA()
    context, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("::1").configure_cert(context)
    authority.configure_trust(trusting)
    async with serving(app, host="::1", ssl_context=context) as url, aiohttp.ClientSession() as session:
        assert url.startswith("https://[::1]:")
        async with session.get(url, ssl=trusting) as response:
            assert await response.text() == "hello"


async def test_the_default_tokens_are_random_and_of_the_vendors_form() -> None:
    """UUIDs from TeleTracker, `va.` tokens of 50 characters from Vanilla; accounts show no password."""
    first, second = Vanilla(clock=HeldClock()).issue(), Vanilla(clock=HeldClock()).issue()
    assert first != second
    assert [len(part) for part in first.split(".")] == [2, 32, 6, 7]
    assert len({TeleTracker(clock=HeldClock()).mint(), MainBrainer(clock=HeldClock()).mint()}) == 2
    for secret, shown in (
        (teletracker.ACCOUNT.password, repr(teletracker.ACCOUNT)),
        (mainbrainer.ACCOUNT.password, repr(mainbrainer.ACCOUNT)),
        (mainbrainer.ACCOUNT.private_token, repr(mainbrainer.ACCOUNT)),
        (vanilla.MEMBER.transient_key, repr(vanilla.MEMBER)),
    ):
        assert secret not in shown


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer a.b", "a.b"),
        ("bEARER \t a ", "a"),
        ("Bearer a b", "a b"),
        ("Basic a", None),
        ("Bearer", None),
        ("Bearera", None),
        (None, None),
    ],
)
def test_bearer_reads_its_scheme_in_any_case(value: str | None, token: str | None) -> None:
    """Other schemes and an empty value are no token."""
    assert bearer(value) == token
