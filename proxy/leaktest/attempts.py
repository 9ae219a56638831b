"""What clients do to the copy: a table of requests, proper and improper, with secrets in every part.

A row gives bytes for a place; a new path of the proxy is one more row.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.leaktest.mint import Mint

#: In labels of what only the client sent: an upstream may repeat it to the client, and no log may have it.
CLIENT: Final = "a client's"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes: host and path of a route, a client key that is good there (empty: none is needed)."""

    host: str
    path: str
    key: str
    mint: Mint

    def secret(self, what: str) -> str:
        """A new one of the client's own."""
        return self.mint.secret(f"{CLIENT} {what}")

    def request(
        self, *lines: str, method: str = "GET", path: str = "", query: str = "", body: bytes = b""
    ) -> bytes:
        """A proper one, with the client key, of these further field lines."""
        own = [f"Host: {self.host}", "Connection: close"]
        if self.key:
            own.append(f"X-Proxy-Key: {self.key}")
        if body and not any(line.startswith("Transfer-Encoding") for line in lines):
            own.append(f"Content-Length: {len(body)}")
        target = f"{path or self.path}{query}"
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *own, *lines, "", ""])
        return head.encode("latin-1") + body


@dataclass(frozen=True, slots=True)
class Attempt:
    """`data` gives the bytes; `threats` are the cases it stands for."""

    name: str
    threats: tuple[int, ...]
    data: Callable[[Place], bytes]


def _carriers(at: Place) -> bytes:
    basic = base64.b64encode(f"user:{at.key or at.secret('password')}".encode()).decode()
    return at.request(
        f"Authorization: Basic {basic}", f"Cookie: bearer_proxy_key={at.key}; a={at.secret('cookie')}"
    )


def _credentials(at: Place) -> bytes:
    lines = [
        f"Authorization: Bearer {at.secret('token')}",
        f"Authorization: Basic {at.secret('second token')}",
        f"Proxy-Authorization: Basic {at.secret('proxy password')}",
        f"Cookie: session={at.secret('session')}",
        f"X-Api-Key: {at.secret('key')}",
        f"User-Agent: {at.secret('name')}",
        f"Referer: https://elsewhere.example/?token={at.secret('referer')}",
    ]
    return at.request(*lines, query=f"?access_token={at.secret('query')}&a={at.secret('second query')}")


def _path_key(at: Place, suffix: str = "") -> bytes:
    return at.request(path=f"/~{at.key}{suffix}{at.path}") if at.key else at.request()


def _chunked(at: Place) -> bytes:
    body = at.secret("body").encode()
    chunks = b"%x;%b\r\n%b\r\n0\r\n" % (len(body), at.secret("extension").encode(), body)
    trailer = f"X-Trailer: {at.secret('trailer')}\r\n\r\n".encode()
    return at.request("Transfer-Encoding: chunked", method="PUT", body=chunks + trailer)


def _bad_lines(at: Place) -> bytes:
    return at.request(f"X-Bad {at.secret('name of a field')}", f"{at.key}\x01: {at.key}")


