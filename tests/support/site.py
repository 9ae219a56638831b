"""A small web site: something of each kind that a page may load, a WebSocket, and what was asked for."""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from proxy.demo.serving import serving

#: An image of one by one.
_GIF: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==")
#: By the end of the path: the type, and the content.
_FILES: Final = {
    "gif": ("image/gif", _GIF),
    "js": ("text/javascript", b"globalThis.ran = 'ran';"),
    "mjs": ("text/javascript", b"export const ran = 'ran';"),
    "css": ("text/css", b"body { color: rgb(1, 2, 3) }"),
    "html": ("text/html", b"<!doctype html><link rel=icon href=data:,><p>fine"),
    "events": ("text/event-stream", b"data: fine\n\n"),
    "txt": ("text/plain", b"fine"),
}


@dataclass
class Site:
    """Answers every path by its ending, echoes what comes over a WebSocket, and keeps what reached it.

    `fields` stand in each answer; a path `/to` leads to the URL in its query.
    """

    url: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    seen: list[web.Request] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep, then answer."""
        self.seen.append(request)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket
        if request.path == "/to":
            raise web.HTTPTemporaryRedirect(request.query_string)
        kind, body = _FILES.get(request.path.rpartition(".")[2], _FILES["html"])
        return web.Response(body=body, headers={"Content-Type": kind, **self.fields})


@asynccontextmanager
async def site(fields: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """Serve a `Site` on loopback."""
    made = Site(fields=fields or {})
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.handle)
    async with serving(app) as made.url:
        yield made
