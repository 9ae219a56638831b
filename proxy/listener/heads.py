"""Takes the heads of requests out of what a client sends, and refuses what cannot become one.

Law: no byte of a malformed request leaves this module in any direction (threats 74, 112).
"""

import re
from typing import Final

from proxy.errors import BadRequest, HeadersTooLarge, TargetTooLong
from proxy.http1.request import RequestSection, request_line
from proxy.http1.section import Malformed, TooMany, has_bare_lf

#: The fields of no request.
NOTHING: Final = RequestSection(b"", 0)
_HEAD_END: Final = b"\r\n\r\n"
_CR: Final = 13
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
#: More empty lines in front of a request are no mistake any more.
_EMPTY_MOST: Final = 64
#: What a request line that is not all here can look like.
_BEGUN: Final = re.compile(rb"\r?\Z|[A-Z-]{1,24}(?:\Z| )")


class HeadReader:
    """What came of heads, and of whatever is behind them, in `buffer`.

    `most` bounds a request line, and a field section, in bytes.
    """

    __slots__ = ("_looked_at", "_most", "_section", "buffer")

    def __init__(self, most: int) -> None:
        self._most = most
        #: Where in the buffer the search for the end of a head goes on.
        self._looked_at = 0
        #: The fields of the last request: clients send the same ones again.
        self._section = RequestSection(b"", 0)
        self.buffer = b""

    def take(self) -> bytes:
        """All that is in the buffer: it belongs to a body."""
        taken, self.buffer = self.buffer, b""
        return taken

    def next(self) -> tuple[str, bytes, RequestSection] | None:
        """Method, target and fields of the request that the buffer begins with; None: they are not all here.

        Raises what is wrong with it: a `Rejected`.
        """
        buffer, most = self.buffer, self._most
        if not buffer:
            return None
        at = 0
        if buffer[0] == _CR and (empty := _EMPTY_LINES.match(buffer)):
            at = empty.end()  # old clients send one behind a body (RFC 9112 section 2.2)
            if at > _EMPTY_MOST:
                raise BadRequest
        end = buffer.find(_HEAD_END, max(self._looked_at, at))
        if end < 0:
            self._looked_at = max(0, len(buffer) - 3)
            _check_unfinished(buffer, at, most)
            return None
        line_end = buffer.find(b"\r\n", at)
        if line_end - at > most:
            raise TargetTooLong
        if end - line_end > most:
            raise HeadersTooLarge
        self.buffer = buffer[end + 4 :]
        self._looked_at = 0
        method, target, minor = _request_line(buffer[at:line_end])
        section = self._section
        raw = buffer[line_end + 2 : end] if line_end < end else b""
        if raw != section.raw or minor != section.minor:
            section = self._section = _section(raw, minor)
        return method, target, section


def _check_unfinished(buffer: bytes, at: int, most: int) -> None:
    """Raise what is wrong with a head, from `at` on, that cannot become a proper one."""
    line_end = buffer.find(b"\r\n", at)
    if has_bare_lf(buffer):
        raise BadRequest
    if line_end < 0:
        if len(buffer) - at > most + 1:  # a CR may be the beginning of its end
            raise TargetTooLong
        # Another protocol, TLS for one, would else wait for us.
        if at < len(buffer) and not _BEGUN.match(buffer, at):
            raise BadRequest
        return
    _request_line(buffer[at:line_end])
    if len(buffer) - line_end > most + len(_HEAD_END):
        raise HeadersTooLarge


def _request_line(line: bytes) -> tuple[str, bytes, int]:
    try:
        return request_line(line)
    except Malformed as error:
        raise BadRequest("The request line is malformed, or its method is unknown.") from error


def _section(raw: bytes, minor: int) -> RequestSection:
    try:
        return RequestSection(raw, minor)
    except Malformed as error:
        raise (HeadersTooLarge if isinstance(error, TooMany) else BadRequest) from error
