"""The proxy that one writes first: aiohttp's application and client, and nothing that it takes to be safe or fast.

A program of its own: `python naive.py PORT UPSTREAM TOKEN CA`.
"""

import ssl
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, TCPConnector, web

UPSTREAM = web.AppKey("UPSTREAM", str)
TOKEN = web.AppKey("TOKEN", str)
SESSION = web.AppKey("SESSION", ClientSession)
CONTEXT = web.AppKey("CONTEXT", ssl.SSLContext)


async def session(app: web.Application) -> AsyncIterator[None]:
    """One session for the life of the application."""
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as app[SESSION]:
        yield


async def handle(request: web.Request) -> web.StreamResponse:
    """Pass a request on with the token, and the answer back."""
    headers = {name: value for name, value in request.headers.items() if name not in {"Host", "Transfer-Encoding"}}
    headers["Authorization"] = f"Bearer {request.app[TOKEN]}"
    url = request.app[UPSTREAM] + request.raw_path
    data = request.content if request.body_exists else None
    context = request.app[CONTEXT]
    async with request.app[SESSION].request(
        request.method, url, headers=headers, data=data, ssl=context, allow_redirects=False
    ) as upstream:
        answer = web.StreamResponse(status=upstream.status)
        for name, value in upstream.headers.items():
            if name not in {"Transfer-Encoding", "Connection"}:
                answer.headers.add(name, value)
        await answer.prepare(request)
        async for chunk in upstream.content.iter_any():
            await answer.write(chunk)
        await answer.write_eof()
        return answer


def main(port: str, upstream: str, token: str, ca: str) -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app[UPSTREAM], app[TOKEN], app[CONTEXT] = upstream, token, ssl.create_default_context(cafile=ca)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
