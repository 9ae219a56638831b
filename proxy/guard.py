"""Which local requests are admitted: a pure decision on the head of a request, before any token is touched.

Order: method, target form, Host, Origin and Sec-Fetch-Site, preflight, client key; what is malformed never comes
here (`http1`).
Host stops DNS rebinding, Origin and Sec-Fetch-Site stop cross-site requests; neither replaces the other
(threats 1, 2; THREATS 4.1). No exemption depends on a request header (threat 12).
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.errors import (
    ClientKeyRequired,
    CorsDenied,
    HostNotAllowed,
    MethodNotAllowed,
    OriginNotAllowed,
)
from proxy.fields import Fields, basic_password, cookie_values
from proxy.headers import CLIENT_KEY_COOKIE, CLIENT_KEY_HEADER
from proxy.http1.request import RequestSection
from proxy.redact import Secret
from proxy.routes import split_target

#: The names by which a process of the same machine calls us.
OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

#: uri-host of RFC 3986 in the forms that a Host field really has, and an optional port. Nothing else is a Host.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?")
_METHOD = re.compile(rb"[A-Za-z]{1,32}")
_FIELD_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_PREFLIGHT_SECONDS: Final = 600
#: CONNECT would make a tunnel of us; TRACE would show a client what we added.
_NOT_TAKEN: Final = frozenset({"CONNECT", "TRACE"})
#: Sec-Fetch-Site values of requests that no other page caused (Fetch Metadata, section 2.2).
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})


class Head:
    """The head of a request as it came: `target` raw, `section` its fields.

    `unix`: the listener is a Unix socket; whoever can open it is admitted by file mode, and Host says nothing.
    """

    # Written out, as all that is made for each request: what dataclasses generate costs more when compiled.
    __slots__ = ("method", "section", "target", "unix")

    def __init__(self, method: str, target: bytes, section: RequestSection, *, unix: bool = False) -> None:
        self.method = method
        self.target = target
        self.section = section
        self.unix = unix


@dataclass(slots=True, repr=False, eq=False)
class Visitor:
    """What the fields alone say of whoever asks. A client repeats them, so it is worked out once a section.

    `origin` is the allow-listed page origin that asks; `own_origin` what a page of ours would call itself;
    `has_key`: the client key is among the fields.
    """

    host: str
    own_origin: bytes
    origin: bytes | None
    has_key: bool = False
    authorization_is_key: bool = False


class Admission:
    """What the guard learned: where the request wants to go, and which of its parts were meant for us.

    `path` is without the client key's segment, which `key_prefix` holds (`b""`: the key came elsewhere).
    """

    __slots__ = ("key_prefix", "path", "preflight", "query", "visitor")

    def __init__(
        self,
        visitor: Visitor,
        path: bytes,
        query: bytes | None,
        key_prefix: bytes = b"",
        *,
        preflight: bool = False,
    ) -> None:
        self.visitor = visitor
        self.path = path
        self.query = query
        self.key_prefix = key_prefix
        self.preflight = preflight


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
        if head.method in _NOT_TAKEN:
            raise MethodNotAllowed
        path, query = split_target(head.target)
        visitor = head.section.memo.get(self)
        if not isinstance(visitor, Visitor):
            visitor = head.section.memo[self] = self._visitor(head)
        if visitor.origin is not None and _is_preflight(head):
            return Admission(visitor, path, query, preflight=True)
        if self._key is None:
            return Admission(visitor, path, query)
        # Every carrier is looked at, since what was meant for us stops here.
        segment = path[1:].partition(b"/")[0]
        key_prefix = b"/" + segment if segment.startswith(b"~") and self._is_key(segment[1:]) else b""
        if not (key_prefix or visitor.has_key):
            raise ClientKeyRequired
        return Admission(visitor, path[len(key_prefix) :] or b"/", query, key_prefix)

    def _visitor(self, head: Head) -> Visitor:
        host, own_origin = self._check_host(head)
        origin = self._check_origin(head, own_origin)
        visitor = Visitor(host, own_origin, origin)
        if self._key is not None:
            fields = head.section.values
            visitor.authorization_is_key = any(
                self._authorizes(value) for value in fields.get(b"authorization", ())
            )
            elsewhere = [
                *fields.get(CLIENT_KEY_HEADER, ()),
                *cookie_values(fields.get(b"cookie", ()), CLIENT_KEY_COOKIE),
            ]
            visitor.has_key = visitor.authorization_is_key or any(self._is_key(value) for value in elsewhere)
        return visitor

    def holds_key(self, value: bytes) -> bool:
        """Does the client key stand somewhere in this field value?"""
        return self._key is not None and self._key in value

    def allows_origin(self, origin: bytes) -> bool:
        """Is this one of the foreign origins that may call?"""
        return origin.strip().lower() in self._origins

    def _check_host(self, head: Head) -> tuple[str, bytes]:
        """The host's name in lower case, and our origin as a page under this name would have it."""
        values = head.section.values.get(b"host", [])
        match = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if head.unix:
            return (match[1].decode().lower(), b"http://" + values[0].lower()) if match else ("", b"")
        if match is None or (name := match[1].decode().lower()) not in self._hosts:
            raise HostNotAllowed
        return name, b"http://" + values[0].lower()

    def _check_origin(self, head: Head, own_origin: bytes) -> bytes | None:
        """The allow-listed foreign origin that asks, None where no foreign page does."""
        origins = head.section.values.get(b"origin", [])
        sites = head.section.values.get(b"sec-fetch-site", [])
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

    def _authorizes(self, value: bytes) -> bool:
        scheme, _, rest = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            return self._is_key(rest.strip())
        password = basic_password(value)
        return password is not None and self._is_key(password)

    def _is_key(self, value: bytes) -> bool:
        return self._key is not None and hmac.compare_digest(value, self._key)


def _is_preflight(head: Head) -> bool:
    return head.method == "OPTIONS" and b"access-control-request-method" in head.section.values


def cors_lines(origin: bytes, exposed: Iterable[bytes] = ()) -> list[bytes]:
    """Our own grant to an allow-listed origin, never `*` (threat 4); a page may read the fields `exposed`.

    By name, since `*` stands for nothing where a request may carry cookies (Fetch, section 3.3.3).
    """
    lines = [
        b"Access-Control-Allow-Origin: %b" % origin,
        b"Access-Control-Allow-Credentials: true",
        b"Vary: Origin",
    ]
    names = b", ".join(dict.fromkeys(line.partition(b":")[0] for line in exposed if line))
    return [*lines, b"Access-Control-Expose-Headers: %b" % names] if names else lines


def preflight_lines(fields: Fields, origin: bytes | None) -> list[bytes]:
    """The answer to a preflight of an allow-listed origin: exactly what it asks for, for ten minutes.

    Raises `CorsDenied` where it asks for something that is no method or no list of field names.
    """
    method = fields[b"access-control-request-method"][0].strip()
    names = b", ".join(fields.get(b"access-control-request-headers", ())).strip()
    if origin is None or not _METHOD.fullmatch(method) or (names and not _FIELD_NAMES.fullmatch(names)):
        raise CorsDenied
    lines = cors_lines(origin)[:2]
    lines += [
        b"Access-Control-Allow-Methods: %b" % method,
        b"Access-Control-Max-Age: %d" % _PREFLIGHT_SECONDS,
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    ]
    return [*lines, b"Access-Control-Allow-Headers: %b" % names] if names else lines
