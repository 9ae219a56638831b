"""Asks one server one question, as the doctor does: bounded in time and size, whatever comes back.

Law: what an answer says of itself proves nothing; whose it is says the exchange that this process has of it.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from proxy.accesslog import Exchange
from proxy.routes import Origin

#: Bytes of a head, and of a problem document.
_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, names in lower case, and its body where that is a problem document."""

    status: int
    fields: Mapping[str, str]
    body: bytes = b""

    def detail(self, exchange: Exchange) -> str | None:
        """The sentence of the proxy's own answer to `exchange`; None where the upstream answered.

        Our own answers have the exchange's id, which no upstream is told.
        """
        if not exchange.error:
            return None
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("request_id") != exchange.request_id:
            return None
        return str(found.get("detail"))

    @property
    def date(self) -> float | None:
        """Its Date in epoch seconds, None where there is none that can be read."""
        try:
            return parsedate_to_datetime(self.fields["date"]).timestamp()
        except (KeyError, ValueError, TypeError, IndexError, OverflowError):
            return None


async def get(url: str, path: str, fields: Mapping[str, str]) -> Reply:
    """GET a path of this process's own proxy. The caller bounds the time.

    Raises `OSError`, and `ValueError` for an answer that breaks off or is none.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_LIMIT)
    try:
        # In HTTP/1.0 there are no interim answers and no chunks.
        _ask(writer, f"GET {path} HTTP/1.0", fields)
        reply = await _head(reader)
        if not reply.fields.get("content-type", "").startswith("application/problem+json"):
            return reply  # anything else may be without end
        return Reply(reply.status, reply.fields, await _upto(reader, _LIMIT))
    finally:
        writer.close()


async def connect(
    origin: Origin, context: ssl.SSLContext | None, server_name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server, its certificate verified; the caller bounds the time. Raises as asyncio does."""
    # SNI has no final dot, and neither have certificates (RFC 6066 section 3).
    name = None if context is None else (server_name or origin.host).rstrip(".")
    return await asyncio.open_connection(origin.host, origin.port, ssl=context, server_hostname=name, limit=_LIMIT)


async def date_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> float | None:
    """The clock of the server of a connection, by a HEAD of its root; None where it tells none."""
    _ask(writer, "HEAD / HTTP/1.1", {"Host": origin.authority, "Connection": "close"})
    try:
        return (await _head(reader)).date
    except (OSError, ValueError):
        return None


def _ask(writer: asyncio.StreamWriter, line: str, fields: Mapping[str, str]) -> None:
    lines = [line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\r\n".join(lines).encode("ascii"))


async def _head(reader: asyncio.StreamReader) -> Reply:
    try:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ValueError("there is no head, or one without end") from None
    status = re.match(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: |$)", line)
    if status is None:
        raise ValueError("this is no HTTP/1")
    fields = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    return Reply(int(status[1]), fields)


async def _upto(reader: asyncio.StreamReader, most: int) -> bytes:
    body = b""
    while len(body) < most and (piece := await reader.read(most)):
        body += piece
    return body
