"""Where a place of the upstream appears at the proxy: the way back of `Route.target`.

Law: only what names the upstream itself is rewritten, compared as scheme and authority and never as a prefix
(threat 61); bytes are cut and joined, never decoded.
"""

import re
from typing import Final

from proxy.routes import Route, RouteTable

_ABSOLUTE = re.compile(rb"(?:(https?):)?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_BEHIND_PATH = re.compile(rb"[?#]")
_DEFAULT_PORT: Final = {b"http": b":80", b"https": b":443"}
#: A path that goes on so is another host where it stands alone: browsers take a backslash for a slash, and leave
#: out tabs (WHATWG URL, section 4.4).
NEXT_AUTHORITY: Final = (b"/", b"\\", b"\t")
#: Dot segments, and tabs: what clients take out before they ask, so that the request is for another path.
_RESOLVED = re.compile(rb"\t|(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|\Z)", re.IGNORECASE)


class ReverseMap:
    """The references and cookie paths of one route's upstream, as a client of ours is to see them.

    `table` holds all routes, `route` among them: a reference is rewritten only where a request for it would come
    to the place that it named. `host` is the route's `host_header`: an upstream calls itself what it was called.
    """

    __slots__ = ("_inner", "_named_by_client", "_origin", "_origins", "_places", "_route", "_scheme", "_table")

    def __init__(self, route: Route, table: RouteTable, *, host: str = "upstream") -> None:
        upstream = route.upstream
        siblings = (each for each in table if each.upstream == upstream and each.host == route.host)
        self._route = route
        self._table = table
        self._inner = inner(route)
        self._places = (route, *(each for each in siblings if each is not route))
        self._origin = str(upstream).encode()
        self._scheme = upstream.scheme.encode()
        self._named_by_client = host == "client"
        authorities = {upstream.authority} | ({host} - {"upstream", "client"})
        self._origins = frozenset(_origin(self._scheme, each.encode()) for each in authorities)

    def reference(self, reference: bytes, *, own_origin: bytes, key_prefix: bytes) -> bytes:
        """A URI reference of the upstream (RFC 3986 section 4.1) as one of ours.

        1. One that names no host and no path from the root (`x`, `?x`, `mailto:x`) means the same here and there.
        2. One that names another origin stays as it is.
        3. A path that no route of ours leads to is the upstream's alone, and is made to say so.
        4. What named a host still does, as far as we know our name; so does a path that would turn into a host.

        `own_origin` is ours as the client calls it, such as `http://localhost:8080` (`b""`: unknown), `key_prefix`
        the segment of its path that held the client key, such as `/~KEY` (`b""`: none).
        """
        absolute = _ABSOLUTE.fullmatch(reference)
        tail = reference if absolute is None else absolute[3]
        if absolute is None and (not tail.startswith(b"/") or tail.startswith(NEXT_AUTHORITY, 1)):
            return reference
        if not tail.startswith(b"/"):
            tail = b"/" + tail
        path = _BEHIND_PATH.split(tail, maxsplit=1)[0]
        if absolute is not None and not self._is_the_upstreams(absolute, path, own_origin, key_prefix):
            return reference
        own_path = self._own_path(path)
        if own_path is None:
            return reference if absolute is not None and absolute[1] else self._origin + tail
        rewritten = key_prefix + own_path + tail[len(path) :]
        needs_origin = rewritten.startswith(NEXT_AUTHORITY, 1)
        if own_origin and (needs_origin or absolute is not None):
            return own_origin + rewritten
        return reference if needs_origin else rewritten

    def _is_the_upstreams(
        self, absolute: re.Match[bytes], path: bytes, own_origin: bytes, key_prefix: bytes
    ) -> bool:
        """Does this reference name the upstream, by its own name or by the one that it was given?"""
        scheme = (absolute[1] or self._scheme).lower()
        origin = _origin(scheme, absolute[2])
        if origin in self._origins:
            return True
        if not (self._named_by_client and own_origin):
            return False
        if origin != _origin(scheme, own_origin.removeprefix(b"http://")):
            return False
        # It took our name for its own, unless it heard the whole of it from the client: an address to come back to
        # after a login, say, which stands below the route already.
        told = any(each and beyond(each, path) is not None for each in (key_prefix, self._route.prefix))
        return scheme != b"http" or not told

    def _own_path(self, path: bytes) -> bytes | None:
        """The path under which a client reaches this path of the upstream, None where no route leads to it."""
        if _RESOLVED.search(path):
            return None
        for route in self._places:
            rest = beyond(inner(route), path)
            if rest is None:
                continue
            own_path = route.prefix + rest or b"/"
            if self._table.find(route.host or "", own_path) is route:
                return own_path
        return None

    def cookie_path(self, path: bytes, *, key_prefix: bytes) -> bytes | None:
        """The Path of an upstream's cookie within this route; None: the upstream would never get it back here."""
        # What holds for the place where the route begins holds for all of it (RFC 6265 section 5.1.4).
        rest = b"" if _path_matches(self._inner or b"/", path) else beyond(self._inner, path)
        return None if rest is None else key_prefix + self._route.prefix + rest or b"/"


def inner(route: Route) -> bytes:
    """Where the route begins at the upstream."""
    return route.base_path if route.strip_prefix else route.base_path + route.prefix


def beyond(base: bytes, path: bytes) -> bytes | None:
    """What `path` has behind `base`, None where it does not lie there on a segment boundary."""
    rest = path[len(base) :]
    return rest if path.startswith(base) and rest[:1] in (b"", b"/") else None


def _path_matches(path: bytes, cookie_path: bytes) -> bool:
    """RFC 6265 section 5.1.4."""
    return path.startswith(cookie_path) and (
        cookie_path.endswith(b"/") or path[len(cookie_path) :][:1] in (b"", b"/")
    )


def _origin(scheme: bytes, authority: bytes) -> bytes:
    """An origin to compare: lower case, without the scheme's own port or an empty one (RFC 3986 section 6.2.3)."""
    authority = authority.lower()
    port = next((each for each in (_DEFAULT_PORT[scheme], b":") if authority.endswith(each)), b"")
    return scheme + b"://" + authority.removesuffix(port)
