"""A double of MainBrainer, the white label of Loyalty Communication: three secrets in, a JWT for minutes out.

From the vendor's documentation: `POST /token`, the shape of its answer, its statuses, the claims of the JWT.
Ours, where the vendor says nothing: the bodies of errors, the header's name of the private token, how long
`ShortLive` and `LongLive` are, and the API behind the token.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field

from proxy.clock import Clock
from proxy.demo.double import Double, Switches, bearer
from proxy.demo.journal import VISIT


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Who may log in: an e-mail address, a password and the account's private token (a GUID)."""

    username: str
    password: str = dataclasses.field(repr=False)
    private_token: str = dataclasses.field(repr=False)


#: The public account of the demonstration.
ACCOUNT: Final = Account("demo@mainbrainer.example", "open-sesame-2048", "5e1f0c1e-0000-4000-8000-00000000d0e5")

PRIVATE_TOKEN_HEADER: Final = "privateToken"
CLAIMS: Final = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
MICROSOFT: Final = "http://schemas.microsoft.com/ws/2008/06/identity/claims"
#: Seconds, by the folded name of a `validity`; None: as the switch `lifetime` says.
VALIDITIES: Final[dict[str, int | None]] = {"default": None, "shortlive": 15 * 60, "longlive": 30 * 24 * 3600}

CUSTOMERS: Final = (
    {"customerId": 1, "name": "Ada Example", "points": 120},
    {"customerId": 2, "name": "Bo Example", "points": 45},
)


class MainBrainerSwitches(Switches):
    """Beside the common ones: how an expired token is refused, and where the private token is read from."""

    #: `expires_in` counts whole minutes.
    lifetime: int = Field(default=7200, gt=0, multiple_of=60)
    refusal_status: Literal[401, 403] = 401
    private_token_in: Literal["body", "header"] = "body"


class MainBrainer(Double[MainBrainerSwitches]):
    """The API in memory. `secret` signs the JWTs (HS256: 32 bytes or more), `mint` gives their `jti`."""

    def __init__(
        self,
        *,
        clock: Clock,
        mint: Callable[[], str] = lambda: str(uuid.uuid4()),
        secret: str = "the-demonstration-signs-with-this-key",
        account: Account = ACCOUNT,
        lifetime: int = 7200,
    ) -> None:
        super().__init__(MainBrainerSwitches(lifetime=lifetime), clock=clock, mint=mint)
        self._secret = secret
        self._account = account
        #: When each token ends, on `clock.now()`. The JWT has no `exp`: expiry is known to the server alone.
        self._ends: dict[str, float] = {}

    def routes(self) -> list[web.RouteDef]:
        """`/token` with and without a slash, and the customers; there is no refresh endpoint."""
        token = self.token_endpoint("login", self._token)
        return [
            web.post("/token", token),
            web.post("/token/", token),
            web.get("/customers", self._authorized(self._customers)),
        ]

    def presented(self, request: web.Request) -> str | None:
        """The bearer token of `Authorization`."""
        return bearer(request.headers.get("Authorization"))

    def problem(self, status: int, message: str) -> web.Response:
        """The one-key object that ASP.NET answers; 401 has no `WWW-Authenticate`, as with the vendor."""
        return web.json_response({"message": message}, status=status)

    def expire(self) -> int:
        """End all tokens that are good now, and say how many."""
        now = self.clock.now()
        live = [token for token, ends_at in self._ends.items() if now < ends_at]
        self._ends.update(dict.fromkeys(live, now))
        return len(live)

    def _authorized(self, answer: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self.forbidden(request):
                return self.problem(403, "You have no access to this resource.")
            if self.clock.now() >= self._ends.get(self.presented(request) or "", float("-inf")):
                message = "Authorization has been denied for this request."
                return self.problem(self.switches.refusal_status, message)
            return await answer(request)

        return guarded

    async def _customers(self, _request: web.Request) -> web.Response:
        return web.json_response(list(CUSTOMERS))

    async def _token(self, request: web.Request) -> web.Response:
        try:
            item = json.loads(await request.read())
        except ValueError:
            item = None
        if not isinstance(item, dict):
            return self.problem(400, "The item is null.")
        fields = {name.lower(): value for name, value in item.items()}  # ASP.NET binds keys in any case
        if self.switches.private_token_in == "header":
            fields["privatetoken"] = request.headers.get(PRIVATE_TOKEN_HEADER)
        validity = str(fields.get("validity") or "Default").lower()
        if validity not in VALIDITIES:
            return self.problem(422, "The validity must be Default, ShortLive or LongLive.")
        wanted = dataclasses.astuple(self._account)
        if tuple(fields.get(name) for name in ("username", "password", "privatetoken")) != wanted:
            return self.problem(401, "The user name, the password or the private token is wrong.")
        lifetime = VALIDITIES[validity] or self.switches.lifetime
        return web.json_response(self._grant(request, lifetime))

    def _grant(self, request: web.Request, lifetime: int) -> dict[str, object]:
        """The vendor's token answer; `lifetime` in seconds."""
        issued_at = self.server_time()
        token = jwt.encode(self._claims(issued_at + lifetime), self._secret, algorithm="HS256")
        self._ends[token] = self.clock.now() + lifetime
        request[VISIT].issued = self.enrol(token)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": lifetime // 60,
            "userName": self._account.username,
            "issued": round_trip(issued_at),
            "expires": round_trip(issued_at + lifetime),
            "timeZoneOffset": "UTC+00.00",
            "locale": "en-US",
        }

    def _claims(self, expires_at: float) -> dict[str, Any]:
        """The claims of the vendor's sample, without `exp`; `expires_at` in epoch seconds."""
        expiration = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        return {
            f"{CLAIMS}/name": self._account.username,
            f"{CLAIMS}/nameidentifier": "1",
            f"{MICROSOFT}/role": "ApiUser",
            "usr": _user_blob(self._account.username),
            "UTCTimeOffset": "UTC+00.00",
            "CultureCode": "en-US",
            "family_name": "Demo",
            "email": self._account.username,
            "website": "https://mainbrainer.example",
            "jti": self.mint(),
            f"{MICROSOFT}/expiration": expiration,
        }


def round_trip(at: float) -> str:
    """Epoch seconds as .NET's round-trip format "o": seven fractional digits and an offset."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")


def _user_blob(username: str) -> str:
    """The claim `usr`: gzip in base64, of the size that makes the vendor's tokens longer than 1.5 kB."""
    rights = [hashlib.sha256(f"right {number}".encode()).hexdigest() for number in range(20)]
    return base64.b64encode(
        gzip.compress(json.dumps({"user": username, "rights": rights}).encode(), mtime=0)
    ).decode()
