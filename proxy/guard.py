"""Which local requests are admitted: a pure decision on the head of a request, before any token is touched.

Order: method, target form, Host, Origin and Sec-Fetch, preflight, client key. What is malformed never comes here
(`http1`), nor does anything over a connection of somebody who may not connect (`peers`).
Host stops DNS rebinding, Origin and Sec-Fetch-Site stop cross-site requests; neither replaces the other
(threats 1, 2; THREATS 4.1). No exemption depends on a request header (threat 12).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.clientkeys import ClientKey, ClientKeys
from proxy.errors import (
    ClientKeyRequired,
    CorsDenied,
    HostNotAllowed,
    MethodNotAllowed,
    NavigationNotAllowed,
    OriginNotAllowed,
    OwnPageNotAllowed,
)
from proxy.fields import Fields
from proxy.http1.request import RequestSection
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


def _spellings(name: bytes) -> list[bytes]:
    """Everything that `canonical` takes for this name."""
    word, mark, rest = name.partition(b"-")
    return [word + each + more for each in (b"-", b"_", b".") for more in _spellings(rest)] if mark else [word]


#: Fields that frameworks take for the method (threats 26, 47).
_OVERRIDES: Final = frozenset(
    spelling
    for name in (b"x-http-method-override", b"x-http-method", b"x-method-override")
    for spelling in _spellings(name)
)
_NO_PAGE: Final = (
    "No page sent this request, but a browser's extension, or a program that says of itself what those say "
    "(Sec-Fetch-Site: none): leave that field out, or show a client key as X-Proxy-Key."
)
#: More methods than a request is honestly meant for; each is looked at (threat 118).
_MOST_METHODS: Final = 4
#: What a browser asks for to show it as a page, by itself or within another (Fetch Metadata, section 2.1).
_PAGES: Final = frozenset({b"document", b"frame", b"iframe", b"object", b"embed", b"fencedframe"})


class Head:
    """The head of a request as it came: `target` raw, `section` its fields.

    `port`: where the listener is that took the connection. None: it is a Unix socket; no page of a browser can
    reach it, and Host says nothing.
    """

    # Written out, as all that is made for each request: what dataclasses generate costs more when compiled.
    __slots__ = ("method", "port", "section", "target")

    def __init__(self, method: str, target: bytes, section: RequestSection, *, port: int | None = 0) -> None:
        self.method = method
        self.target = target
        self.section = section
        self.port = port


@dataclass(slots=True, repr=False, eq=False)
class Visitor:
    """What the fields alone say of whoever asks. A client repeats them, so it is worked out once a section.

    `origin` is the allow-listed page origin that asks; `own_origin` what a page of ours would call itself; `key`
    the client key among the fields.
    """

    host: str
    own_origin: bytes
    origin: bytes | None
    key: ClientKey | None = None
    authorization_is_key: bool = False


class Admission:
    """What the guard learned: where the request wants to go, and which of its parts were meant for us.

    `path` is without the client key's segment, which `key_prefix` holds (`b""`: the key came elsewhere). What `key`
    may be used for is still to be asked.
    """

    __slots__ = ("key", "key_prefix", "path", "preflight", "query", "visitor")

    def __init__(
        self,
        visitor: Visitor,
        path: bytes,
        query: bytes | None,
        key_prefix: bytes = b"",
        *,
        key: ClientKey | None = None,
        preflight: bool = False,
    ) -> None:
        self.visitor = visitor
        self.path = path
        self.query = query
        self.key_prefix = key_prefix
        self.key = key
        self.preflight = preflight


class Guard:
    """Admits or refuses. `hosts` are names without port, `origins` complete browser origins.

    `browser`: may a browser show answers as pages?
    """

    __slots__ = ("_browser", "_hosts", "_keys", "_origins")

    def __init__(
        self,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        client_keys: Sequence[ClientKey] = (),
        browser: bool = False,
    ) -> None:
        self._hosts = OWN_NAMES | {host.lower() for host in hosts}
        self._origins = frozenset(origin.encode().lower() for origin in origins)
        self._keys = ClientKeys(client_keys) if client_keys else None
        self._browser = browser

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
        if self._keys is None:
            return Admission(visitor, path, query)
        # Every carrier is looked at, since what was meant for us stops here.
        segment = path[1:].partition(b"/")[0]
        key = self._keys.shown(segment[1:]) if segment.startswith(b"~") else None
        key_prefix = b"" if key is None else b"/" + segment
        if key is None:
            key = visitor.key
        if key is None:
            raise ClientKeyRequired
        return Admission(visitor, path[len(key_prefix) :] or b"/", query, key_prefix, key=key)

    def _visitor(self, head: Head) -> Visitor:
        host, own_origin = self._check_host(head)
        fields = head.section.values
        # No page that was left, and no extension, knows a key; a cookie and Basic are sent by the browser itself.
        in_header = None if self._keys is None else self._keys.in_header(fields)
        origin = self._check_origin(head, own_origin, is_known=in_header is not None)
        if not self._browser and _is_navigation(fields):
            raise NavigationNotAllowed
        visitor = Visitor(host, own_origin, origin)
        if self._keys is not None:
            in_authorization = self._keys.in_authorization(fields)
            visitor.authorization_is_key = in_authorization is not None
            visitor.key = in_header or self._keys.in_cookie(fields) or in_authorization
        return visitor

    def holds_key(self, value: bytes) -> bool:
        """Does a client key stand somewhere in this field value?"""
        return self._keys is not None and self._keys.stands_in(value)

    def allows_origin(self, origin: bytes) -> bool:
        """Is this one of the foreign origins that may call?"""
        return origin.strip().lower() in self._origins

    def _check_host(self, head: Head) -> tuple[str, bytes]:
        """The host's name in lower case, and our origin as a page under this name would have it."""
        values = head.section.values.get(b"host", [])
        match = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if head.port is None:
            return (match[1].decode().lower(), b"http://" + values[0].lower()) if match else ("", b"")
        if match is None or (name := match[1].decode().lower()) not in self._hosts:
            raise HostNotAllowed
        return name, b"http://" + values[0].lower()

    def _check_origin(self, head: Head, own_origin: bytes, *, is_known: bool) -> bytes | None:
        """The allow-listed foreign origin that asks, None where no foreign page does."""
        fields = head.section.values
        origins, sites = fields.get(b"origin", []), fields.get(b"sec-fetch-site", [])
        named = {site.strip().lower() for site in sites}
        # No other page caused it (Fetch Metadata, section 2.3). Extensions say `none` of what they fetch, too, but
        # only a person navigates.
        own_site = named <= ({b"same-origin", b"none"} if is_known or _navigates(fields) else {b"same-origin"})
        own_page = len(origins) == 1 and origins[0].strip().lower() == own_origin
        if own_site and (own_page or not origins):
            is_page = (own_page or b"same-origin" in named) and _is_browser(fields) and not is_known
            if is_page and not self._has_pages(head, own_origin):
                raise OwnPageNotAllowed
            return None
        if not origins:
            raise OriginNotAllowed(_NO_PAGE if named == {b"none"} else "")
        # A page of ours under `Referrer-Policy: no-referrer` sends its forms with null (Fetch, "append a request
        # Origin header"). So does a frame without an origin, but of that the browser says cross-site.
        if self._browser and origins == [b"null"] and sites == [b"same-origin"]:
            return None
        if len(origins) == 1 and self.allows_origin(origins[0]):
            return origins[0].strip()
        raise CorsDenied if _is_preflight(head) else OriginNotAllowed

    def _has_pages(self, head: Head, own_origin: bytes) -> bool:
        """May a page call itself `own_origin` and be honest?

        Where answers are not shown as pages, and a browser came to our own port, there is none of ours: an earlier
        server on that port left it, open in a tab or as a service worker (threat 9). Behind another port (a
        development server that forwards with its own Host, a container's published port) pages are that one's.
        """
        return self._browser or own_origin in self._origins or _port(own_origin) != head.port


