"""Judges the head of an upstream's answer: is it proper, and how does its body end (RFC 9112 section 6.3).

httptools lets through what no answer may have: foreign versions, statuses beyond 599, two lengths, unknown codings.
"""

from dataclasses import dataclass
from typing import Final

from proxy.errors import UpstreamProtocol
from proxy.fields import RawHeaders, connection_options, fields

#: An answer's body ends: there is none, after a known number of bytes, by chunks, or with the connection.
NO_BODY: Final = "none"
LENGTH: Final = "length"
CHUNKED: Final = "chunked"
UNTIL_CLOSE: Final = "until-close"


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body ends (one of the four), its declared length, and what the upstream says of the connection.

    `keep_alive_timeout` is N of `Keep-Alive: timeout=N` in seconds, None without one.
    """

    kind: str
    length: int | None
    keep_alive: bool
    keep_alive_timeout: float | None


def judge(status: int, version: str, headers: RawHeaders, *, asked_by_head: bool) -> Framing | None:
    """The framing of a final answer, None for an interim one. Raises `UpstreamProtocol` for an improper head."""
    if version not in ("1.0", "1.1") or not 100 <= status <= 599 or status == 101:
        raise UpstreamProtocol
    if status < 200:
        return None
    known = fields(headers)
    codings = known.get(b"transfer-encoding", [])
    length = _length(known.get(b"content-length", []), codings)
    options = connection_options(known.get(b"connection", ()))
    timeout = _timeout_parameter(b",".join(known.get(b"keep-alive", ())))
    keep_alive = b"close" not in options and (version == "1.1" or b"keep-alive" in options)
    if asked_by_head or status in (204, 304):
        # A 204 that speaks of a body may send one: what follows could be taken for the next answer.
        is_odd = status == 204 and bool(codings or length)
        return Framing(NO_BODY, length, keep_alive and not is_odd, timeout)
    if codings:
        return Framing(CHUNKED, None, keep_alive, timeout)
    if length is not None:
        return Framing(LENGTH, length, keep_alive, timeout)
    # The end of the body is the end of the connection.
    return Framing(UNTIL_CLOSE, None, keep_alive=False, keep_alive_timeout=None)


def _length(lengths: list[bytes], codings: list[bytes]) -> int | None:
    """The one declared length, None without one."""
    if len(lengths) > 1 or (lengths and codings) or any(not each.strip().isdigit() for each in lengths):
        raise UpstreamProtocol
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        raise UpstreamProtocol
    return int(lengths[0]) if lengths else None


def _timeout_parameter(value: bytes) -> float | None:
    """N of `Keep-Alive: timeout=N`."""
    for parameter in value.split(b","):
        name, _, number = parameter.strip().partition(b"=")
        if name.lower() == b"timeout" and number.strip().isdigit() and len(number) < 8:
            return float(number)
    return None
