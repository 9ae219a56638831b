"""A double of the inspector's API with the real page before it: exchanges are what a test says they are."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from proxy.demo.serving import serving

STATIC: Final = Path(__file__).parents[2] / "proxy" / "admin" / "static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

JSON = dict[str, Any]


def summary(number: int, **more: Any) -> JSON:
    """An exchange as it stands in the list."""
    at = datetime.now(UTC) - timedelta(milliseconds=10)
    return {
        "id": f"id{number}",
        "number": number,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "client": "127.0.0.1",
        "method": "GET",
        "route": "default",
        "path": f"/v2/things/{number}",
        "query": "",
        "status": 200,
        "error": None,
        "ms": 12.5,
        "token_wait_ms": 0.0,
        "upstream_ms": 11.0,
        "bytes_in": 0,
        "bytes_out": 120,
        "credential": "default",
        "generation": 3,
        "retried": False,
        "refusals": 0,
        "kind": "http",
        "live": False,
        **more,
    }


def body(text: str | None, kind: str = "text/plain", **more: Any) -> JSON:
    """One that was kept whole, unless `more` says otherwise."""
    size = len(text or "")
    known = {"bytes": size, "kept": size, "truncated": False, "type": kind, "encoding": None}
    return {**known, "text": text, "base64": None, "note": None, **more}


def attempt(generation: int, status: int, **more: Any) -> JSON:
    """One that was answered."""
    return {
        "at_ms": 0.8,
        "upstream": "https://api.example.com",
        "target": "/v2/things",
        "generation": generation,
        "connection": "kept",
        "connect_ms": None,
        "first_byte_ms": 10.1,
        "fields": [["Accept", "*/*", None], ["Authorization", "Bearer ***", "added: credential default"]],
        "status": status,
        "reason": "",
        "refused": status == 401,
        "answer": [["Content-Type", "application/json", None]],
        "body": None,
        "error": None,
        **more,
    }


def detail(shown: JSON, **more: Any) -> JSON:
    """All of an exchange."""
    return {
        **shown,
        "why": f"Route default (/) led to https://api.example.com, which answered {shown['status']}.",
        "timing": {
            "guard_ms": 0.3,
            "token_wait_ms": 2.0,
            "connect_ms": 0.0,
            "first_byte_ms": 8.0,
            "body_ms": 1.5,
            "total_ms": shown["ms"],
        },
        "request": {
            "http": "1.1",
            "fields": [
                ["Host", "127.0.0.1:8080", None],
                ["Accept", "*/*", None],
                ["Connection", "keep-alive", "dropped: of this connection alone"],
                ["X-Tenant", "*** (4 bytes)", "masked: only fields known to be harmless are shown"],
                ["Content-Length", "0", "written anew"],
            ],
            "body": None,
        },
        "attempts": [attempt(shown["generation"], shown["status"])],
        "response": {
            "status": shown["status"],
            "fields": [["Content-Type", "application/json", None]],
            "body": None,
        },
        **more,
    }


def retried(number: int, **more: Any) -> JSON:
    """One whose first token was refused."""
    shown = summary(number, retried=True, refusals=1, generation=4, **more)
    attempts = [attempt(3, 401), attempt(4, 200, at_ms=14.0)]
    return detail(shown, attempts=attempts)


def report(name: str = "default", **more: Any) -> JSON:
    """The state of a credential."""
    return {
        "name": name,
        "state": "fresh",
        "generation": 3,
        "expires_in": 3000.0,
        "refresh_expires_in": None,
        "last_error": None,
        "next_attempt_in": None,
        "persisted": None,
        **more,
    }


@dataclass
class Inspector:
    """What the double knows, and what was asked of it: method, path, and the JSON that was sent."""

    details: list[JSON] = field(default_factory=list)
    credentials: list[JSON] = field(default_factory=lambda: [report()])
    timelines: dict[str, list[JSON]] = field(default_factory=dict)
    settings: JSON = field(default_factory=lambda: {"bodies": 0, "exchanges": 5000})
    replayed: tuple[int, JSON] = (200, {"id": None, "status": 200, "left_out": []})
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    listeners: list[asyncio.Queue[bytes | None]] = field(default_factory=list)
    url: str = ""

    def push(self, event: str, document: JSON) -> None:
        """Tell all who listen."""
        for listener in self.listeners:
            listener.put_nowait(f"event: {event}\ndata: {json.dumps(document)}\n\n".encode())

    def happens(self, *found: JSON) -> None:
        """These exchanges ended."""
        for each in found:
            self.details.append(each)
            self.push("exchange", {key: each[key] for key in summary(0)})

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._noted])
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/static/{name}", self._page),
                web.get("/api/events", self._events),
                web.get("/api/exchanges", self._list),
                web.post("/api/exchanges.har", self._har),
                web.get("/api/exchanges/{id}", self._detail),
                web.get("/api/exchanges/{id}/curl", self._curl),
                web.post("/api/exchanges/{id}/replay", self._replay),
                web.get("/api/credentials", self._credentials),
                web.get("/api/timelines", self._timelines),
                web.post("/api/credentials/{name}/refresh", self._refresh),
                web.get("/api/inspector", self._settings),
                web.post("/api/inspector", self._settings),
                web.post("/api/inspector/clear", self._clear),
            ]
        )
        app.on_shutdown.append(self._end)
        return app

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        sent = await request.json() if request.can_read_body else None
        if request.path.startswith("/api/"):
            self.asked.append((request.method, request.path, sent))
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _har(self, _request: web.Request) -> web.Response:
        return web.json_response({"log": {}})

    async def _end(self, _app: web.Application) -> None:
        for listener in self.listeners:
            listener.put_nowait(None)

    async def _page(self, request: web.Request) -> web.Response:
        path = STATIC / request.match_info.get("name", "index.html")
        fields = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return web.Response(
            body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8", headers=fields
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        listener: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.listeners.append(listener)
        try:
            await answer.write(b": hello\n\n")
            while (data := await listener.get()) is not None:
                await answer.write(data)
        except ConnectionResetError:
            pass  # The page was closed.
        finally:
            self.listeners.remove(listener)
        return answer

    async def _list(self, request: web.Request) -> web.Response:
        found = [{key: each[key] for key in summary(0)} for each in reversed(self.details)]
        found = found[: int(request.query["limit"])]
        most = self.settings["exchanges"]
        return web.json_response({"exchanges": found, "kept": len(found), "capacity": most})

    def _found(self, request: web.Request) -> JSON:
        found = [each for each in self.details if each["id"] == request.match_info["id"]]
        if not found:
            raise web.HTTPNotFound(text=json.dumps({"title": "Not found"}), content_type="application/json")
        return found[0]

    async def _detail(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request))

    async def _curl(self, request: web.Request) -> web.Response:
        return web.Response(text=f"curl 'http://127.0.0.1:8080{self._found(request)['path']}'")

    async def _replay(self, request: web.Request) -> web.Response:
        self._found(request)
        return web.json_response(self.replayed[1], status=self.replayed[0])

    async def _credentials(self, _request: web.Request) -> web.Response:
        return web.json_response({"credentials": self.credentials})

    async def _timelines(self, _request: web.Request) -> web.Response:
        return web.json_response(self.timelines)

    async def _refresh(self, request: web.Request) -> web.Response:
        named = next(each for each in self.credentials if each["name"] == request.match_info["name"])
        named["generation"] += 1
        return web.json_response(named)

    async def _settings(self, request: web.Request) -> web.Response:
        self.settings.update(await request.json() if request.method == "POST" else {})
        return web.json_response(self.settings)

    async def _clear(self, _request: web.Request) -> web.Response:
        self.details.clear()
        return web.json_response({})


@asynccontextmanager
async def inspecting(inspector: Inspector, port: int = 0) -> AsyncIterator[Inspector]:
    """Serve it for as long as the block lasts."""
    async with serving(inspector.app(), port=port) as url:
        inspector.url = url
        yield inspector
