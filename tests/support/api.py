"""An upstream API whose answers a test decides: records what reached it, answers as it is told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from proxy.demo.serving import serving


@dataclass(frozen=True)
class Seen:
    """One request as it reached the upstream."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


Answering = Callable[[Seen], Awaitable[web.StreamResponse]]


async def fine(_seen: Seen) -> web.StreamResponse:
    """200 with a word."""
    return web.Response(text="fine")


@dataclass
class Api:
    """`seen` grows with each request; `answer` may be replaced at any time."""

    url: str = ""
    answer: Answering = fine
    seen: list[Seen] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record, then answer."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        seen = Seen(request.method, request.raw_path, headers, await request.read())
        self.seen.append(seen)
        return await self.answer(seen)


@asynccontextmanager
async def api(answer: Answering = fine) -> AsyncIterator[Api]:
    """Serve an `Api` on loopback."""
    made = Api(answer=answer)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{rest:.*}", made.handle)
    async with serving(app) as made.url:
        yield made
