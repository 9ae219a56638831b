"""A service that demands a bearer token, whatever stands behind it: another server, git, or a function of a test.

What a client sends as its own credential never gets it in, and never reaches what is behind it.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, web

from proxy.demo.serving import serving
from tests.support.leaks import Canaries

Behind = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Of one hop only (RFC 9110 section 7.6.1), or for the gate alone.
_STOPS: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "authorization"})
_PIECE: Final = 64 * 1024


@dataclass
class Gate:
    """`/gate/token` gives tokens (RFC 6749 section 4.4); `behind` answers whatever shows the last of them.

    The token ends before each request of which `ends` holds, and whenever a test says `end()`.
    """

    behind: Behind
    mint: Callable[[], str] = field(repr=False)
    secret: str = field(repr=False)
    url: str = ""
    ends: Callable[[web.Request], bool] = lambda _request: False
    #: Method, target and status of each request but those for tokens.
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    tokens: int = 0
    _token: str | None = field(default=None, repr=False)

    @property
    def refused(self) -> list[str]:
        """The targets that were asked for without the token of the moment."""
        return [target for _, target, status in self.seen if status == 401]

    @property
    def config(self) -> dict[str, Any]:
        """The credential `gate`, and a route to it."""
        credential = {
            "type": "oauth2",
            "grant": "client_credentials",
            "token_url": f"{self.url}/gate/token",
            "client_id": "tools",
            "client_secret": {"env": "GATE_SECRET"},
        }
        return {
            "routes": [{"prefix": "/", "upstream": self.url, "credential": "gate"}],
            "credentials": {"gate": credential},
        }

    @property
    def environ(self) -> dict[str, str]:
        """Where the secret of `config` is."""
        return {"GATE_SECRET": self.secret}

    def route(self, **more: Any) -> dict[str, Any]:
        """The same `config`, with further keys of its route."""
        [route] = self.config["routes"]
        return {**self.config, "routes": [{**route, **more}]}

    def end(self) -> None:
        """The last token is good no more."""
        self._token = None

    def once(self, holds: Callable[[web.Request], bool]) -> None:
        """The token ends before the first request of which this holds, and before no other."""

        def first(request: web.Request) -> bool:
            if found := holds(request):
                self.ends = lambda _request: False
            return found

        self.ends = first

    async def issue(self, request: web.Request) -> web.Response:
        """A new token; the one before ends."""
        form = await request.post()
        assert form["grant_type"] == "client_credentials"
        self._token, self.tokens = self.mint(), self.tokens + 1
        return web.json_response({"access_token": self._token, "token_type": "Bearer", "expires_in": 3600})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """401 (RFC 6750 section 3), or what is behind."""
        if self.ends(request):
            self.end()
        if self._token is None or request.headers.getall("Authorization", []) != [f"Bearer {self._token}"]:
            self.seen.append((request.method, request.raw_path, 401))
            challenge = {"WWW-Authenticate": 'Bearer realm="gate", error="invalid_token"'}
            return web.Response(status=401, text="no token, or an old one", headers=challenge)
        answer = await self.behind(request)
        self.seen.append((request.method, request.raw_path, answer.status))
        return answer


@asynccontextmanager
async def gate(behind: Behind, canaries: Canaries) -> AsyncIterator[Gate]:
    """A gate on loopback before this."""
    made = Gate(behind, lambda: canaries.mint("token"), canaries.mint("key"))
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/gate/token", made.issue)
    app.router.add_route("*", "/{rest:.*}", made.answer)
    async with serving(app) as made.url:
        yield made


@asynccontextmanager
async def before(url: str) -> AsyncIterator[Behind]:
    """What the server at `url` answers, as it comes."""
    async with ClientSession(auto_decompress=False) as session:

        async def ask(request: web.Request) -> web.StreamResponse:
            fields = [(name, value) for name, value in request.headers.items() if name.lower() not in _STOPS]
            body = request.content if request.body_exists else None
            asked = session.request(
                request.method, url + request.raw_path, headers=fields, data=body, allow_redirects=False
            )
            async with asked as found:
                kept = [(name, value) for name, value in found.headers.items() if name.lower() not in _STOPS]
                answer = web.StreamResponse(status=found.status, reason=found.reason)
                answer.headers.extend(kept)
                answer.content_length = found.content_length
                await answer.prepare(request)
                async for piece in found.content.iter_any():
                    await answer.write(piece)
                return answer

        yield ask


def git(folder: Path) -> Behind:
    """`git http-backend`, a CGI program, for the repositories in `folder`; pushes are allowed."""

    async def ask(request: web.Request) -> web.StreamResponse:
        command = [shutil.which("git") or "git", "http-backend"]
        variables = {
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "tools",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
        }
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=variables, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        feeding = asyncio.create_task(_feed(request, process.stdin))
        head = await process.stdout.readuntil(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if line)
        answer = web.StreamResponse(status=int(fields.pop("Status", "200").split()[0]), headers=fields)
        await answer.prepare(request)
        while piece := await process.stdout.read(_PIECE):
            await answer.write(piece)
        await feeding
        await process.wait()
        return answer

    return ask


async def _feed(request: web.Request, stream: asyncio.StreamWriter) -> None:
    async for piece in request.content.iter_any():
        stream.write(piece)
        await stream.drain()
    stream.close()
