"""What the doubles share: switches, counters, a token endpoint that can fail, an application that is observed."""

import asyncio
import dataclasses
import re
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any, Generic, Literal, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict, Field

from proxy.clock import Clock
from proxy.demo import control, journal
from proxy.demo.journal import VISIT, Entry, Visit


class Switches(BaseModel):
    """How a double behaves; a change makes a new value. Unknown names and values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Seconds that an access token issued from now on is good for.
    lifetime: int = Field(gt=0)
    #: Globs on the path that answer 403 whatever the token.
    forbidden_paths: tuple[str, ...] = ()
    #: `down` answers 503, `slow` answers after `release()`, `hang` drops the connection after `release()`.
    token_endpoint: Literal["up", "down", "slow", "hang"] = "up"


S = TypeVar("S", bound=Switches)


def bearer(value: str | None) -> str | None:
    """The token in a header value of the scheme Bearer, in any case (RFC 9110 section 11.1); else None."""
    match = re.fullmatch(r"bearer\s+(\S.*?)\s*", value or "", re.IGNORECASE)
    return match[1] if match else None


class Double(ABC, Generic[S]):
    """One vendor API in memory: how it behaves, what it issued, and what it saw.

    `clock` decides about expiry and `mint` gives a new random string at each call. What the control endpoint
    does are methods here. A double belongs to one event loop.
    """

    def __init__(self, switches: S, *, clock: Clock, mint: Callable[[], str]) -> None:
        self.switches = switches
        self.clock = clock
        self.mint = mint
        self.journal: deque[Entry] = deque(maxlen=journal.KEPT)
        #: Answers 401 and 403 of API requests, by status.
        self.refusals: Counter[int] = Counter()
        #: Requests by method and route, e.g. `GET /calls`; `unknown` where there is no such route.
        self.requests: Counter[str] = Counter()
        #: Token requests that arrived, by grant, e.g. `login`; those that failed too.
        self.token_requests: Counter[str] = Counter()
        #: The generation of the newest token: how many grants there were.
        self.generation = 0
        self._generations: dict[str, int] = {}
        self._seen = 0
        self._held = 0
        self._released = asyncio.Event()
        self._arrivals = asyncio.Condition()

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """The vendor's endpoints."""

    @abstractmethod
    def presented(self, request: web.Request) -> str | None:
        """The token that this API judges the request by; None if there is none."""

    @abstractmethod
    def problem(self, status: int, message: str) -> web.Response:
        """An error answer in the vendor's shape."""

    @abstractmethod
    def expire(self) -> int:
        """End all access tokens that are good now, and say how many; refresh tokens stay good."""

    @property
    def refresh_reuses(self) -> int:
        """How often a used refresh token was presented; 0 for an API that has none."""
        return 0

    @property
    def issued(self) -> tuple[str, ...]:
        """The value of every token issued so far, oldest first: what a search for leaks looks for."""
        return tuple(self._generations)

    def server_time(self) -> float:
        """What the API's own clock shows, in epoch seconds."""
        return self.clock.wall()

    def enrol(self, *values: str) -> int:
        """Remember the values that one grant issued, and give their generation."""
        self.generation += 1
        self._generations.update(dict.fromkeys(values, self.generation))
        return self.generation

    def set(self, /, **changes: object) -> dict[str, Any]:
        """Change switches, and give them all.

        Raises pydantic.ValidationError for unknown names and values; nothing changes then.
        """
        self.switches = type(self.switches).model_validate(self.switches.model_dump() | changes)
        return self.switches.model_dump(mode="json")

    def release(self) -> int:
        """Let go the token requests held by `slow` and `hang`, and say how many; later ones are held again."""
        self._released.set()
        self._released = asyncio.Event()
        return self._held

    async def holding(self, count: int = 1) -> None:
        """Return when at least `count` token requests are held."""
        async with self._arrivals:
            await self._arrivals.wait_for(lambda: self._held >= count)

    def state(self) -> dict[str, Any]:
        """Switches, counters and journal, as JSON-able values without any token."""
        return {
            "switches": self.switches.model_dump(mode="json"),
            "generation": self.generation,
            "refusals": {str(status): count for status, count in self.refusals.items()},
            "requests": dict(self.requests),
            "token_requests": dict(self.token_requests),
            "refresh_reuses": self.refresh_reuses,
            "held": self._held,
            "journal": [dataclasses.asdict(entry) for entry in self.journal],
        }

    def operations(self) -> Mapping[str, Callable[[], int]]:
        """What `POST /__control__/NAME` does; each gives how many tokens or requests it touched."""
        return {"expire": self.expire, "release": self.release}

    def app(self) -> web.Application:
        """A new application with the vendor's endpoints and the control endpoint; several share one state."""
        app = web.Application(middlewares=[self._observe])
        app.router.add_routes(control.routes(self))
        app.router.add_routes(self.routes())
        app.on_response_prepare.append(self._date)
        app.on_shutdown.append(self._shut_down)
        return app

    def forbidden(self, request: web.Request) -> bool:
        """Does the switch `forbidden_paths` name the request's path?"""
        return any(fnmatchcase(request.path, pattern) for pattern in self.switches.forbidden_paths)

    def token_endpoint(self, grant: str, answer: Handler) -> Handler:
        """`answer`, counted as a token request of `grant` and subject to the switch `token_endpoint`."""

        async def endpoint(request: web.Request) -> web.StreamResponse:
            request[VISIT].grant = grant
            self.token_requests[grant] += 1
            switch = self.switches.token_endpoint
            if switch == "down":
                return self.problem(503, "The service is down for maintenance.")
            if switch in {"slow", "hang"}:
                await self._hold()
            if switch == "hang":
                if request.transport is not None:
                    request.transport.abort()
                return self.problem(503, "The connection was dropped on purpose.")
            return await answer(request)

        return endpoint

    async def _hold(self) -> None:
        released = self._released  # release() puts a new event in its place, so that later requests are held again
        self._held += 1
        try:
            async with self._arrivals:
                self._arrivals.notify_all()
            await released.wait()
        finally:
            self._held -= 1

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count one request and write it down; errors of the router get the vendor's shape."""
        if request.path.startswith(f"{control.PREFIX}/"):
            return await handler(request)
        visit = request[VISIT] = Visit()
        token = self.presented(request)
        # Before the answer: what this request is granted must not count as what it presented.
        generation = None if token is None else self._generations.get(token, 0)
        places = tuple(journal.places(request, self._generations))
        target = journal.masked(request.raw_path, self._generations)
        resource = request.match_info.route.resource
        self.requests["unknown" if resource is None else f"{request.method} {resource.canonical}"] += 1
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            response = self.problem(status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        finally:
            self._seen += 1
            self.journal.append(
                Entry(
                    number=self._seen,
                    method=request.method,
                    target=target,
                    status=status,
                    generation=generation,
                    places=places,
                    grant=visit.grant,
                    issued=visit.issued,
                )
            )
            if visit.grant is None and status in {401, 403}:
                self.refusals[status] += 1
        return response

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(self.server_time(), usegmt=True)

    async def _shut_down(self, _app: web.Application) -> None:
        self.release()
