"""A vendor that takes each refresh token once, and ends the whole login of one that comes twice (RFC 9700 4.14)."""

import json
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from tests.support.api import Seen
from tests.support.leaks import Canaries

#: Of an access token, in seconds.
LIFETIME: Final = 3600


@dataclass(frozen=True)
class Reply:
    """One answer, in place of the token; `carries` the new refresh token in its body."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    carries: bool = False


@dataclass
class Strict:
    """Serves tokens at `/token`, and elsewhere whoever has one that is good; it knows one login at a time."""

    canaries: Canaries
    #: What it answers to redemptions, or to everything; does it redeem then?
    reply: Reply | None = None
    to_all: bool = False
    redeems: bool = True
    #: The token requests: `login` or `refresh`.
    seen: list[str] = field(default_factory=list)
    reuses: int = 0
    _live: set[str] = field(default_factory=set)
    _spent: set[str] = field(default_factory=set)
    _good: set[str] = field(default_factory=set)

    def begin(self) -> str:
        """A refresh token that is good."""
        made = self.canaries.mint("uuid")
        self._live.add(made)
        return made

    def issue(self) -> str:
        """An access token that is good."""
        made = self.canaries.mint("token")
        self._good.add(made)
        return made

    def expire(self) -> None:
        """End all access tokens."""
        self._good.clear()

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """A token, or what the test wants; and the API."""
        if seen.target != "/token":
            shown = seen.all("authorization")[0].removeprefix("Bearer ")
            return web.Response(status=200 if shown in self._good else 401, text="here")
        given = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        redeemed = given.get("refresh_token")
        self.seen.append("login" if redeemed is None else "refresh")
        fails = self.reply if redeemed is not None or self.to_all else None
        if fails is not None and not self.redeems:
            return _failing(fails, {})
        if redeemed is not None and not self._redeem(redeemed):
            return web.json_response({"error": "invalid_grant"}, status=400)
        rotated = {"refresh_token": self.begin()}
        if fails is not None:
            return _failing(fails, rotated)
        token = {"access_token": self.issue(), "token_type": "Bearer", "expires_in": LIFETIME}
        return web.json_response({**token, **rotated})

    def _redeem(self, refresh_token: str) -> bool:
        if refresh_token in self._spent:
            self.reuses += 1
            self._live.clear()
        if refresh_token not in self._live:
            return False
        self._live.remove(refresh_token)
        self._spent.add(refresh_token)
        return True


def _failing(reply: Reply, rotated: dict[str, str]) -> web.StreamResponse:
    body = json.dumps(rotated).encode() if reply.carries else reply.body
    return web.Response(status=reply.status, headers=dict(reply.headers), body=body)
