"""The words that exchanges are made of: methods, statuses, field names, and paths that are hard to leave alone."""

from typing import Final

#: The registry of RFC 9110 section 16.1.1 without CONNECT and TRACE, which are refused, `PRI` and `*`, which are
#: no requests.
METHODS: Final = [
    *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"QUERY", b"ACL", b"BASELINE-CONTROL"),
    *(b"BIND", b"CHECKIN", b"CHECKOUT", b"COPY", b"LABEL", b"LINK", b"LOCK", b"MERGE", b"MKACTIVITY"),
    *(b"MKCALENDAR", b"MKCOL", b"MKREDIRECTREF", b"MKWORKSPACE", b"MOVE", b"ORDERPATCH", b"PROPFIND"),
    *(b"PROPPATCH", b"REBIND", b"REPORT", b"SEARCH", b"UNBIND", b"UNCHECKOUT", b"UNLINK", b"UNLOCK", b"UPDATE"),
    *(b"UPDATEREDIRECTREF", b"VERSION-CONTROL"),
]
#: Any final one but 401 and 403, after which a token is refreshed; 299, 499 and 599 are in no registry.
STATUSES: Final = [
    *(200, 201, 202, 204, 205, 206, 207, 299, 300, 301, 302, 303, 304, 307, 308, 400, 402, 404, 405, 407, 408),
    *(409, 411, 413, 416, 417, 418, 421, 425, 426, 429, 451, 499, 500, 501, 502, 503, 504, 511, 599),
]

NAMES_OF_REQUESTS: Final = [
    *(b"Accept", b"Accept-Encoding", b"Cache-Control", b"Content-Encoding", b"Content-Type", b"Cookie", b"Date"),
    *(b"If-None-Match", b"Max-Forwards", b"Pragma", b"Range", b"User-Agent", b"Via", b"X-Custom", b"X_Custom"),
    *(b"X.Custom", b"X-Request-Id", b"Proxy-Status", b"Age"),
]
NAMES_OF_ANSWERS: Final = [
    *(b"Age", b"Allow", b"Cache-Control", b"Content-Disposition", b"Content-Encoding", b"Content-Range"),
    *(b"Content-Security-Policy", b"Content-Type", b"Date", b"ETag", b"Link", b"Location", b"Proxy-Status"),
    *(b"Retry-After", b"Server", b"Set-Cookie", b"Set-Cookie", b"Vary", b"Via", b"WWW-Authenticate", b"X_Custom"),
]

#: Where a field of this name has a meaning to the proxy; in the spelling of `is_free`.
_TAKEN: Final = frozenset(
    {
        *(b"authorization", b"connection", b"content-length", b"cookie", b"expect", b"forwarded", b"host"),
        *(b"http2-settings", b"keep-alive", b"origin", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"referer", b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"x-original-url", b"x-proxy-key", b"x-real-ip", b"x-rewrite-url", b"alt-svc", b"clear-site-data"),
        *(b"public-key-pins", b"strict-transport-security"),
    }
)
_TAKEN_PREFIXES: Final = (b"access-control-", b"sec-", b"x-forwarded-")

#: Paths whose dot segments stay below `/` in every reading: they pass as they are (INTERFACE, "Routes").
SETTLED: Final = [
    *(
        "x/../y",
        "a/%2e%2e/b",
        "a/%2E%2e",
        "a/b/%252e%252e/c",
        "x/./y",
        "./x",
        "a..b",
        "...",
        "a/b/../../c",
        "x/y/..",
    ),
    *("%25", "%2525", "a//b/../c", "a/b;p/..;q/c"),
]


def is_free(name: bytes) -> bool:
    """Has a field of this name no meaning to the proxy, `_` and `.` taken for `-` (threat 47)?"""
    plain = name.lower().replace(b"_", b"-").replace(b".", b"-")
    return plain not in _TAKEN and not plain.startswith(_TAKEN_PREFIXES)
