"""The login grant against a real token endpoint: order of steps, what falls back to a login, and what does not."""

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from proxy.credentials.asking import Asking
from proxy.credentials.grant import Grant
from proxy.credentials.login import LoginGrant
from proxy.credentials.token_endpoint import TokenEndpoint
from proxy.errors import ConfigError, CredentialError, CredentialRejected, CredentialUnavailable
from proxy.grants.login import LoginDescription, ResponseRules, Step
from proxy.grants.request import Granted
from proxy.redact import Secret

PASSWORD = "kanarie-pass-7d20"
RULES = ResponseRules(refresh_token="/refresh_token", lifetime="/expires_in", success={"/error": None})


class FixedClock:
    """Clocks that stand still."""

    def now(self) -> float:
        """Any instant."""
        return 100.0

    def awake(self) -> float:
        """The same."""
        return self.now()

    def wall(self) -> float:
        """2023-11-14T22:13:20Z."""
        return 1_700_000_000.0


class Vendor:
    """A token endpoint that answers from a list, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: deque[web.Response] = deque()
        self.asked: list[tuple[str, str | None, dict[str, str]]] = []
        self.base = ""
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def gives(self, status: int = 200, /, headers: dict[str, str] | None = None, **body: object) -> None:
        """Append an answer."""
        self.answers.append(web.json_response(body, status=status, headers=headers))

    async def serve(self, request: web.BaseRequest) -> web.Response:
        """One request."""
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.path, request.headers.get("Authorization"), fields))
        self.arrived.set()
        await self.open.wait()
        return self.answers.popleft()

    @property
    def paths(self) -> list[str]:
        """Where it was asked."""
        return [path for path, _, _ in self.asked]


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    """On a free port."""
    vendor = Vendor()
    runner = web.ServerRunner(web.Server(vendor.serve, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    vendor.base = site.name.replace(":0", f":{runner.addresses[0][1]}")
    yield vendor
    await runner.cleanup()


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """A client with the defaults."""
    client = TokenEndpoint()
    yield client
    await client.close()


@pytest.fixture
def description(vendor: Vendor) -> LoginDescription:
    """Login and refresh; nothing after it."""
    return LoginDescription(
        login=Step(f"{vendor.base}/login", fields={"username": "u", "password": Secret(PASSWORD)}),
        refresh=Step(f"{vendor.base}/refresh", fields={"refresh_token": "$refresh_token"}),
        response=RULES,
    )


@pytest.fixture
def registered() -> list[str]:
    """Every value that was registered, in order."""
    return []


class Maker:
    """Makes grants of one vendor."""

    def __init__(self, endpoint: TokenEndpoint, registered: list[str]) -> None:
        self._endpoint = endpoint
        self._registered = registered

    def __call__(self, description: LoginDescription) -> LoginGrant:
        """A grant called `billing`."""
        return LoginGrant(
            name="billing",
            description=description,
            asking=Asking(name="billing", endpoint=self._endpoint, clock=FixedClock(), register=self._register),
        )

    def _register(self, secrets: Iterable[Secret]) -> None:
        self._registered.extend(secret.reveal() for secret in secrets)


@pytest.fixture
def make(endpoint: TokenEndpoint, registered: list[str]) -> Maker:
    """With a real client, and `registered` as the redactor."""
    return Maker(endpoint, registered)


async def refused(grant: Grant, refresh_token: str | None = None) -> CredentialError:
    """The error that `obtain` ends with; its traceback shows no password."""
    with pytest.raises(CredentialError) as caught:
        await grant.obtain(None if refresh_token is None else Secret(refresh_token))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert "'billing'" in caught.value.detail
    return caught.value


async def test_without_a_refresh_token_it_logs_in(
    vendor: Vendor, make: Maker, description: LoginDescription, registered: list[str]
) -> None:
    """And registers what it got."""
    vendor.gives(access_token="at-1", refresh_token="rt-1", expires_in=60)
    granted = await make(description).obtain(None)
    assert granted == Granted(Secret("at-1"), Secret("rt-1"), lifetime=60.0)
    assert vendor.asked == [("/login", None, {"username": "u", "password": PASSWORD})]
    assert registered == ["at-1", "rt-1"]


@pytest.mark.threat(101)
@pytest.mark.parametrize(("rotated", "kept"), [("rt-2", "rt-2"), (None, "rt-1"), ("", "rt-1")])
async def test_with_a_refresh_token_it_refreshes_and_keeps_the_old_one_if_there_is_no_new(
    vendor: Vendor, make: Maker, description: LoginDescription, rotated: str | None, kept: str
) -> None:
    """RFC 6749 section 6."""
    vendor.gives(access_token="at-2", refresh_token=rotated)
    granted = await make(description).obtain(Secret("rt-1"))
    assert (granted.token, granted.refresh_token) == (Secret("at-2"), Secret(kept))
    assert vendor.asked == [("/refresh", None, {"refresh_token": "rt-1"})]


@pytest.mark.parametrize(
    ("status", "body"), [(400, {"error": "invalid_grant"}), (401, {}), (403, {}), (200, {"error": "invalid_grant"})]
)
async def test_a_rejected_refresh_is_followed_by_a_login(
    vendor: Vendor, make: Maker, description: LoginDescription, status: int, body: dict[str, object]
) -> None:
    """The refresh token was used up or revoked; the password still holds."""
    vendor.gives(status, None, **body)
    vendor.gives(access_token="at-1")
    granted = await make(description).obtain(Secret("rt-0"))
    assert (granted.token, granted.refresh_token) == (Secret("at-1"), None)
    assert vendor.paths == ["/refresh", "/login"]


@pytest.mark.threat(108)
@pytest.mark.parametrize(
    ("status", "headers", "retry_after", "sentence"),
    [
        (500, {}, None, "status 500"),
        (503, {"Retry-After": "30"}, 30.0, "status 503"),
        (
            429,
            {"Date": "Tue, 14 Nov 2023 22:13:20 GMT", "Retry-After": "Tue, 14 Nov 2023 22:15:20 GMT"},
            120.0,
            "status 429",
        ),
        (302, {"Location": "/elsewhere"}, None, "redirects are not followed"),
        (404, {}, None, "check its address"),
        (405, {}, None, "does not take this method"),
        (415, {}, None, "check encoding"),
        (418, {}, None, "fields and accept, too"),
        (200, {}, None, "response.token"),
    ],
)
@pytest.mark.parametrize("refresh_token", [None, "rt-1"])
async def test_what_is_no_rejection_is_not_followed_by_anything(
    vendor: Vendor,
    make: Maker,
    description: LoginDescription,
    *,
    status: int,
    headers: dict[str, str],
    retry_after: float | None,
    sentence: str,
    refresh_token: str | None,
) -> None:
    """One request, no password to bridge an outage, and a sentence that says what mends it (threat 108)."""
    vendor.gives(status, headers)
    error = await refused(make(description), refresh_token)
    assert isinstance(error, CredentialUnavailable)
    assert sentence in error.detail
    assert error.retry_after == retry_after
    assert vendor.paths == ["/login" if refresh_token is None else "/refresh"]


async def test_an_endpoint_that_is_down_leaves_the_password_alone(
    vendor: Vendor, make: Maker, description: LoginDescription, unused_tcp_port: int
) -> None:
    """Nobody listens for the refresh; the login would work."""
    step = Step(f"http://127.0.0.1:{unused_tcp_port}/", fields={"refresh_token": "$refresh_token"})
    error = await refused(make(replace(description, refresh=step)), "rt-1")
    assert isinstance(error, CredentialUnavailable)
    assert "refresh: No connection to the token endpoint" in error.detail
    assert vendor.asked == []


@pytest.mark.threat(107)
@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
async def test_a_rejected_login_is_final_and_says_what_mends_it(
    vendor: Vendor, make: Maker, description: LoginDescription, status: int
) -> None:
    """One attempt (threat 107)."""
    vendor.gives(status, error="nope")
    error = await refused(make(description))
    assert isinstance(error, CredentialRejected)
    assert "change the secret and restart, or run `bearer-proxy token billing --refresh`" in error.detail
    assert vendor.paths == ["/login"]


async def test_a_reply_is_never_quoted(vendor: Vendor, make: Maker, description: LoginDescription) -> None:
    """Servers echo what they were sent."""
    vendor.gives(200, expires_in=PASSWORD, access_token=PASSWORD)
    assert "response.lifetime" in (await refused(make(description))).detail


async def test_steps_after_login_follow_in_order_each_with_the_token_before(
    vendor: Vendor, make: Maker, description: LoginDescription, registered: list[str]
) -> None:
    """A masquerade, for one; a step that gives no refresh token leaves the earlier one."""
    steps = (
        Step(f"{vendor.base}/one", fields={"account_id": 5, "session": "$access_token"}),
        Step(f"{vendor.base}/two", fields={"r": "$refresh_token"}, headers={"Authorization": "$access_token"}),
    )
    vendor.gives(access_token="at-1", refresh_token="rt-1", expires_in=60)
    vendor.gives(access_token="at-2", expires_in=50)
    vendor.gives(access_token="at-3", refresh_token="rt-3", expires_in=40)
    granted = await make(replace(description, then=steps)).obtain(None)
    assert granted == Granted(Secret("at-3"), Secret("rt-3"), lifetime=40.0)
    assert vendor.asked[1:] == [
        ("/one", "Bearer at-1", {"account_id": "5", "session": "at-1"}),
        ("/two", "at-2", {"r": "rt-1"}),
    ]
    assert registered == ["at-1", "rt-1", "at-2", "at-3", "rt-3"]


async def test_a_refresh_token_that_stays_keeps_its_lifetime(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """The step after login says nothing about it."""
    date = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    vendor.gives(200, date, access_token="at-1", refresh_token="rt-1", until=1_700_000_900)
    vendor.gives(access_token="at-2")
    made = replace(
        description, then=(Step(f"{vendor.base}/one"),), response=replace(RULES, refresh_expires="/until")
    )
    granted = await make(made).obtain(None)
    assert granted.refresh_token == Secret("rt-1")
    assert granted.refresh_lifetime == 900.0


async def test_steps_after_login_do_not_follow_a_refresh(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """The session is already what they made it."""
    vendor.gives(access_token="at-2", refresh_token="rt-2")
    await make(replace(description, then=(Step(f"{vendor.base}/one"),))).obtain(Secret("rt-1"))
    assert vendor.paths == ["/refresh"]


async def test_a_rejected_step_after_login_is_final_and_named(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """Asking again would log in again and again."""
    vendor.gives(access_token="at-1")
    vendor.gives(403)
    error = await refused(make(replace(description, then=(Step(f"{vendor.base}/one"),))))
    assert isinstance(error, CredentialRejected)
    assert "step 1 after login" in error.detail


async def test_without_a_refresh_step_a_refresh_token_is_not_used(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """MainBrainer can only log in again."""
    vendor.gives(access_token="at-1")
    await make(replace(description, refresh=None)).obtain(Secret("rt-1"))
    assert vendor.paths == ["/login"]


async def test_a_refresh_may_redeem_the_access_token_itself(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """As GitLab and Vault do it: possible once there is one."""
    step = Step(f"{vendor.base}/rotate", headers={"X-Token": "$access_token"}, fields={"t": "$access_token"})
    grant = make(replace(description, refresh=step))
    last = None
    for token in ("at-1", "at-2", "at-3"):
        vendor.gives(access_token=token)
        last = (await grant.obtain(None, last)).token
    assert [(path, fields.get("t")) for path, _, fields in vendor.asked] == [
        ("/login", None),
        ("/rotate", "at-1"),
        ("/rotate", "at-2"),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"login": Step("http://x", headers={"X": Secret(f"{PASSWORD}\n")})}, "no header may"),
        ({"login": Step("http://x", fields={"t": "$refresh_token"})}, "no step before"),
        ({"refresh": Step("http://x", fields={"t": "fixed"})}, "neither"),
        ({"then": (Step("http://x", headers={"Host": "y"}),)}, "cannot be set"),
    ],
)
async def test_a_description_that_cannot_work_is_refused_at_once(
    make: Maker, description: LoginDescription, change: dict[str, Any], problem: str
) -> None:
    """At the start, not at the first expiry at night."""
    with pytest.raises(ConfigError, match=problem) as caught:
        make(replace(description, **change))
    assert PASSWORD not in str(caught.value)
    assert "'billing'" in str(caught.value)


async def test_a_cancelled_obtain_leaves_the_endpoint_usable(
    vendor: Vendor, make: Maker, description: LoginDescription
) -> None:
    """Shutdown may cancel it in the middle."""
    grant = make(description)
    vendor.open.clear()
    task = asyncio.create_task(grant.obtain(None))
    await vendor.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    vendor.gives(access_token="at-0")  # goes to the request that was cancelled, if that one still wants it
    vendor.gives(access_token="at-1")
    vendor.open.set()
    assert (await grant.obtain(None)).token in (Secret("at-0"), Secret("at-1"))
