"""A double of the TeleTracker REST API: login, strictly rotated refresh tokens, and calls behind the token.

From the vendor's documentation: parameters, answers, the three encodings, the need for Content-Length. Ours,
where the vendor says nothing: the bodies of errors, the masquerade step, that reusing a refresh token ends all
tokens of that login, and that a refresh leaves the old access token good.
"""

import dataclasses
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field

from proxy.clock import Clock
from proxy.demo.double import Double, Switches, bearer
from proxy.demo.journal import VISIT
from proxy.demo.parameters import anywhere, in_body, require
from proxy.demo.teletracker_sessions import REFRESH_LIFETIME, Sessions


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Who may log in, and the accounts that this user may act on; the first is the default."""

    username: str
    password: str = dataclasses.field(repr=False)
    account_ids: tuple[int, ...] = (4711, 4712)


#: The public account of the demonstration.
ACCOUNT: Final = Account("demo@teletracker.example", "correct-horse-7391")

#: "You must set the Content-Type and Content-Length headers": asked of these, and of any body in chunks.
BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


class TeleTrackerSwitches(Switches):
    """Beside the common ones: what refusals look like, which header is read, how wrong the server's clock is."""

    lifetime: int = Field(default=3600, gt=0)
    refusal_status: Literal[401, 403] = 401
    #: How a refresh token that is unknown, used, revoked or too old is refused.
    reuse_status: Literal[400, 401, 403] = 400
    #: `both` reads `Authorization` first.
    honour: Literal["authorization", "authentication", "both"] = "authorization"
    #: The server's clock is this far ahead; `tokenExpiration` and `Date` show it, `tokenLifetime` stays right.
    skew_minutes: int = 0


