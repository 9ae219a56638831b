"""The head of an answer: is it proper, and how does its body end (RFC 9112 sections 4 and 6.3)."""

import re
from typing import Any, Final

from proxy.http1.bodies import Chunked, Decoder, Sized, UntilEnd
from proxy.http1.request import content_length
from proxy.http1.section import Malformed, Section

#: An answer's body ends: there is none, after a known number of bytes, by chunks, or with the connection. After a
#: 101 there is no HTTP any more.
NO_BODY: Final = "none"
LENGTH: Final = "length"
CHUNKED: Final = "chunked"
UNTIL_CLOSE: Final = "until-close"
SWITCHED: Final = "switched"

#: Some servers leave out the space before an empty reason. A reason is dropped, so what it may hold is text alone.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t \x21-\x7e\x80-\xff]*)?")
_TIMEOUT_DIGITS: Final = 7
#: Chunk extensions and trailers of an answer, in bytes.
BARREN_MOST: Final = 64 * 1024


class AnswerHead(Section):
    """The head of an answer; `whole` is all of it, less the empty line at its end.

    `length` is the declared Content-Length (of the body that a HEAD or a 304 only talks about, too);
    `keep_alive_timeout` is N of `Keep-Alive: timeout=N` in seconds, None without one. `memo` and `shown` belong to
    those who draw conclusions from the head alone: servers repeat it unchanged. Raises `Malformed`.
    """

    __slots__ = (
        "_codings",
        "is_interim",
        "keep_alive",
        "keep_alive_timeout",
        "length",
        "memo",
        "shown",
        "status",
        "whole",
    )

    def __init__(self, whole: bytes) -> None:
        line, _, raw = whole.partition(b"\r\n")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise Malformed
        super().__init__(raw)
        self.whole = whole
        self.status = status = int(match[2])
        self.memo: Any = None
        self.shown: Any = None
        self.is_interim = 100 <= status < 200 and status != 101
        values = self.values
        lengths = values.get(b"content-length", ())
        codings = values.get(b"transfer-encoding", ())
        self._codings = bool(codings)
        self.length: int | None = None
        if lengths:
            self.length = content_length(lengths[0])
            if self.length is None or len(lengths) > 1 or codings:
                raise Malformed
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or match[1] == b"0"):
            raise Malformed
        options = self.options
        self.keep_alive = b"close" not in options and (match[1] == b"1" or b"keep-alive" in options)
        self.keep_alive_timeout = _timeout(values[b"keep-alive"]) if b"keep-alive" in values else None
        if status == 204 and (codings or self.length):
            # One that speaks of a body may send one: what follows could be taken for the next answer.
            self.keep_alive = False

    def framing(self, *, asked_by_head: bool) -> str:
        """How the body ends: one of the five."""
        if self.status == 101:
            return SWITCHED
        if asked_by_head or self.status in (204, 304):
            return NO_BODY
        if self._codings:
            return CHUNKED
        return UNTIL_CLOSE if self.length is None else LENGTH

    def decoder(self, framing: str) -> Decoder | None:
        """What takes a body framed so out of the stream; None where there is none."""
        if framing == LENGTH:
            return Sized(self.length or 0)
        if framing == CHUNKED:
            return Chunked(BARREN_MOST)
        return None if framing == NO_BODY else UntilEnd()


def _timeout(values: list[bytes]) -> float | None:
    """N of `Keep-Alive: timeout=N`."""
    for parameter in b",".join(values).split(b","):
        name, _, number = parameter.strip().partition(b"=")
        if name.strip().lower() == b"timeout" and number.strip().isdigit() and len(number) <= _TIMEOUT_DIGITS:
            return float(number)
    return None
