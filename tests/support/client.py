"""A plain HTTP/1.1 client over a raw socket: sends exactly the bytes it is given, reads one answer at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from tests.support.leaks import Artefacts

#: No answer of a test takes this long; a hang becomes a failure.
DEADLINE = 20.0


@dataclass(frozen=True)
class Answer:
    """One answer as it came; `fields` holds every field line, `complete` whether the body ended properly.

    `interim` are the raw heads of the interim answers before it, `trailers` the field lines behind its last chunk.
    """

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    raw_head: bytes = field(repr=False)
    complete: bool = True
    interim: list[bytes] = field(default_factory=list)
    trailers: list[bytes] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        """The only value of a field."""
        [value] = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an answer that the proxy made itself; empty for an upstream's."""
        return str(self.json()["code"]) if self.all("content-type") == ["application/problem+json"] else ""


class Client:
    """One connection to the proxy. Everything that it receives is searched for canaries."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, artefacts: Artefacts) -> None:
        self.reader = reader
        self.writer = writer
        self._artefacts = artefacts

    async def ask(
        self,
        method: str,
        target: str = "/",
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes | None = None,
    ) -> Answer:
        """Send one request with a known length, and read its answer."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs.insert(0, ("Host", "localhost"))
        if body is not None and not any(name.lower() == "content-length" for name, _ in pairs):
            pairs.append(("Content-Length", str(len(body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
        self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + (body or b""))
        return await self.answer(method)

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        """Read one answer, and the interim ones before it."""
        async with asyncio.timeout(DEADLINE):
            answer = await self._answer(method)
        # Heads differ, and bodies are often the same, which is searched once.
        heads = [*answer.interim, answer.raw_head, *answer.trailers]
        self._artefacts.add("answer of the proxy", b"\r\n".join(heads))
        self._artefacts.add("answer of the proxy", answer.body)
        return answer

    async def _answer(self, method: str) -> Answer:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        status = int(first.split(" ")[1])
        if 100 <= status < 200 and status != 101:
            final = await self._answer(method)
            final.interim.insert(0, head)
            return final
        trailers: list[bytes] = []
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        known = {name.lower(): value for name, value in fields}
        if method == "HEAD" or status in (204, 304):
            return Answer(status, fields, b"", head)
        if known.get("transfer-encoding", "").lower() == "chunked":
            body, complete, trailers = await self._chunks()
        elif "content-length" in known:
            body = await self.reader.read(0)
            while len(body) < int(known["content-length"]):
                piece = await self.reader.read(int(known["content-length"]) - len(body))
                if not piece:
                    break
                body += piece
            complete = len(body) == int(known["content-length"])
        else:
            body, complete = await self.reader.read(), True
        return Answer(status, fields, body, head, complete, trailers=trailers)

    async def _chunks(self) -> tuple[bytes, bool, list[bytes]]:
        """The body, whether its last chunk and all behind it came, and the trailers."""
        body = bytearray()
        try:
            while size := int(await self._line(), 16):
                piece = await self.reader.readexactly(size + 2)
                assert piece.endswith(b"\r\n")
                body += piece[:-2]
            return bytes(body), True, [line async for line in self._lines()]
        except asyncio.IncompleteReadError as error:
            return bytes(body + error.partial), False, []

    async def _lines(self) -> AsyncIterator[bytes]:
        """Each line up to the empty one."""
        while line := await self._line():
            yield line

    async def _line(self) -> bytes:
        """One line without its end; raises `IncompleteReadError` without a byte of it where it breaks off."""
        try:
            return (await self.reader.readuntil(b"\r\n"))[:-2]
        except asyncio.IncompleteReadError as error:
            raise asyncio.IncompleteReadError(b"", None) from error

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def go_on_reading(self) -> None:
        """Take again what comes."""
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    async def at_end(self) -> bool:
        """Wait for the proxy to end the connection; True if nothing more came."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read() == b""

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


@asynccontextmanager
async def connected(url: str, artefacts: Artefacts) -> AsyncIterator[Client]:
    """A connection to `http://host:port` or `unix:/path`."""
    if url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
    else:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    client = Client(reader, writer, artefacts)
    try:
        yield client
    finally:
        client.close()
