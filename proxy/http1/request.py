"""The head of a request: its line, its fields, and how its body is framed (RFC 9112 sections 3 and 6)."""

from typing import Any, Final

from proxy.errors import BadExpectation, BadFraming
from proxy.http1.section import Malformed, Section

#: The IANA registry of methods (RFC 9110 section 16.1), and PURGE, which caches take. Others are refused: what a
#: client could choose at will would stand in logs and metrics as if it were ours.
METHODS: Final = {
    name.encode(): name
    for name in (
        *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD"),
        *("LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE"),
        *("MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY"),
        *("REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE"),
        *("UPDATEREDIRECTREF", "VERSION-CONTROL"),
    )
}
_MINORS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
#: More digits than any length has; a number beyond 2^63 is nobody's length.
_LENGTH_DIGITS: Final = 18


class RequestSection(Section):
    """The field section of a request of HTTP/1.`minor`.

    `length` is the declared one, `chunked` the other kind of body; both absent: no body. `expects`: 100-continue is
    asked for. `memo` belongs to whoever draws conclusions from the section alone: clients repeat it unchanged.
    Raises `Malformed`, `BadFraming`, `BadExpectation`.
    """

    __slots__ = ("chunked", "expects", "has_body", "length", "memo", "minor")

    def __init__(self, raw: bytes, minor: int) -> None:
        super().__init__(raw)
        values = self.values
        self.minor = minor
        self.memo: dict[Any, Any] = {}
        if len(values.get(b"host", ())) > 1 or (minor and b"host" not in values):
            raise Malformed  # RFC 9112 section 3.2
        length, chunked = None, False
        if b"content-length" in values or b"transfer-encoding" in values:
            length, chunked = _framing(values.get(b"content-length", []), values.get(b"transfer-encoding", []))
            if chunked and not minor:
                raise BadFraming
        self.length: int | None = length
        self.chunked = chunked
        self.has_body = chunked or length is not None
        # A client of HTTP/1.0 does not wait for an answer to it (RFC 9110 section 10.1.1).
        self.expects = minor > 0 and b"expect" in values
        if self.expects and any(value.lower() != b"100-continue" for value in values[b"expect"]):
            raise BadExpectation


def _framing(lengths: list[bytes], codings: list[bytes]) -> tuple[int | None, bool]:
    """The declared length, and whether the body is chunked. Raises `BadFraming`."""
    # RFC 9112 section 6.3 calls each of these an error (threats 35, 36).
    if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
        raise BadFraming
    if codings:
        if codings[0].lower() != b"chunked":
            raise BadFraming
        return None, True
    length = content_length(lengths[0])
    if length is None:
        raise BadFraming
    return length, False


def content_length(value: bytes) -> int | None:
    """The number of RFC 9110 section 8.6, None for anything else."""
    return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS else None


def request_line(line: bytes) -> tuple[str, bytes, int]:
    """Method, target and minor version of a request line. Raises `Malformed`."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise Malformed
    method, minor = METHODS.get(parts[0]), _MINORS.get(parts[2])
    if method is None or minor is None or not parts[1]:
        raise Malformed
    return method, parts[1], minor
