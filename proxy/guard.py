"""Which local requests are admitted: a pure decision on the head of a request, before any token is touched.

Order: version, method, target form, framing, expectation, Host, Origin and Sec-Fetch-Site, preflight, client key.
Host stops DNS rebinding, Origin and Sec-Fetch-Site stop cross-site requests; neither replaces the other
(threats 1, 2; THREATS 4.1). No exemption depends on a request header (threat 12).
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.errors import (
    BadExpectation,
    BadFraming,
    BadRequest,
    ClientKeyRequired,
    CorsDenied,
    HostNotAllowed,
    MethodNotAllowed,
    OriginNotAllowed,
)
from proxy.fields import Fields, basic_password, cookie_values
from proxy.headers import CLIENT_KEY_COOKIE, CLIENT_KEY_HEADER
from proxy.redact import Secret
from proxy.routes import split_target

#: The names by which a process of the same machine calls us.
OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

#: uri-host of RFC 3986 in the forms that a Host field really has, and an optional port. Nothing else is a Host.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?")
_METHOD = re.compile(rb"[A-Za-z]{1,32}")
_FIELD_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_PREFLIGHT_SECONDS: Final = 600
#: Sec-Fetch-Site values of requests that no other page caused (Fetch Metadata, section 2.2).
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """The head of a request as it came: `fields` by lower-case name, `target` raw, `version` as (major, minor).

    No repr: it may hold the client key.
    """

    method: str
    target: bytes
    version: tuple[int, int]
    fields: Fields
    #: The listener is a Unix socket: whoever can open it is admitted by file mode, and Host says nothing.
    unix: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Admission:
    """What the guard learned: where the request wants to go, and which of its parts were meant for us.

    `path` is without the client key's segment, which `key_prefix` holds (`b""`: the key came elsewhere).
    `origin` is the allow-listed page origin that asks; `own_origin` what a page of ours would call itself.
    No repr: it may hold the client key.
    """

    host: str
    path: bytes
    query: bytes | None
    own_origin: bytes
    key_prefix: bytes = b""
    authorization_is_key: bool = False
    origin: bytes | None = None
    preflight: bool = False


class Guard:
    """Admits or refuses. `hosts` are names without port, `origins` complete browser origins."""

    __slots__ = ("_hosts", "_key", "_origins")

    def __init__(
        self, *, hosts: Iterable[str] = (), origins: Iterable[str] = (), client_key: Secret | None = None
    ) -> None:
        self._hosts = OWN_NAMES | {host.lower() for host in hosts}
        self._origins = frozenset(origin.encode().lower() for origin in origins)
        self._key = None if client_key is None else client_key.reveal().encode()

    def admit(self, head: Head) -> Admission:
        """Raise a `Rejected`, or say what the request is after."""
        if head.version not in ((1, 0), (1, 1)):
            raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        if head.method in ("CONNECT", "TRACE"):
            raise MethodNotAllowed
        path, query = split_target(head.target)
        _check_framing(head)
        host, own_origin = self._check_host(head)
        origin = self._check_origin(head, own_origin)
        if origin is not None and _is_preflight(head):
            return Admission(host, path, query, own_origin, origin=origin, preflight=True)
        if self._key is None:
            return Admission(host, path, query, own_origin, origin=origin)
        key_prefix, authorization_is_key = self._check_key(head.fields, path)
        return Admission(
            host, path[len(key_prefix) :] or b"/", query, own_origin, key_prefix, authorization_is_key, origin
        )

    def holds_key(self, value: bytes) -> bool:
        """Does the client key stand somewhere in this field value?"""
        return self._key is not None and self._key in value

    def allows_origin(self, origin: bytes) -> bool:
        """Is this one of the foreign origins that may call?"""
        return origin.strip().lower() in self._origins

    def _check_host(self, head: Head) -> tuple[str, bytes]:
        """The host's name in lower case, and our origin as a page under this name would have it."""
        values = head.fields.get(b"host", [])
        match = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if head.unix:
            return (match[1].decode().lower(), b"http://" + values[0].lower()) if match else ("", b"")
        if match is None or (name := match[1].decode().lower()) not in self._hosts:
            raise HostNotAllowed
        return name, b"http://" + values[0].lower()

    def _check_origin(self, head: Head, own_origin: bytes) -> bytes | None:
        """The allow-listed foreign origin that asks, None where no foreign page does."""
        origins = head.fields.get(b"origin", [])
        sites = head.fields.get(b"sec-fetch-site", [])
        own_site = all(site.strip().lower() in _OWN_SITES for site in sites)
        if not origins:
            if own_site:
                return None
            raise OriginNotAllowed
        origin = origins[0].strip().lower()
        if len(origins) == 1 and origin == own_origin and own_site:
            return None
        if len(origins) == 1 and self.allows_origin(origin):
            return origins[0].strip()
        raise CorsDenied if _is_preflight(head) else OriginNotAllowed

    def _check_key(self, fields: Fields, path: bytes) -> tuple[bytes, bool]:
        """The path segment that is the key, and whether Authorization carries it. Every carrier is looked at."""
        authorization = any(self._authorizes(value) for value in fields.get(b"authorization", ()))
        segment = path[1:].partition(b"/")[0]
        in_path = segment.startswith(b"~") and self._is_key(segment[1:])
        elsewhere = [
            *fields.get(CLIENT_KEY_HEADER, ()),
            *cookie_values(fields.get(b"cookie", ()), CLIENT_KEY_COOKIE),
        ]
        if not (authorization or in_path or any(self._is_key(value.strip()) for value in elsewhere)):
            raise ClientKeyRequired
        return b"/" + segment if in_path else b"", authorization

    def _authorizes(self, value: bytes) -> bool:
        scheme, _, rest = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            return self._is_key(rest.strip())
        password = basic_password(value)
        return password is not None and self._is_key(password)

    def _is_key(self, value: bytes) -> bool:
        return self._key is not None and hmac.compare_digest(value, self._key)


