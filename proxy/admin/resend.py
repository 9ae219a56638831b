"""Sends a request through the proxy itself, as a client would: what the inspector repeats."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

#: How long an answer may take, and what of it is read: the journal has the rest.
SECONDS: Final = 60.0
_LEFT_OUT: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "expect"})


@dataclass(frozen=True, slots=True)
class Again:
    """A request to send: `target` raw, `fields` by name and value."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def problem(self) -> str | None:
        """Why it cannot be sent, if so."""
        words = [self.method, self.target, *(text for field in self.fields for text in field)]
        if any(not text.isprintable() or not text.isascii() for text in words) or " " in self.method + self.target:
            return "method, path and fields take printable ASCII only, without line ends"
        if not self.target.startswith("/"):
            return "write a path that begins with /"
        return None


async def resend(url: str, again: Again, more: Iterable[tuple[str, str]]) -> int:
    """Send it to the listener at `url`; `more` are fields of ours. Gives the status. Raises OSError, TimeoutError."""
    parts = urlsplit(url)
    host = "localhost" if parts.scheme == "unix" else parts.netloc
    named = {name.lower() for name, _ in again.fields}
    fields = [
        ("Host", host),
        *((name, value) for name, value in again.fields if name.lower() not in _LEFT_OUT),
        *more,
    ]
    if again.body or "content-length" in named:
        fields.append(("Content-Length", str(len(again.body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in [*fields, ("Connection", "close")])
    async with asyncio.timeout(SECONDS):
        if parts.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(unquote(parts.path))
        else:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(f"{again.method} {again.target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + again.body)
            line = await reader.readline()
            while await reader.read(65536):
                pass
        finally:
            writer.close()
    return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0
