"""Reads HTTP/1.1 messages as strictly as RFC 9112 lets one: what the proxy writes must pass here, on both sides.

Law: this shares no code with the proxy, and forgives nothing. What it cannot read for certain is `Malformed`.
"""

import re
from dataclasses import dataclass
from typing import Final

_REQUEST_LINE: Final = re.compile(r"[A-Z-]+ [!-~]+ HTTP/1\.1")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.1 [1-5][0-9]{2} [\t -~]*")
_FIELD_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]*")
_SIZE_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")
_HEAD_END: Final = b"\r\n\r\n"
_CRLF: Final = b"\r\n"

Fields = list[tuple[str, str]]


class Malformed(Exception):  # noqa: N818  it says what the message is
    """What came is no HTTP/1.1 message that every reader would read alike."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as far as it came: text is latin-1, `body` is without chunks, `end` the offset behind it."""

    start: str
    fields: Fields
    body: bytes
    trailers: Fields
    complete: bool
    end: int

    @property
    def status(self) -> int:
        """The status code of an answer."""
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.start.partition(" ")[0]

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name]

    def has_option(self, option: str) -> bool:
        """Does `Connection` name this option?"""
        return option in [each.strip().lower() for value in self.all("connection") for each in value.split(",")]


def read_request(data: bytes, at: int) -> Message | None:
    """The request that begins at `at`, None while its head is not whole. Raises `Malformed`."""
    return _read(data, at, _REQUEST_LINE, has_body=True, rest_is_body=False, over=False)


def read_answer(data: bytes, at: int, *, method: str, over: bool) -> Message | None:
    """The answer to a request with `method`, None while its head is not whole; `over`: no more bytes will come.

    Raises `Malformed`.
    """
    code = data[at + 9 : at + 12]
    has_body = method != "HEAD" and not code.startswith(b"1") and code not in (b"204", b"304")
    return _read(data, at, _STATUS_LINE, has_body=has_body, rest_is_body=True, over=over)


def _read(
    data: bytes, at: int, first: re.Pattern[str], *, has_body: bool, rest_is_body: bool, over: bool
) -> Message | None:
    end = data.find(_HEAD_END, at)
    if end < 0:
        return None
    start, *lines = data[at:end].decode("latin-1").split("\r\n")
    if not first.fullmatch(start):
        raise Malformed(f"the first line: {start[:80]!r}")
    fields = _fields(lines)
    begin = end + len(_HEAD_END)
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    codings = [value for name, value in fields if name.lower() == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Malformed("two framing fields")
    if not has_body:
        return Message(start, fields, b"", [], complete=True, end=begin)
    if codings:
        if codings != ["chunked"]:
            raise Malformed(f"a transfer coding {codings[0]!r}")
        return _chunked(data, start, fields, begin)
    if lengths:
        if not _LENGTH.fullmatch(lengths[0]):
            raise Malformed(f"a length {lengths[0]!r}")
        stop = begin + int(lengths[0])
        return Message(start, fields, data[begin:stop], [], complete=len(data) >= stop, end=min(stop, len(data)))
    if rest_is_body:
        return Message(start, fields, data[begin:], [], complete=over, end=len(data))
    return Message(start, fields, b"", [], complete=True, end=begin)


def _fields(lines: list[str]) -> Fields:
    fields: Fields = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise Malformed(f"a field line with the name {line.partition(':')[0][:40]!r}")
        fields.append((match[1], match[2].strip("\t ")))
    return fields


def _chunked(data: bytes, start: str, fields: Fields, at: int) -> Message:
    """The chunks from `at` on: sizes without extensions, trailers if there are any."""
    body = bytearray()
    while True:
        eol = data.find(_CRLF, at)
        if eol < 0:
            return Message(start, fields, bytes(body), [], complete=False, end=len(data))
        if not _SIZE_LINE.fullmatch(data[at:eol]):
            raise Malformed(f"a chunk size {bytes(data[at:eol][:40])!r}")
        size, at = int(data[at:eol], 16), eol + 2
        if size == 0:
            break
        body += data[at : at + size]
        at += size
        if len(data) >= at + 2 and data[at : at + 2] != _CRLF:
            raise Malformed("a chunk that is longer than its size")
        at += 2
    if data[at : at + 2] == _CRLF:
        return Message(start, fields, bytes(body), [], complete=True, end=at + 2)
    end = data.find(_HEAD_END, at)
    if end < 0:
        return Message(start, fields, bytes(body), [], complete=False, end=len(data))
    trailers = _fields(data[at:end].decode("latin-1").split("\r\n"))
    return Message(start, fields, bytes(body), trailers, complete=True, end=end + len(_HEAD_END))
