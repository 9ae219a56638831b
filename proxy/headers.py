"""Which header fields cross the proxy, and which stop.

Law: fields are the raw bytes that came, in their order; hop-by-hop fields and the client's own credentials are
dropped, and framing is written anew (RFC 9110 section 7.6.1; threats 38, 39, 40, 47).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.fields import Field, canonical
from proxy.injection import Place

#: RFC 9110 section 7.6.1, and those that older software treats so.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: Never copied from the client: written anew, or answered by us.
FRAMING: Final = frozenset({b"content-length", b"expect", b"host"})
#: What only a proxy may say; a client that says it wants to be somebody else (threat 32).
FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-uri",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
#: Drafts of WebDAV had it, and Apache takes it still where there is no Destination: a place that nobody judged.
OLD_DESTINATION: Final = b"new-uri"
CLIENT_KEY_HEADER: Final = b"x-proxy-key"
CLIENT_KEY_COOKIE: Final = b"bearer_proxy_key"
#: Every cookie of ours begins so; none goes upstream and none comes from there.
OUR_COOKIES: Final = b"bearer_proxy_"

#: Every request loses these, whatever the route says.
ALWAYS_DROPPED: Final = HOP_BY_HOP | FRAMING | FORWARDING | {CLIENT_KEY_HEADER} | {OLD_DESTINATION}

#: `Trailer` announces fields that pass, so it passes as well.
_ANSWER_DROPPED: Final = HOP_BY_HOP - {b"trailer"} | {b"content-length"}


@dataclass(frozen=True, slots=True, eq=False)
class Stripping:
    """What a route takes out of a request besides the fields that always go.

    `names` are canonical header names; `query` and `cookies` are names of parameters and cookies.
    """

    names: frozenset[bytes] = ALWAYS_DROPPED
    query: frozenset[bytes] = frozenset()
    cookies: frozenset[bytes] = frozenset()

    def plus(self, *places: Place) -> "Stripping":
        """Take out these places too."""
        more = stripping(places)
        return Stripping(self.names | more.names, self.query | more.query, self.cookies | more.cookies)


def stripping(places: Iterable[Place], *, names: Iterable[str] = (), query: Iterable[str] = ()) -> Stripping:
    """Take out `places`, and the further header `names` and `query` parameters."""
    places = tuple(places)
    return Stripping(
        ALWAYS_DROPPED
        | {canonical(place.name.encode()) for place in places if place.kind == "header"}
        | {canonical(name.encode()) for name in names},
        frozenset(place.name.encode() for place in places if place.kind == "query")
        | {name.encode() for name in query},
        frozenset(place.name.encode() for place in places if place.kind == "cookie"),
    )


def request_lines(
    fields: Iterable[Field],
    strip: Stripping,
    named: frozenset[bytes],
    reference: Callable[[bytes], bytes | None],
    holds_key: Callable[[bytes], bool],
) -> tuple[bytes, list[bytes]]:
    """The field lines that go upstream, and the client's cookies that do, in their order.

    `named` are the Connection options. `reference` gives the value of a field that may name the proxy, as Origin
    and Referer do (None: drop it); what `holds_key` finds a client key in never crosses.
    """
    lines: list[bytes] = []
    cookies: list[bytes] = []
    dropped = strip.names
    for lower, value, line in fields:
        if lower in dropped or lower in named or canonical(lower) in dropped:
            continue
        if lower == b"cookie":
            cookies.append(value)
        elif lower not in _REFERENCES:
            if not holds_key(value):
                lines.append(line)
        elif (crossing := reference(value)) is not None:
            lines.append(line if crossing == value else b"%b: %b" % (line[: len(lower)], crossing))
    lines.append(b"")
    kept = (_kept_cookies(value, strip.cookies, holds_key) for value in cookies)
    return b"\r\n".join(lines), [each for each in kept if each]


#: RFC 9110 sections 10.1.3 and RFC 6454; RFC 4918 section 10.3: where WebDAV moves something to.
_REFERENCES: Final = frozenset({b"origin", b"referer", b"destination"})


def _kept_cookies(value: bytes, names: frozenset[bytes], holds_key: Callable[[bytes], bool]) -> bytes:
    pairs = value.split(b";")
    kept = [
        pair
        for pair in pairs
        if not (
            _is_dropped_cookie(pair.lstrip(b"= \t").partition(b"=")[0].rstrip(b" \t"), names) or holds_key(pair)
        )
    ]
    return value if len(kept) == len(pairs) else b";".join(kept).strip(b" \t")


def _is_dropped_cookie(name: bytes, names: frozenset[bytes]) -> bool:
    return name in names or name.lower().startswith(OUR_COOKIES)


def forwarded_lines(client: str, host: bytes, proto: str) -> bytes:
    """What we say of the client, in place of whatever it said itself (`FORWARDING` never crosses).

    `client` is its IP address (empty: it came by a Unix socket), `host` its Host field (empty: there was none),
    `proto` the scheme by which it called. An address stands bare, without the zone that means nothing elsewhere.
    """
    address = client.partition("%")[0].encode()
    lines = ((b"For", address), (b"Host", host), (b"Proto", proto.encode()))
    return b"".join(b"X-Forwarded-%b: %b\r\n" % line for line in lines if line[1])


Rewrite = Callable[[bytes, bytes], bytes | None]


def answer_lines(
    fields: Sequence[Field],
    named: frozenset[bytes],
    *,
    echoes: Sequence[bytes] = (),
    grants: bool = False,
    rewritten: frozenset[bytes] = frozenset(),
    rewrite: Rewrite | None = None,
) -> tuple[list[bytes], int]:
    """The field lines of an upstream's answer that go to the client, and how many were dropped as echoes.

    Dropped: hop-by-hop and Connection-named (`named`) fields, Content-Length (written anew), cookies that pretend
    to be ours, and every field that carries one of `echoes`, the live token in any form (threat 62). Without
    `grants` the upstream's CORS grants too, made for requests without our credential (threat 4). `rewrite` gives
    the value of a field by its lower-case name, among `rewritten` (None: drop it).
    """
    lines: list[bytes] = []
    echoed = 0
    # One search of all is cheaper than one of each, and nearly always the only one.
    if echoes and not _holds(b"\n".join([line for _lower, _value, line in fields]), echoes):
        echoes = ()
    for lower, value, line in fields:
        if lower in _ANSWER_DROPPED or lower in named or (not grants and lower.startswith(b"access-control-")):
            continue
        # A browser sends a cookie without a name as its value alone (RFC 6265bis section 5.8.3).
        if lower == b"set-cookie" and value.lower().lstrip(b"= \t").startswith(OUR_COOKIES):
            continue
        if echoes and _holds(line, echoes):
            echoed += 1
            continue
        if lower in rewritten and rewrite is not None:
            crossing = rewrite(lower, value)
            if crossing is None:
                continue
            if crossing != value:
                line = b"%b: %b" % (line[: len(lower)], crossing)  # noqa: PLW2901  the same line, as it goes on
        lines.append(line)
    return lines, echoed


def _holds(line: bytes, echoes: Sequence[bytes]) -> bool:
    for echo in echoes:  # noqa: SIM110  a generator costs more than all the searches
        if line.find(echo) >= 0:  # faster than `in`, which takes the echo for a number first
            return True
    return False


def own_reference(
    value: bytes, own_origin: bytes, key_prefix: bytes, *, prefix: bytes, upstream: bytes, base_path: bytes
) -> bytes:
    """What names the proxy, an Origin or a Referer say, as the upstream would have seen it; others as they are."""
    if not own_origin or value[: len(own_origin)].lower() != own_origin:
        return value
    path = value[len(own_origin) :]
    if path and not path.startswith(b"/"):
        return value
    path = path.removeprefix(key_prefix)
    if path.startswith((prefix + b"/", prefix + b"?")) or (prefix and path == prefix):
        path = base_path + path[len(prefix) :]
    return upstream + path