_MALFORMED: Final[tuple[tuple[str, Callable[[Place], bytes]], ...]] = (
    ("a request line of secrets", lambda at: f"{at.secret('word')} {at.key} {at.secret('word')}\r\n\r\n".encode()),
    ("a method that is a secret", lambda at: at.request(method=f"{at.secret('method')}/")),
    (
        "a version that is a secret",
        lambda at: f"GET /~{at.key}{at.path} HTTP/{at.secret('version')}\r\n\r\n".encode(),
    ),
    ("an absolute target", lambda at: at.request(path=f"http://u:{at.secret('password')}@127.0.0.1/~{at.key}/")),
    ("a target with a fragment", lambda at: at.request(query=f"#{at.secret('fragment')}")),
    (
        "a target with bad escapes",
        lambda at: at.request(path=f"/~{at.key}{at.path}%zz", query=f"?a={at.secret('query')}"),
    ),
    ("lines that are no fields", _bad_lines),
    (
        "two lengths",
        lambda at: at.request(f"Content-Length: {at.secret('length')}", body=at.secret("body").encode()),
    ),
    (
        "an unknown coding",
        lambda at: at.request(f"Transfer-Encoding: {at.secret('coding')}, chunked", body=b"0\r\n\r\n"),
    ),
    ("an unknown expectation", lambda at: at.request(f"Expect: {at.secret('expectation')}")),
    (
        "a head that is too large",
        lambda at: at.request(*[f"X-{n}: {at.key}{at.secret('field') * 40}" for n in range(40)]),
    ),
    ("a target that is too long", lambda at: at.request(query=f"?a={at.secret('long query') * 1000}")),
    ("a body that ends early", lambda at: at.request(method="POST", body=at.secret("body").encode())[:-3]),
    ("a head that ends early", lambda at: at.request(f"X-Field: {at.secret('field')}")[:-2]),
    ("a handshake of TLS", lambda at: b"\x16\x03\x01\x02\x00" + at.secret("bytes").encode() + b"\r\n\r\n"),
)

ATTEMPTS: Final = (
    Attempt("a proper request", (52, 53), Place.request),
    Attempt("a body", (104,), lambda at: at.request(method="POST", body=at.secret("body").encode())),
    Attempt("the client key as password and cookie", (74, 78), _carriers),
    Attempt("the client key as bearer", (74, 78), lambda at: at.request(f"Authorization: Bearer {at.key}")),
    Attempt("the client key in the path", (74, 78), _path_key),
    Attempt("a client key that is almost one", (74, 78), lambda at: _path_key(at, "x")),
    Attempt("no client key", (20,), lambda at: Place(at.host, at.path, "", at.mint).request()),
    Attempt("credentials of the client's own", (49, 78), _credentials),
    Attempt("a body in chunks, with an extension and a trailer", (36,), _chunked),
    Attempt(
        "a foreign Host", (1,), lambda at: Place(f"{at.secret('host')}.example", at.path, at.key, at.mint).request()
    ),
    Attempt("a foreign Origin", (2,), lambda at: at.request(f"Origin: https://{at.secret('origin')}.example")),
    Attempt(
        "a preflight",
        (5,),
        lambda at: at.request(
            f"Origin: https://{at.secret('origin')}.example", "Access-Control-Request-Method: PUT", method="OPTIONS"
        ),
    ),
    Attempt("a navigation", (9,), lambda at: at.request("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")),
    Attempt("CONNECT", (25,), lambda at: at.request(method="CONNECT", path=f"{at.secret('host')}.example:443")),
    Attempt("TRACE", (26,), lambda at: at.request(f"X-Field: {at.secret('field')}", method="TRACE")),
    Attempt("a path that climbs out", (23, 28), lambda at: at.request(path=f"/~{at.key}{at.path}/../../../etc")),
    Attempt(
        "a handshake of a WebSocket",
        (6, 41),
        lambda at: (
            at.request(
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                f"X-Field: {at.secret('field')}",
            ).replace(b"Connection: close\r\n", b"")
            + at.secret("frame").encode()
        ),
    ),
)
#: What never gets to a route: once will do.
IMPROPER: Final = tuple(Attempt(name, (35, 37, 80, 85), data) for name, data in _MALFORMED)
#: What is asked while something goes wrong at the upstream.
PLAIN: Final = (ATTEMPTS[0], ATTEMPTS[1])
WEBSOCKET: Final = next(each for each in ATTEMPTS if each.name == "a handshake of a WebSocket")

#: What the admin listener is asked; with its key, and then with a wrong one.
ADMIN: Final = (
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/api/credentials"),
    ("GET", "/api/exchanges"),
    ("GET", "/api/exchanges.har"),
    ("GET", "/api/timelines"),
    ("POST", "/api/credentials/nobody/refresh"),
    ("PUT", "/api/credentials"),
)
#: Other commands with the copy's configuration; `token` and `healthcheck` ask it. Each takes half a second.
COMMANDS: Final = (("check",), ("doctor", "--json"), ("token",), ("healthcheck",))
