"""Rewrites the fields of an answer that would lead a client away from the proxy, or open it to others.

Law: every byte that is not about the upstream's own origin stays as it came; the time is linear in the value
(threat 118).
"""

import re
from typing import Final

from proxy.reverse import ReverseMap
from proxy.routes import Route, RouteTable

#: Fields that hold references: RFC 9110 sections 8.7 and 10.2.2, RFC 8288, and HTML's "shared declarative refresh".
REFERENCES: Final = frozenset({b"location", b"content-location", b"link", b"refresh"})
#: The grants of Fetch (section 3.3.3) and of Private Network Access. Those of the upstream were made for requests
#: without our credential, which behind us every page would have (threat 4).
CORS: Final = frozenset(
    {
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"access-control-allow-private-network",
        b"access-control-expose-headers",
        b"access-control-max-age",
    }
)
#: What a browser would remember for, or do to, every service called `localhost` (threat 73): RFC 6797, 7469, 9163
#: and 7838, and Clear-Site-Data, which takes along the cookies of all ports.
STICKY: Final = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",
        b"expect-ct",
        b"public-key-pins",
        b"public-key-pins-report-only",
        b"strict-transport-security",
    }
)

#: A link's target, at the beginning or behind a comma, or a quoted string, which may hold anything. What is begun
#: and not ended reaches to the next `<` or to the end of the value, so that nothing is looked at twice.
_LINK = re.compile(rb'((?:\A|,)[ \t]*<)([^<>]*)(?=>)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_REFRESH = re.compile(rb"[ \t]*[0-9.]+(?:[ \t]*[;,]|[ \t])[ \t]*(?:url[ \t]*=[ \t]*)?([\"']?)", re.IGNORECASE)
#: Attributes without which, or with which, a browser takes no cookie over plain HTTP (RFC 6265bis section 5.7).
_NEED_TLS: Final = frozenset({b"secure", b"partitioned"})
#: Names of cookies that are refused without Secure (RFC 6265bis section 4.1.3).
_SECURE_NAMES: Final = (b"__secure-", b"__host-", b"__http-")


class Rewriter:
    """What becomes of the fields of a route's answers: the parameters of `ReverseMap`, and the route's switches."""

    __slots__ = ("_map", "cors", "names")

    def __init__(
        self,
        route: Route,
        table: RouteTable,
        *,
        host: str = "upstream",
        location: bool = True,
        cookies: bool = True,
        cors: bool = True,
        hsts: bool = True,
    ) -> None:
        self._map = ReverseMap(route, table, host=host)
        #: The lower-case names of the fields that `value` is to be asked about.
        self.names: Final = frozenset[bytes]().union(
            REFERENCES if location else (),
            {b"set-cookie"} if cookies else (),
            CORS if cors else (),
            STICKY if hsts else (),
        )
        #: Do grants of ours stand in for the upstream's?
        self.cors: Final = cors

    def value(self, name: bytes, value: bytes, *, own_origin: bytes, key_prefix: bytes) -> bytes | None:
        """The value of a field of `names` as the client is to see it; None: the field stops here.

        `own_origin` and `key_prefix` are the request's, as in `Admission`.
        """
        if name == b"set-cookie":
            return self._cookie(value, key_prefix)

        def reference(value: bytes) -> bytes:
            return self._map.reference(value, own_origin=own_origin, key_prefix=key_prefix)

        if name == b"link":
            return _LINK.sub(lambda part: part[0] if part[1] is None else part[1] + reference(part[2]), value)
        if name == b"refresh":
            start, end = _refresh(value)
            return value[:start] + reference(value[start:end]) + value[end:]
        return reference(value) if name in REFERENCES else None

    def _cookie(self, value: bytes, key_prefix: bytes) -> bytes | None:
        """A cookie that plain HTTP under our name can hold (RFC 6265bis sections 5.6 and 5.7).

        Dropped where the upstream would never get it back on this route: another one might.
        """
        pair, *attributes = value.split(b";")
        # Refused without Secure; and with it, most browsers take it from http://localhost.
        stays_secure = pair.lstrip(b" \t").lower().startswith(_SECURE_NAMES)
        kept = [pair]
        for attribute in attributes:
            replaced = attribute
            name, _, given = attribute.partition(b"=")
            name = name.strip(b" \t").lower()
            if name == b"domain" or (name in _NEED_TLS and not stays_secure):
                continue
            if name == b"samesite" and given.strip(b" \t").lower() == b"none" and not stays_secure:
                replaced = b" SameSite=Lax"
            elif name == b"path" and (path := given.strip(b" \t")).startswith(b"/"):
                moved = self._map.cookie_path(path, key_prefix=key_prefix)
                if moved is None:
                    return None
                replaced = attribute if moved == path else b" Path=" + moved
            kept.append(replaced)
        return b";".join(kept)


def _refresh(value: bytes) -> tuple[int, int]:
    """Where the reference begins and ends in a Refresh field (HTML, "shared declarative refresh steps")."""
    head = _REFRESH.match(value)
    if head is None:
        return len(value), len(value)
    end = value.find(head[1], head.end()) if head[1] else -1
    return head.end(), len(value) if end < 0 else end