def methods_of(head: Head) -> list[str]:
    """The method, and those that an upstream may take in its place, as rules do. Raises `MethodNotAllowed`."""
    methods, values = [head.method], head.section.values
    if not _OVERRIDES.isdisjoint(values):
        named = (value for name in _OVERRIDES for value in values.get(name, ()))
        # Some take what stands before a comma.
        words = (word.strip() for value in named for word in (value, *value.split(b",")))
        methods = list(dict.fromkeys([*methods, *(word.upper().decode("latin-1") for word in words if word)]))
        if len(methods) > _MOST_METHODS or not _NOT_TAKEN.isdisjoint(methods):
            raise MethodNotAllowed
    return methods


def _port(origin: bytes) -> int:
    digits = origin.rpartition(b":")[2]
    return int(digits) if digits.isdigit() else 80


def _is_browser(fields: Fields) -> bool:
    """Browsers say so, and no page can make them say otherwise here; programs send an Origin of ours, too.

    `Sec-Fetch-Site` is missing from WebSocket handshakes of some browsers, `User-Agent` from those of none.
    """
    agents = fields.get(b"user-agent", ())
    return b"sec-fetch-site" in fields or any(each.startswith(b"Mozilla/") for each in agents)


def _navigates(fields: Fields) -> bool:
    return any(mode.strip().lower() == b"navigate" for mode in fields.get(b"sec-fetch-mode", ()))


def _is_navigation(fields: Fields) -> bool:
    """Would a browser show the answer as a page, which runs in our origin (threat 9)?"""
    return _navigates(fields) or any(each.strip().lower() in _PAGES for each in fields.get(b"sec-fetch-dest", ()))


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
