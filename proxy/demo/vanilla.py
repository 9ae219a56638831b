"""A double of HL Vanilla's APIv2: personal access tokens, and guest data where another API would refuse.

Read in the product's source: where a token is read from, that the query wins over the header, that a bad token
makes the request a guest's, the 403's shape, the tokens endpoints. The limits are those of the vendor's
knowledge base. Ours: the users, the body of a 429, and what there is to read.
"""

import dataclasses
import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field

from proxy.clock import Clock
from proxy.demo.double import Double, Switches, bearer
from proxy.demo.journal import VISIT
from proxy.demo.vanilla_limits import Limiter
from proxy.demo.vanilla_tokens import InvalidTokenError, Row, TokenTable

#: A token is read on these paths only: the API, also behind one subcommunity.
API: Final = re.compile(r"/?(?:[^/]+/)?api")
#: Seconds: `DEFAULT_EXPIRY` of personal tokens is ten years.
LIFETIME: Final = 10 * 365 * 24 * 3600
#: A listing of tokens ends here.
LISTED: Final = 200

SIGN_IN: Final = "Garden.SignIn.Allow"
SETTINGS: Final = "Garden.Settings.Manage"
TOKENS: Final = "Garden.Tokens.Add"


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A member of the community; `transient_key` is what its web pages hold against forged requests."""

    user_id: int
    name: str
    permissions: frozenset[str]
    transient_key: str = dataclasses.field(default="demo-transient-key", repr=False)


ADMIN: Final = User(1, "admin", frozenset({SIGN_IN, SETTINGS, TOKENS}))
MEMBER: Final = User(7, "member", frozenset({SIGN_IN, TOKENS}))
READER: Final = User(8, "reader", frozenset({SIGN_IN}))
USERS: Final = {user.user_id: user for user in (ADMIN, MEMBER, READER)}

PUBLIC_DISCUSSIONS: Final = ({"discussionID": 1, "name": "Welcome"},)
MEMBERS_DISCUSSIONS: Final = ({"discussionID": 2, "name": "For members only"},)


class VanillaSwitches(Switches):
    """Beside the common ones: the rate limit, which load tests switch off."""

    lifetime: int = Field(default=LIFETIME, gt=0)
    rate_limit: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Who a request acts as (None: a guest), and why its token was not taken (None: it was, or there is none)."""

    user: User | None
    complaint: str | None = None


IDENTITY: Final = web.RequestKey("identity", Identity)


