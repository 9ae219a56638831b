"""A machine whose clock is wrong: what it signs is dated by the server's clock, as soon as that is known."""

from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qsl

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.credentials.signing import ServerClock
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Canaries

#: A table over lines that other tests measure.
pytestmark = pytest.mark.unmeasured
HOUR: Final = 3600.0
DAY: Final = 86400.0


@dataclass
class Vendor:
    """A token endpoint with a clock of its own, which takes JWTs that are good by it; it is the upstream, too."""

    clock: HeldClock
    canaries: Canaries
    key: rsa.RSAPrivateKey
    ahead: float = 0.0
    tells: bool = True
    #: Refuse everything, with this code.
    refusing: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)

    def used_by(self, proxying: StartProxy, given: dict[str, Any]) -> Any:
        """A proxy that signs with the client's key, and whose clock is that of the test."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return proxying(given, environ={"KEY": key}, clock=self.clock)

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """A token for a good JWT; 200 for anything that is no token request."""
        if seen.method == "GET":
            return web.Response()
        fields = dict(parse_qsl(seen.body.decode()))
        self.asked.append(fields)
        shown = fields.get("client_assertion") or fields.get("assertion") or seen.all("Authorization")[0].split()[1]
        claims = jwt.decode(
            shown,
            self.key.public_key(),
            ["RS256"],
            options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
        now = self.clock.wall() + self.ahead
        headers = {"Date": formatdate(now, usegmt=True) if self.tells else "soon"}
        if self.refusing or not claims["iat"] <= now < claims["exp"]:
            error = self.refusing or ("invalid_grant" if "assertion" in fields else "invalid_client")
            return web.json_response({"error": error}, status=401, headers=headers)
        token = self.canaries.mint("token")
        reply = {"access_token": token, "token": token, "expires_in": HOUR, "token_type": "Bearer"}
        reply["expires_at"] = now + HOUR
        if "client_assertion" in fields:
            reply["refresh_token"] = self.canaries.mint("uuid")
        return web.json_response(reply, status=200 if fields else 201, headers=headers)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """The client's."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def vendor(clock: HeldClock, canaries: Canaries, key: rsa.RSAPrivateKey) -> Vendor:
    """Its clock is that of the test, at first."""
    return Vendor(clock, canaries, key)


CREDENTIALS: Final[dict[str, dict[str, Any]]] = {
    "github_app": {"type": "github_app", "app_id": 1, "installation_id": 2},
    "private_key_jwt": {
        "type": "oauth2",
        "grant": "client_credentials",
        "client_id": "tool",
        "client_auth": "private_key_jwt",
    },
    "jwt_bearer": {"type": "oauth2", "grant": "jwt_bearer", "claims": {"iss": "tool"}},
}


def config(url: str, kind: str) -> dict[str, Any]:
    """The vendor is both."""
    where = {"base_url": url} if kind == "github_app" else {"token_url": f"{url}/token"}
    return {"upstream": url, "credential": {**CREDENTIALS[kind], "key": {"env": "KEY"}, **where}}


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("ahead", [HOUR, -HOUR, DAY - 60, 60 - DAY])
async def test_095_a_wrong_clock_costs_one_request_more(
    proxying: StartProxy, vendor: Vendor, kind: str, ahead: float
) -> None:
    """Once, and not again with each token; when somebody sets the clock right, once more."""
    vendor.ahead = ahead
    async with api(vendor.answer) as server, vendor.used_by(proxying, config(server.url, kind)) as proxy:
        assert (await proxy.ask("GET", "/")).status == 200
        assert len(vendor.asked) == 2
        for count in (3, 4):
            vendor.clock.move(HOUR)
            assert (await proxy.ask("GET", "/")).status == 200
            assert len(vendor.asked) == count
        assert [line["seconds"] for line in proxy.lines("clock_skewed")] == [round(ahead)]
        vendor.clock.move(HOUR)
        vendor.clock.epoch += ahead
        vendor.ahead = 0.0
        assert (await proxy.ask("GET", "/")).status == 200
        assert len(vendor.asked) == 6
        assert [line["seconds"] for line in proxy.lines("clock_skewed")] == [round(ahead), 0]


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize(
    ("ahead", "tells"), [(0.0, True), (9.0, True), (2 * DAY, True), (-2 * DAY, True), (HOUR, False)]
)
async def test_what_is_refused_for_another_reason_is_refused_once(
    proxying: StartProxy, vendor: Vendor, kind: str, ahead: float, *, tells: bool
) -> None:
    """The clocks agree, or differ by more than clocks do, or the server does not tell."""
    vendor.ahead, vendor.tells, vendor.refusing = ahead, tells, "invalid_client"
    async with api(vendor.answer) as server, vendor.used_by(proxying, config(server.url, kind)) as proxy:
        for _ in range(5):
            assert (await proxy.ask("GET", "/")).code == "credential_rejected"
        assert proxy.lines("clock_skewed") == []
    assert len(vendor.asked) == 1


async def test_a_refusal_that_the_servers_clock_does_not_cure_is_one(proxying: StartProxy, vendor: Vendor) -> None:
    """The key is another one, and the clock is wrong besides."""
    vendor.ahead, vendor.refusing = HOUR, "invalid_client"
    async with (
        api(vendor.answer) as server,
        vendor.used_by(proxying, config(server.url, "private_key_jwt")) as proxy,
    ):
        for _ in range(5):
            assert (await proxy.ask("GET", "/")).code == "credential_rejected"
    assert len(vendor.asked) == 2


@pytest.mark.parametrize(("error", "redeemed"), [("invalid_grant", 1), ("invalid_client", 2)])
async def test_088_a_refresh_token_goes_twice_only_where_the_server_did_not_look_at_it(
    proxying: StartProxy, vendor: Vendor, error: str, redeemed: int
) -> None:
    """RFC 6749 section 5.2: `invalid_client` is said before; anything else may have been the end of it."""
    async with (
        api(vendor.answer) as server,
        vendor.used_by(proxying, config(server.url, "private_key_jwt")) as proxy,
    ):
        assert (await proxy.ask("GET", "/")).status == 200
        vendor.clock.move(HOUR)
        vendor.ahead, vendor.refusing = HOUR, error
        assert (await proxy.ask("GET", "/")).code == "credential_rejected"
    refreshes = [fields for fields in vendor.asked if fields["grant_type"] == "refresh_token"]
    assert len(refreshes) == redeemed


def test_a_server_that_does_not_tell_changes_nothing_that_was_learned(clock: HeldClock) -> None:
    """Nor does one whose clock is that which is known, give or take what assertions are dated back."""
    server = ServerClock("c", clock)
    assert server.learn(clock.wall() + HOUR)
    for date in (None, clock.wall() + HOUR + 9, clock.wall() + HOUR - 9, clock.wall() + DAY + 1):
        assert not server.learn(date)
        assert server.wall() == clock.wall() + HOUR
    assert server.learn(clock.wall() + 9)
    assert server.wall() == clock.wall()
