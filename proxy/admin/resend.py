"""Sends a request through the proxy itself, as a client would: what the inspector repeats."""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from proxy.admin.shown import REWRITTEN
from proxy.errors import BadRequest, Rejected
from proxy.redact import MASK

#: How long an answer may take, and what of it is read: the journal has the rest.
SECONDS: Final = 60.0
#: Fields that are written anew.
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "expect"})
#: With these a request says that a body comes, be it empty (RFC 9112 section 6.3).
_ANNOUNCING: Final = frozenset({"content-length", "transfer-encoding"})
#: What `left_out` says of a body.
PART_OF_BODY: Final = "its body, or a part of it"
#: A body that is given, as text or in base64.
_BODIES: Final = frozenset({"body", "body_base64"})
#: RFC 9110 section 5.6.2: what a method and the name of a field are.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class NotKept(Rejected):
    """It cannot be repeated as it was."""

    status = 409
    code = "not_kept"
    title = "Not kept"
    explanation = "Not all of this request was kept: edit it, and fill in what is missing."


@dataclass(frozen=True, slots=True)
class Again:
    """A request to send: `target` raw, `fields` by name and value. `has_body`: it has one, be it empty."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    has_body: bool = False

    def problem(self) -> str | None:
        """Why it cannot be sent, if so; no name or value of it."""
        if not _TOKEN.fullmatch(self.method):
            return "The method is one word, of letters as a rule: no spaces, colons or line ends."
        if not all(_TOKEN.fullmatch(name) for name, _ in self.fields):
            return "The name of a field is one word of letters, digits and hyphens: no spaces, colons or line ends."
        texts = [self.target, *(value for _, value in self.fields)]
        if not all(text.isprintable() and text.isascii() for text in texts) or " " in self.target:
            return "Path, query and the values of fields take printable ASCII only, without line ends."
        if not self.target.startswith("/"):
            return "Write a path that begins with /."
        return None


async def resend(url: str, again: Again, more: Iterable[tuple[str, str]]) -> int:
    """Send it to the listener at `url`; `more` are fields of ours. Gives the status.

    Raises `OSError`, `TimeoutError`.
    """
    parts = urlsplit(url)
    host = "localhost" if parts.scheme == "unix" else parts.netloc
    fields = [
        ("Host", host),
        *((name, value) for name, value in again.fields if name.lower() not in _OURS),
        *more,
    ]
    if again.body or again.has_body:
        fields.append(("Content-Length", str(len(again.body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in [*fields, ("Connection", "close")])
    async with asyncio.timeout(SECONDS):
        if parts.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
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
    path, query = _target(detail, given)
    if MASK in f"{path}?{query}":
        raise NotKept("A part of its target is masked: edit it, and fill that in.")
    try:
        fields = tuple((str(name), str(value)) for name, value in given.get("fields", sendable(detail)))
        return Again(
            str(given.get("method", detail["method"])),
            f"{path}?{query}" if query else path,
            fields,
            _body(detail, given),
            has_body=announces_body([*came(detail), *fields]),
        )
    except (TypeError, ValueError, binascii.Error):
        raise BadRequest("Write fields as a list of [name, value], and a body as text or base64.") from None


def came(detail: Mapping[str, Any]) -> list[Sequence[Any]]:
    """The fields of the request of `detail`: name, value and note."""
    return list((detail["request"] or {"fields": ()})["fields"])


def announces_body(fields: Iterable[Sequence[Any]]) -> bool:
    """Do these say that a body comes, be it empty?"""
    return any(name.lower() in _ANNOUNCING for name, *_ in fields)


def sendable(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of a request that are shown as they came, but for the coding of a body that is shown unpacked.

    What was rewritten is shown as it came, and will be once more.
    """
    body = (detail["request"] or {"body": None})["body"] or {"encoding": None}
    return [
        (name, value)
        for name, value, note in came(detail)
        if (not note or note.startswith(REWRITTEN))
        and not (body["encoding"] and name.lower() == "content-encoding")
    ]


def left_out(detail: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What a request made of `detail`, with what is `given`, lacks, in words: no name or value of it."""
    found = []
    if MASK in "?".join(_target(detail, given)):
        found.append("a part of its target")
    masked = [note for _, _, note in came(detail) if note and note.startswith("masked")]
    if masked and "fields" not in given:
        found.append(f"{len(masked)} of its fields")
    if not _BODIES & given.keys() and _why_no_body(detail) is not None:
        found.append(PART_OF_BODY)
    return found


def _target(detail: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, str]:
    """Path and query."""
    return str(given.get("path", detail["path"])), str(given.get("query", detail["query"]) or "")


def _body(detail: Mapping[str, Any], given: Mapping[str, Any]) -> bytes:
    if "body" in given:
        return str(given["body"]).encode()
    if "body_base64" in given:
        return base64.b64decode(str(given["body_base64"]), validate=True)
    if (why := _why_no_body(detail)) is not None:
        raise NotKept(why)
    if not detail["bytes_in"]:
        return b""
    kept = detail["request"]["body"]
    return base64.b64decode(kept["base64"]) if kept["text"] is None else str(kept["text"]).encode()


def _why_no_body(detail: Mapping[str, Any]) -> str | None:
    """Why the body that came cannot be sent again, if so."""
    kept: Any = (detail["request"] or {}).get("body")
    if _is_short(detail) or (detail["bytes_in"] and (not kept or kept["truncated"])):
        return "Its body was not kept, or not all of it: switch bodies on, or edit it and fill that in."
    if not detail["bytes_in"]:
        return None
    text, packed = kept["text"], kept["base64"] or ""
    # Of bytes, those that were taken out are missing: four characters stand for three (RFC 4648 section 4).
    is_whole = MASK not in text if text is not None else len(packed) // 4 * 3 - packed.count("=") == kept["kept"]
    return None if is_whole else "A part of its body is masked or left out: edit it, and fill that in."


def _is_short(detail: Mapping[str, Any]) -> bool:
    """Did less of its body come than was announced? The client went, or it was refused by its head alone."""
    announced = {name.lower(): value for name, value, _ in came(detail) if name.lower() in _ANNOUNCING}
    length = announced.get("content-length", "")
    if length.isdigit():
        return int(length) > int(detail["bytes_in"])
    return bool(announced) and not detail["attempts"]
