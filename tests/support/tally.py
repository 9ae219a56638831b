"""An upstream that counts: how often each POST reached it, and what the one right answer to a request is."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from proxy.demo.serving import serving

#: What tells one POST from another.
MARKER: Final = "Idempotency-Key"
#: How an answer may be framed: by a length, in chunks, by a length and followed by the connection's end.
FRAMINGS: Final = ("length", "chunked", "last")


def right(method: str, target: str, body: bytes, size: int) -> bytes:
    """The right answer: no two requests have the same, and no two pieces of it are alike."""
    told = f"{method} {target} {hashlib.sha256(body).hexdigest()} ".encode()
    return b"".join(b"%b%07d\n" % (told, number) for number in range(size // len(told) + 1))


@dataclass
class Counting:
    """`heads` counts the POSTs of each marker from their heads on, whole or not; `tokens` are those that came."""

    size: int
    url: str = ""
    heads: Counter[str] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Count, then read, then answer as the path's first segment says."""
        self.tokens.add(request.headers.get("Authorization", ""))
        if request.method == "POST":
            self.heads[request.headers[MARKER]] += 1
        body = right(request.method, request.raw_path, await request.read(), self.size)
        framing = request.path.split("/")[1]
        if framing == "chunked":
            answer = web.StreamResponse()
            answer.enable_chunked_encoding()
            await answer.prepare(request)
            await answer.write(body[: self.size // 2])
            await answer.write(body[self.size // 2 :])
            return answer
        whole = web.Response(body=body)
        if framing == "last":
            whole.force_close()
        return whole


@asynccontextmanager
async def counting(size: int) -> AsyncIterator[Counting]:
    """Serve one whose answers have about `size` bytes."""
    made = Counting(size)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.answer)
    async with serving(app) as made.url:
        yield made