class Vanilla(Double[VanillaSwitches]):
    """The API in memory. `secret` signs the tokens, `mint` seeds their random part."""

    def __init__(
        self,
        *,
        clock: Clock,
        mint: Callable[[], str] = lambda: str(uuid.uuid4()),
        secret: str = "the-demonstration-signs-with-this-key",
        lifetime: int = LIFETIME,
    ) -> None:
        super().__init__(VanillaSwitches(lifetime=lifetime), clock=clock, mint=mint)
        self._tokens = TokenTable(secret)
        self._limiter = Limiter()

    def issue(self, user: User = MEMBER, *, name: str = "bearer-proxy") -> str:
        """A new personal access token of `user`, as a person makes it on the profile page."""
        return self._insert(user, name).value

    def _insert(self, user: User, name: str) -> Row:
        random = hashlib.sha256(self.mint().encode()).digest()[:24]
        lifetime = self.switches.lifetime
        row = self._tokens.insert(user.user_id, name, random=random, now=self.clock.wall(), lifetime=lifetime)
        self.enrol(row.value)
        return row

    def expire(self) -> int:
        """End all tokens that are good now, and say how many."""
        return self._tokens.expire(self.clock.wall())

    def app(self) -> web.Application:
        """The double as an application; the identity is found before any endpoint, and shown on any status."""
        app = super().app()
        app.middlewares.append(self._identify)
        app.on_response_prepare.append(self._challenge)
        return app

    def routes(self) -> list[web.RouteDef]:
        """The API, at the root and behind one subcommunity, and a page that is not the API."""
        return [web.get("/profile", self._me), *self._api("/api/v2"), *self._api("/{section}/api/v2")]

    def _api(self, base: str) -> list[web.RouteDef]:
        tokens = f"{base}/tokens"
        one = f"{tokens}/{{token_id:[0-9]+}}"
        return [
            web.get(f"{base}/discussions", self._discussions),
            web.get(f"{base}/users/me", self._permitted(SIGN_IN, self._show_user)),
            web.get(tokens, self._permitted(TOKENS, self._list_tokens)),
            web.post(tokens, self.token_endpoint("issue", self._permitted(TOKENS, self._post_token))),
            web.get(one, self._permitted(TOKENS, self._get_token)),
            web.delete(one, self._permitted(TOKENS, self._delete_token)),
        ]

    def presented(self, request: web.Request) -> str | None:
        """The token that counts: `access_token` of the query if it is not empty, else the bearer's; API only."""
        if not API.match(request.path):
            return None
        return request.query.get("access_token") or bearer(request.headers.get("Authorization"))

    def problem(self, status: int, message: str) -> web.Response:
        """The vendor's JSON of an HTTP exception."""
        return web.json_response({"message": message, "status": status, "description": None}, status=status)

    def _denied(self, permission: str) -> web.Response:
        """The vendor's JSON of a PermissionException."""
        body = {
            "message": "Permission Problem",
            "status": 403,
            "permissions": [permission],
            "description": f"You need the {permission} permission to do that.",
        }
        return web.json_response(body, status=403)

    @web.middleware
    async def _identify(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who asks, then limit, forbid and spoof, in this order; then answer."""
        if VISIT not in request:  # the control endpoint
            return await handler(request)
        identity = request[IDENTITY] = self._identity(self.presented(request))
        if self.switches.rate_limit and not self._limiter.admits(request.remote, request.method, self.clock.now()):
            return self.problem(429, "Too Many Requests")
        if self.forbidden(request):
            return self._denied(SETTINGS)
        spoof = request.headers.get("X-Vanilla-Spoof")
        if spoof is not None and API.match(request.path):
            if identity.user is None or SETTINGS not in identity.user.permissions:
                return self._denied(SETTINGS)
            user = next(
                (user for user in USERS.values() if spoof in {str(user.user_id), f"$name:{user.name}"}), None
            )
            if user is None:
                return self.problem(404, "User not found.")
            request[IDENTITY] = Identity(user)
        return await handler(request)

    def _identity(self, token: str | None) -> Identity:
        if token is None:
            return Identity(None)
        try:
            return Identity(USERS[self._tokens.user_of(token, self.clock.wall())])
        except InvalidTokenError as error:
            return Identity(None, str(error))

    async def _challenge(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say on any status, 200 included, that the token was not taken: there is no 401 for it."""
        identity = request.get(IDENTITY)
        if identity is not None and identity.complaint is not None:
            response.headers["X-WWW-Authenticate"] = (
                f'error="invalid_token", error_description="{identity.complaint}"'
            )

    def _permitted(
        self, permission: str, answer: Callable[[web.Request, User], Awaitable[web.Response]]
    ) -> Handler:
        """`answer`, for users who have `permission`."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            user = request[IDENTITY].user
            if user is None or permission not in user.permissions:
                return self._denied(permission)
            return await answer(request, user)

        return guarded

    async def _me(self, request: web.Request) -> web.Response:
        user = request[IDENTITY].user
        return web.Response(text=f"<h1>{'Guest' if user is None else user.name}</h1>", content_type="text/html")

    async def _discussions(self, request: web.Request) -> web.Response:
        guest = request[IDENTITY].user is None
        return web.json_response([*PUBLIC_DISCUSSIONS, *(() if guest else MEMBERS_DISCUSSIONS)])

    async def _show_user(self, _request: web.Request, user: User) -> web.Response:
        return web.json_response(
            {"userID": user.user_id, "name": user.name, "permissions": sorted(user.permissions)}
        )

    async def _list_tokens(self, _request: web.Request, user: User) -> web.Response:
        now = self.clock.wall()
        rows = [row for row in self._tokens.of(user.user_id) if row.complaint(now) is None]
        return web.json_response([row.public() for row in rows[:LISTED]])

    async def _post_token(self, request: web.Request, user: User) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            body = {}
        if body.get("transientKey") != user.transient_key:
            return self._invalid_key()
        if not isinstance(name := body.get("name"), str) or not name:
            return self.problem(422, "name is required.")
        row = self._insert(user, name)
        request[VISIT].issued = self.generation
        return web.json_response(row.public() | {"accessToken": row.value}, status=201)

    async def _get_token(self, request: web.Request, user: User) -> web.Response:
        if request.query.get("transientKey") != user.transient_key:
            return self._invalid_key()
        row = self._good_row(request, user)
        return web.json_response(row.public() | {"accessToken": row.value})

    async def _delete_token(self, request: web.Request, user: User) -> web.Response:
        self._good_row(request, user).revoked = True
        return web.Response(status=204)

    def _invalid_key(self) -> web.Response:
        return self.problem(401, "Invalid transient key.")

    def _good_row(self, request: web.Request, user: User) -> Row:
        """The token that the path names.

        Raises HTTPNotFound, and HTTPGone for one that is no longer good.
        """
        wanted = int(request.match_info["token_id"])
        row = next((row for row in self._tokens.of(user.user_id) if row.token_id == wanted), None)
        if row is None:
            raise web.HTTPNotFound(reason="Access token not found.")
        if (complaint := row.complaint(self.clock.wall())) is not None:
            raise web.HTTPGone(reason=f"Token {complaint}.")
        return row
