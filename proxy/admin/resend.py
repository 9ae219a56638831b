"""Sends a request through the proxy itself, as a client would: what the inspector repeats."""

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from proxy.errors import BadRequest, Rejected
from proxy.redact import MASK

#: How long an answer may take, and what of it is read: the journal has the rest.
SECONDS: Final = 60.0
_LEFT_OUT: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "expect"})


class NotKept(Rejected):
    """It cannot be repeated as it was."""

    status = 409
    code = "not_kept"
    title = "Not kept"
    explanation = "Not all of this request was kept: edit it, and fill in what is missing."


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
    """Send it to the listener at `url`; `more` are fields of ours. Gives the status.

    Raises `OSError`, `TimeoutError`.
    """
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


def again(detail: Mapping[str, Any], given: Mapping[str, Any]) -> Again:
    """The request of `detail`, with what is `given` in place of its parts. Raises `NotKept`, `BadRequest`."""
    path, query = given.get("path", detail["path"]), given.get("query", detail["query"])
    if MASK in f"{path}{query}":
        raise NotKept("A part of its target is masked: edit it, and fill that in.")
    target = f"{path}?{query}" if query else str(path)
    try:
        fields = tuple((str(name), str(value)) for name, value in given.get("fields", sendable(detail)))
        return Again(str(given.get("method", detail["method"])), target, fields, _body(detail, given))
    except (TypeError, ValueError, binascii.Error):
        raise BadRequest("Write fields as a list of [name, value], and a body as text or base64.") from None


def sendable(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of a request that are shown as they came, but for the coding of a body that is shown unpacked."""
    asked = detail["request"] or {"fields": [], "body": None}
    body = asked["body"] or {"encoding": None}
    return [
        (name, value)
        for name, value, note in asked["fields"]
        if not note and not (body["encoding"] and name.lower() == "content-encoding")
    ]


def left_out(detail: Mapping[str, Any]) -> list[str]:
    """What a request made of `detail` lacks, in words: no name or value of it."""
    found = []
    if MASK in detail["path"] + detail["query"]:
        found.append("a part of its target")
    masked = [
        note for _, _, note in (detail["request"] or {"fields": []})["fields"] if note and note.startswith("masked")
    ]
    if masked:
        found.append(f"{len(masked)} of its fields")
    try:
        _body(detail, {})
    except NotKept:
        found.append("its body, or a part of it")
    else:
        if detail["bytes_in"] and detail["request"]["body"]["text"] is None:
            found.append("its body, which is no text: put it into a file called body")
    return found


def _body(detail: Mapping[str, Any], given: Mapping[str, Any]) -> bytes:
    if "body" in given:
        return str(given["body"]).encode()
    if "body_base64" in given:
        return base64.b64decode(str(given["body_base64"]), validate=True)
    if not detail["bytes_in"]:
        return b""
    kept = (detail["request"] or {}).get("body")
    if not kept or kept["truncated"]:
        raise NotKept("Its body was not kept, or not all of it: switch bodies on, or edit it and fill that in.")
    if kept["base64"] is not None and len(data := base64.b64decode(kept["base64"])) == kept["kept"]:
        return data
    if kept["text"] is None or MASK in kept["text"]:
        raise NotKept("A part of its body is masked or left out: edit it, and fill that in.")
    return str(kept["text"]).encode()