class TeleTracker(Double[TeleTrackerSwitches]):
    """The API in memory; `mint` gives the tokens (bare UUIDs, as with the vendor)."""

    def __init__(
        self,
        *,
        clock: Clock,
        mint: Callable[[], str] = lambda: str(uuid.uuid4()),
        account: Account = ACCOUNT,
        lifetime: int = 3600,
    ) -> None:
        super().__init__(TeleTrackerSwitches(lifetime=lifetime), clock=clock, mint=mint)
        self._account = account
        self._sessions = Sessions()
        self._last_call = len(account.account_ids)
        #: By account; each begins with one call.
        self._calls: dict[int, list[dict[str, object]]] = {
            account_id: [{"id": number, "account_id": account_id, "caller": f"+1555{number:07}"}]
            for number, account_id in enumerate(account.account_ids, start=1)
        }

    def routes(self) -> list[web.RouteDef]:
        """Login, refresh, masquerade, the calls, and `/echo-size`."""
        return [
            web.post("/auth/login", self.token_endpoint("login", measured(self._login))),
            web.post("/auth/refresh", self.token_endpoint("refresh", measured(self._refresh))),
            web.post("/auth/masquerade", self.token_endpoint("masquerade", self._authorized(self._masquerade))),
            web.get("/calls", self._authorized(self._get_calls)),
            web.post("/calls", self._authorized(self._post_calls)),
            web.put("/calls", self._authorized(self._put_calls)),
            web.delete("/calls", self._authorized(self._delete_calls)),
            web.post("/echo-size", self._authorized(self._echo_size)),
        ]

    def presented(self, request: web.Request) -> str | None:
        """The bearer token of the header that the switch `honour` names."""
        honour = self.switches.honour
        names = ("authorization", "authentication") if honour == "both" else (honour,)
        tokens = (bearer(request.headers.get(name)) for name in names)
        return next((token for token in tokens if token is not None), None)

    def problem(self, status: int, message: str) -> web.Response:
        """The vendor's envelope with `success` false."""
        return problem(status, message)

    def server_time(self) -> float:
        """Epoch seconds, wrong by the switch `skew_minutes`."""
        return self.clock.wall() + self.switches.skew_minutes * 60

    @property
    def refresh_reuses(self) -> int:
        """How often a used refresh token was presented again."""
        return self._sessions.reuses

    def expire(self) -> int:
        """End all access tokens that are good now, and say how many; refresh tokens stay good."""
        return self._sessions.expire(self.clock.now())

    def revoke_refresh(self) -> int:
        """Revoke all refresh tokens that are good now, and say how many; access tokens stay good."""
        return self._sessions.revoke_refresh()

    def operations(self) -> dict[str, Callable[[], int]]:
        """The common operations, and `revoke-refresh`."""
        return {**super().operations(), "revoke-refresh": self.revoke_refresh}

    def _authorized(self, answer: Callable[[web.Request, int], Awaitable[web.Response]]) -> Handler:
        """`answer`, given the account that the request's token is bound to."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if self.forbidden(request):
                return problem(403, "This user may not do that.")
            session = self._sessions.of(self.presented(request), self.clock.now())
            if session is None:
                return problem(self.switches.refusal_status, "The bearer token is missing, unknown or expired.")
            return await answer(request, session.account_id)

        return measured(guarded)

    async def _login(self, request: web.Request) -> web.Response:
        fields = await in_body(request)
        require(fields, "username", "password")
        if (fields["username"], fields["password"]) != (self._account.username, self._account.password):
            return problem(401, "The user name or the password is wrong.")
        account_id = self._account_id(fields.get("account_id") or str(self._account.account_ids[0]))
        if account_id is None:
            return problem(401, "This user has no such account.")
        if fields.get("auth_only") == "1":
            return web.json_response({"success": True})
        # The vendor's login page ends in "...": there are more keys, which a client must ignore.
        return web.json_response(self._grant(request, account_id) | {"accountId": account_id, "locale": "en-US"})

    async def _refresh(self, request: web.Request) -> web.Response:
        fields = await in_body(request)
        require(fields, "refresh_token")
        session = self._sessions.spend(fields["refresh_token"], self.clock.now())
        if session is None:
            return problem(self.switches.reuse_status, "The refresh token is unknown, used or expired.")
        return web.json_response(self._grant(request, session.account_id, family=session.family))

    async def _masquerade(self, request: web.Request, _account_id: int) -> web.Response:
        fields = await in_body(request)
        require(fields, "account_id")
        account_id = self._account_id(fields["account_id"])
        if account_id is None:
            return problem(403, "This user has no such account.")
        return web.json_response(self._grant(request, account_id))

    def _account_id(self, text: str) -> int | None:
        """The account that `text` names, if this user may act on it."""
        return next((each for each in self._account.account_ids if str(each) == text), None)

    def _grant(self, request: web.Request, account_id: int, *, family: int | None = None) -> dict[str, object]:
        """A new pair of tokens in the vendor's shape; without `family` it begins one."""
        access, refresh = self.mint(), self.mint()
        generation = request[VISIT].issued = self.enrol(access, refresh)
        lifetime = self.switches.lifetime
        self._sessions.begin(
            access,
            refresh,
            family=generation if family is None else family,
            account_id=account_id,
            now=self.clock.now(),
            lifetime=lifetime,
        )
        return {
            "success": True,
            "guid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"session:{generation}")),
            "token": access,
            "tokenExpiration": self._stamp(lifetime),
            "tokenLifetime": lifetime,
            "refreshToken": refresh,
            "refreshTokenExpiration": self._stamp(REFRESH_LIFETIME),
        }

    def _stamp(self, seconds: int) -> str:
        """`seconds` from now in the vendor's format, by the server's clock."""
        return datetime.fromtimestamp(self.server_time() + seconds, UTC).isoformat(timespec="seconds")

    async def _get_calls(self, request: web.Request, account_id: int) -> web.Response:
        wanted = (await anywhere(request)).get("id")
        return success([call for call in self._calls[account_id] if wanted in {None, str(call["id"])}])

    async def _post_calls(self, request: web.Request, account_id: int) -> web.Response:
        fields = await in_body(request)
        require(fields, "caller")
        self._last_call += 1
        call: dict[str, object] = {"id": self._last_call, "account_id": account_id, "caller": fields["caller"]}
        self._calls[account_id].append(call)
        return success([call])

    async def _put_calls(self, request: web.Request, account_id: int) -> web.Response:
        fields = await in_body(request)
        require(fields, "id", "caller")
        call = self._call(account_id, fields["id"])
        call["caller"] = fields["caller"]
        return success([call])

    async def _delete_calls(self, request: web.Request, account_id: int) -> web.Response:
        fields = await anywhere(request)
        require(fields, "id")
        call = self._call(account_id, fields["id"])
        self._calls[account_id].remove(call)
        return success([call])

    def _call(self, account_id: int, number: str) -> dict[str, object]:
        """The call of that number; raises HTTPNotFound."""
        call = next((call for call in self._calls[account_id] if str(call["id"]) == number), None)
        if call is None:
            raise web.HTTPNotFound(reason="There is no such call.")
        return call

    async def _echo_size(self, request: web.Request, _account_id: int) -> web.Response:
        """Length and SHA-256 of the body, read as it comes."""
        digest, length = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            length += len(chunk)
        return success([{"length": length, "sha256": digest.hexdigest()}])


def measured(answer: Handler) -> Handler:
    """`answer`, for requests that say how long their body is."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        expected = request.method in BODY_METHODS or "Transfer-Encoding" in request.headers
        if expected and "Content-Length" not in request.headers:
            return problem(411, "You must set the Content-Length header.")
        return await answer(request)

    return guarded


def success(data: list[dict[str, object]]) -> web.Response:
    """The vendor's envelope."""
    return web.json_response({"success": True, "data": data})


def problem(status: int, message: str) -> web.Response:
    """The vendor's envelope for what did not succeed."""
    return web.json_response({"success": False, "message": message}, status=status)