def _check_framing(head: Head) -> None:
    """Refuse what RFC 9112 section 6.3 calls an error and the parser lets through (threat 35, E7)."""
    lengths = head.fields.get(b"content-length", [])
    codings = head.fields.get(b"transfer-encoding", [])
    if len(lengths) > 1 or (lengths and codings):
        raise BadFraming
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked" or head.version == (1, 0)):
        raise BadFraming
    if any(value.strip().lower() != b"100-continue" for value in head.fields.get(b"expect", ())):
        raise BadExpectation


def _is_preflight(head: Head) -> bool:
    return head.method == "OPTIONS" and b"access-control-request-method" in head.fields


def cors_lines(origin: bytes, exposed: Iterable[bytes] = ()) -> list[bytes]:
    """Our own grant to an allow-listed origin, never `*` (threat 4); a page may read the fields `exposed`.

    By name, since `*` stands for nothing where a request may carry cookies (Fetch, section 3.3.3).
    """
    lines = [
        b"Access-Control-Allow-Origin: %b\r\n" % origin,
        b"Access-Control-Allow-Credentials: true\r\n",
        b"Vary: Origin\r\n",
    ]
    names = b", ".join(dict.fromkeys(line.partition(b":")[0] for line in exposed))
    return [*lines, b"Access-Control-Expose-Headers: %b\r\n" % names] if names else lines


def preflight_lines(fields: Fields, origin: bytes) -> list[bytes]:
    """The answer to a preflight of an allow-listed origin: exactly what it asks for, for ten minutes.

    Raises `CorsDenied` where it asks for something that is no method or no list of field names.
    """
    method = fields[b"access-control-request-method"][0].strip()
    names = b", ".join(fields.get(b"access-control-request-headers", ())).strip()
    if not _METHOD.fullmatch(method) or (names and not _FIELD_NAMES.fullmatch(names)):
        raise CorsDenied
    lines = cors_lines(origin)[:2]
    lines += [
        b"Access-Control-Allow-Methods: %b\r\n" % method,
        b"Access-Control-Max-Age: %d\r\n" % _PREFLIGHT_SECONDS,
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n",
    ]
    return [*lines, b"Access-Control-Allow-Headers: %b\r\n" % names] if names else lines
