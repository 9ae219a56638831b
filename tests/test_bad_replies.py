"""What a hostile or broken token endpoint may answer, and what becomes of it: a table, played on real sockets.

Every row is played to a running proxy with credentials of type `oauth2` and `login`, when there is no token yet and
when there is one. The replies themselves carry canaries: none may come out (threats 50, 54-56, 101, 108).
"""

import asyncio
import base64
import gzip
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp import web

from proxy.credentials.token_endpoint import TokenEndpoint
from proxy.grants.expiry import LONGEST_LIFETIME
from proxy.grants.reply import BODY_LIMIT, TOKEN_LIMIT
from proxy.stores import latch
from tests.support.api import Api, Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries

#: A table over lines that other tests measure.
pytestmark = pytest.mark.unmeasured
KINDS: Final = ("oauth2", "login")
#: Of the good token; a refresh ahead is due a minute before its end.
LIFETIME: Final = 3600
#: What the proxy waits after a first failure: `random` of the harness is 0.5.
PAUSE: Final = 1.5


@dataclass(frozen=True)
class Stage:
    """What a row may refer to: a new secret, the time, and a second listener, which must see nothing."""

    canary: str
    wall: float
    elsewhere: str


class Act(Enum):
    """What an endpoint does besides writing."""

    RESET = "break the connection off with RST"
    HANG = "say nothing until the client leaves"
    RESET_UNREAD = "the same, before the request was read"


Part = bytes | Act | Callable[[Stage], bytes]


def filled(text: bytes, stage: Stage) -> bytes:
    """`text` with its CANARY, ELSEWHERE and JWT+SECONDS (a JWT that ends then) replaced."""

    def jwt(match: re.Match[bytes]) -> bytes:
        claims = json.dumps({"exp": int(stage.wall) + int(match[1])}).encode()
        parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', claims)]
        return b".".join([*parts, stage.canary.encode()])

    text = re.sub(rb"JWT([+-]\d+)", jwt, text)
    return text.replace(b"CANARY", stage.canary.encode()).replace(b"ELSEWHERE", stage.elsewhere.encode())


def http(
    body: object, status: str = "200 OK", *headers: str, frame: str | None = None, pad: int = 0
) -> Callable[[Stage], bytes]:
    """A whole answer: bytes as they are, everything else as JSON; `frame` instead of the proper Content-Length.

    `pad`: with spaces behind it, up to so many bytes.
    """

    def render(stage: Stage) -> bytes:
        raw = filled(body if isinstance(body, bytes) else json.dumps(body).encode(), stage).ljust(pad)
        framing = f"Content-Length: {len(raw)}" if frame is None else frame
        head = "\r\n".join([f"HTTP/1.1 {status}", *headers, framing, "", ""])
        return filled(head.encode("latin-1"), stage) + raw

    return render


def token(value: object = "CANARY", **more: object) -> dict[str, object]:
    """A good reply, but for what is given."""
    return {"access_token": value, "token_type": "Bearer", "expires_in": LIFETIME, **more}


def lifetime(text: str) -> Callable[[Stage], bytes]:
    """A reply with this, character by character, as `expires_in`."""
    return http(b'{"access_token":"CANARY","token_type":"Bearer","expires_in":%b}' % text.encode())


@dataclass(frozen=True)
class Outcome:
    """What a client gets, and what the log says beside it."""

    status: int
    code: str
    event: str


GRANTED: Final = Outcome(200, "", "token_refreshed")
UNAVAILABLE: Final = Outcome(503, "credential_unavailable", "token_refresh_failed")
REJECTED: Final = Outcome(502, "credential_rejected", "credential_rejected")


@dataclass(frozen=True)
class Row:
    """One answer, what becomes of it, and a part of the sentence that a person gets.

    `login`: the outcome with type `login`, where it differs. `lifetime`: of the token that was granted. `retry`:
    seconds until it is asked again. `said`: the server's words in the log. `doubt`: its lifetime is doubted.
    """

    play: Part | tuple[Part, ...]
    outcome: Outcome
    detail: str = ""
    login: Outcome | None = None
    lifetime: float | None = LIFETIME
    retry: float = PAUSE
    said: dict[str, str] = field(default_factory=dict)
    doubt: bool = False

    def outcome_of(self, kind: str) -> Outcome:
        """With a credential of this type."""
        return self.login if kind == "login" and self.login is not None else self.outcome


def said(error: str, description: str | None = None) -> dict[str, str]:
    """The fields of the log event."""
    both = {"oauth_error": error, "oauth_error_description": description}
    return {name: text for name, text in both.items() if text is not None}


def no(status: str, error: str, **more: object) -> Callable[[Stage], bytes]:
    """An error as RFC 6749 section 5.2 has it, with a secret in its description."""
    return http({"error": error, "error_description": "token CANARY is bad", **more}, status)


MASKED: Final = "token *** is bad"
LARGE: Final = "larger than 64 KiB"
NOT_JSON: Final = "is not JSON"
NO_TOKEN: Final = "has no text where the token is expected"
BAD_TOKEN: Final = "is empty, too long, or holds characters"
BAD_LIFETIME: Final = "is not a positive number"
BAD_REFRESH: Final = "refresh token in the reply is no text"
NOT_BEARER: Final = "token_type is not bearer"
BROKEN: Final = "is not proper HTTP/1.1"
LOST: Final = "was lost before its whole answer came"
REDIRECT: Final = "redirects are not followed"
CHUNKED: Final = "Transfer-Encoding: chunked"

ROWS: Final[dict[str, Row]] = {
    # -- how large
    "64 KiB": Row(http(token(), pad=BODY_LIMIT), GRANTED),
    "64 KiB and a byte": Row(http(token(), pad=BODY_LIMIT + 1), UNAVAILABLE, LARGE),
    "10 MB": Row(http(token(), pad=10_000_000), UNAVAILABLE, LARGE),
    "10 MB refused": Row(http(token(), "401 No", pad=10_000_000), REJECTED),
    "10 MB in chunks": Row(
        (http(b"", frame=CHUNKED), *[b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 160), UNAVAILABLE, LARGE
    ),
    "a header of 1 MB": Row(http(token(), "200 OK", "X-A: CANARY" + "a" * 1_000_000), UNAVAILABLE, BROKEN),
    "a status line of 1 MB": Row(http(token(), "200 CANARY" + "a" * 1_000_000), UNAVAILABLE, BROKEN),
    "10,000 headers": Row(http(token(), "200 OK", *["X-A: CANARY"] * 10_000), UNAVAILABLE, BROKEN),
    # -- what it is
    "nothing": Row(http(b""), UNAVAILABLE, NOT_JSON),
    "204": Row(b"HTTP/1.1 204 No Content\r\n\r\n", UNAVAILABLE, "status 204"),
    "HTML": Row(http(b"<html>CANARY</html>", "200 OK", "Content-Type: text/html"), UNAVAILABLE, NOT_JSON),
    "HTML refused": Row(http(b"<html>CANARY</html>", "401 No", "Content-Type: text/html"), REJECTED),
    # No token endpoint, but something in between: it says nothing about the secret.
    "HTML of a firewall": Row(http(b"<html>CANARY</html>", "403 No", "Content-Type: text/html"), UNAVAILABLE),
    "a form": Row(http(b"access_token=CANARY&token_type=bearer"), UNAVAILABLE, NOT_JSON),
    "half of JSON": Row(http(b'{"access_token":"CANARY"'), UNAVAILABLE, NOT_JSON),
    "two documents": Row(http(b'{"access_token":"CANARY"}{}'), UNAVAILABLE, NOT_JSON),
    "no text": Row(http(b'{"access_token":"\xff\xfeCANARY"}'), UNAVAILABLE, NOT_JSON),
    "UTF-16": Row(http('{"access_token":"abcdefgh"}'.encode("utf-16")), UNAVAILABLE, NOT_JSON),
    "deep JSON": Row(http(b'{"access_token":"CANARY","a":' + b"[" * 30_000), UNAVAILABLE, NOT_JSON),
    "a number of 5,000 digits": Row(
        http(b'{"access_token":"CANARY","a":' + b"9" * 5000 + b"}"), UNAVAILABLE, NOT_JSON
    ),
    "a list": Row(http(["CANARY"]), UNAVAILABLE, NO_TOKEN),
    "a text": Row(http("CANARY"), UNAVAILABLE, NO_TOKEN),
    "a number": Row(http(7), UNAVAILABLE, NO_TOKEN),
    "null": Row(http(None), UNAVAILABLE, NO_TOKEN),
    "a byte order mark": Row(http(b"\xef\xbb\xbf" + json.dumps(token()).encode()), GRANTED),
    "gzip": Row(http(gzip.compress(b"{}"), "200 OK", "Content-Encoding: gzip"), UNAVAILABLE, "is compressed"),
    "a gzip bomb": Row(
        http(gzip.compress(b"0" * 50_000_000, 9)[:BODY_LIMIT], "200 OK", "Content-Encoding: gzip"),
        UNAVAILABLE,
        "is compressed",
    ),
    "a gzip bomb refused": Row(
        http(gzip.compress(b"0" * 10_000_000), "401 No", "Content-Encoding: gzip"), REJECTED
    ),
    "identity named": Row(http(token(), "200 OK", "Content-Encoding: identity"), GRANTED),
    # -- how it is framed
    "chunks": Row(
        (http(b"", frame=CHUNKED), lambda stage: _chunk(filled(json.dumps(token()).encode(), stage)), b"0\r\n\r\n"),
        GRANTED,
    ),
    "chunks of garbage": Row(http(b"CANARY\r\nzz\r\n", frame=CHUNKED), UNAVAILABLE, BROKEN),
    "chunks without end": Row((http(b"", frame=CHUNKED), b"2\r\n{}\r\n"), UNAVAILABLE, LOST),
    "truncated": Row(http(b'{"access_token":"CANARY', frame="Content-Length: 500"), UNAVAILABLE, LOST),
    "a length that is too short": Row(http(token(), frame="Content-Length: 5"), UNAVAILABLE, BROKEN),
    "a length below zero": Row(http(token(), frame="Content-Length: -1"), UNAVAILABLE, BROKEN),
    "a length that is a word": Row(http(token(), frame="Content-Length: CANARY"), UNAVAILABLE, BROKEN),
    "two lengths": Row(http(token(), frame="Content-Length: 5\r\nContent-Length: 6"), UNAVAILABLE, BROKEN),
    "a length and chunks": Row(http(token(), frame=f"Content-Length: 5\r\n{CHUNKED}"), UNAVAILABLE, BROKEN),
    "no length": Row(http(token(), frame="X-A: 1"), GRANTED),
    "no HTTP": Row(b"SSH-2.0-CANARY\r\n", UNAVAILABLE, BROKEN),
    "HTTP/0.9": Row(b'{"access_token":"CANARY"}', UNAVAILABLE, BROKEN),
    "no reason": Row(http(token(), "200"), GRANTED),
    "a status of two digits": Row(http(token(), "20 OK"), UNAVAILABLE, BROKEN),
    "100 before it": Row((b"HTTP/1.1 100 Continue\r\n\r\n", http(token())), GRANTED),
    "103 before it": Row((b"HTTP/1.1 103 Early Hints\r\nLink: </CANARY>\r\n\r\n", http(token())), GRANTED),
    "another answer behind it": Row(lambda stage: http(token())(stage) + http(b"CANARY", "500 No")(stage), GRANTED),
    # -- redirects
    **{
        f"redirect {status}": Row(http(b"CANARY", f"{status} Go", "Location: ELSEWHERE"), UNAVAILABLE, REDIRECT)
        for status in (300, 301, 302, 303, 307, 308)
    },
    "a refresh header": Row(http(b"", "200 OK", "Refresh: 0; url=ELSEWHERE"), UNAVAILABLE, NOT_JSON),
    # -- token_type
    "token_type mac": Row(http(token(token_type="mac")), UNAVAILABLE, NOT_BEARER),
    "token_type N_A": Row(http(token(token_type="N_A")), UNAVAILABLE, NOT_BEARER),
    "token_type DPoP": Row(http(token(token_type="DPoP")), UNAVAILABLE, NOT_BEARER),
    "token_type empty": Row(http(token(token_type="")), UNAVAILABLE, NOT_BEARER),
    "token_type in capitals": Row(http(token(token_type="BEARER")), GRANTED),
    "token_type null": Row(http(token(token_type=None)), GRANTED),
    "token_type a number": Row(http(token(token_type=7)), UNAVAILABLE, NOT_BEARER),
    "token_type a list": Row(http(token(token_type=["Bearer"])), UNAVAILABLE, NOT_BEARER),
    # -- access_token
    "no access_token": Row(http({"token": "CANARY", "expires_in": 7}), UNAVAILABLE, NO_TOKEN),
    "access_token null": Row(http(token(None)), UNAVAILABLE, NO_TOKEN),
    "access_token a number": Row(http(token(12345678)), UNAVAILABLE, NO_TOKEN),
    "access_token true": Row(http(token(True)), UNAVAILABLE, NO_TOKEN),  # noqa: FBT003  a JSON value
    "access_token a list": Row(http(token(["CANARY"])), UNAVAILABLE, NO_TOKEN),
    "access_token an object": Row(http(token({"value": "CANARY"})), UNAVAILABLE, NO_TOKEN),
    "access_token empty": Row(http(token("")), UNAVAILABLE, BAD_TOKEN),
    "access_token with CRLF": Row(http(token("CANARY\r\nX-Evil: 1")), UNAVAILABLE, BAD_TOKEN),
    "access_token with a space": Row(http(token("CANARY CANARY")), UNAVAILABLE, BAD_TOKEN),
    "access_token with NUL": Row(http(token("CANARY\0")), UNAVAILABLE, BAD_TOKEN),
    "access_token not ASCII": Row(http(token("CANARYü")), UNAVAILABLE, BAD_TOKEN),
    "access_token a lone surrogate": Row(http(b'{"access_token":"CANARY\\ud800"}'), UNAVAILABLE, BAD_TOKEN),
    "access_token too long": Row(http(token("CANARY" + "a" * TOKEN_LIMIT)), UNAVAILABLE, BAD_TOKEN),
    "access_token with a line end": Row(http(token("CANARY\n")), GRANTED),
    "access_token twice": Row(http(b'{"access_token":"","access_token":"CANARY"}'), GRANTED, lifetime=None),
    # -- expires_in
    "expires_in a text": Row(lifetime('"3600"'), GRANTED),
    "expires_in a fraction": Row(lifetime("3600.0"), GRANTED),
    "expires_in null": Row(lifetime("null"), GRANTED, lifetime=None),
    "expires_in absurd": Row(lifetime("1e99"), GRANTED, lifetime=LONGEST_LIFETIME),
    "expires_in NaN": Row(lifetime("NaN"), UNAVAILABLE, NOT_JSON),
    "expires_in Infinity": Row(lifetime("Infinity"), UNAVAILABLE, NOT_JSON),
    **{
        f"expires_in {text}": Row(lifetime(text), UNAVAILABLE, BAD_LIFETIME)
        for text in ("0", "-1", "1e999", '""', '"soon"', '"NaN"', "true", "false", "[]", "[3600]", "{}", "-1e99")
    },
    # -- a lifetime that the token itself contradicts
    "a JWT that agrees": Row(http(token("JWT+4000")), GRANTED),
    "milliseconds": Row(http(token("JWT+3600", expires_in=3_600_000)), GRANTED, doubt=True),
    "minutes": Row(http(token("JWT+7200", expires_in=120)), GRANTED, lifetime=120, doubt=True),
    "a JWT that ends before": Row(http(token("JWT+600")), GRANTED, lifetime=600, doubt=True),
    "a JWT that is over": Row(http(token("JWT-600")), GRANTED, doubt=True),
    "a JWT alone": Row(http({"access_token": "JWT+600"}), GRANTED, lifetime=600),
    # -- refresh_token
    "refresh_token empty": Row(http(token(refresh_token="")), GRANTED),
    "refresh_token null": Row(http(token(refresh_token=None)), GRANTED),
    "refresh_token a number": Row(http(token(refresh_token=7)), UNAVAILABLE, BAD_REFRESH),
    "refresh_token a list": Row(http(token(refresh_token=["CANARY"])), UNAVAILABLE, BAD_REFRESH),
    "refresh_token too long": Row(http(token(refresh_token="a" * (TOKEN_LIMIT + 1))), UNAVAILABLE, BAD_REFRESH),
    "refresh_token with CRLF": Row(http(token(refresh_token="CANARY\r\nX: 1")), UNAVAILABLE, BAD_REFRESH),
    # -- errors
    "an error with 200": Row(
        no("200 OK", "invalid_grant"),
        REJECTED,
        "invalid_grant",
        login=UNAVAILABLE,
        said=said("invalid_grant", MASKED),
    ),
    "an error beside a token": Row(
        http(token(error="access_denied")), REJECTED, login=GRANTED, said=said("access_denied")
    ),
    "an empty error beside a token": Row(http(token(error="")), GRANTED),
    **{
        f"{code} with {status[:3]}": Row(no(status, code), REJECTED, said=said(code, MASKED))
        for code in ("invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope", "own_code")
        for status in ("400 No", "401 No")
    },
    "a code that is a secret": Row(no("400 No", "CANARY"), REJECTED, said=said("***", MASKED)),
    "a description of 54,000 characters": Row(
        http({"error": "invalid_grant", "error_description": "no CANARY " * 1000}, "400 No"),
        REJECTED,
        said=said("invalid_grant", ("no *** " * 50)[:300]),
    ),
    "a description with line ends": Row(
        http({"error": "invalid_grant", "error_description": "no\r\nevent: CANARY\x1b[1m"}, "400 No"),
        REJECTED,
        said=said("invalid_grant", "noevent: ***[1m"),
    ),
    "a description that is no text": Row(
        http({"error": "invalid_grant", "error_description": ["CANARY"]}, "400 No"),
        REJECTED,
        said=said("invalid_grant"),
    ),
    "an error that is an object": Row(http({"error": {"message": "CANARY"}}, "400 No"), REJECTED),
    "temporarily_unavailable with 400": Row(
        no("400 No", "temporarily_unavailable"),
        UNAVAILABLE,
        login=REJECTED,
        said=said("temporarily_unavailable", MASKED),
    ),
    **{f"status {status}": Row(http(token(), f"{status} No"), REJECTED) for status in (400, 401, 403, 409, 422)},
    **{
        f"status {status}": Row(http(token(), f"{status} No"), UNAVAILABLE, f"status {status}")
        for status in (202, 404, 405, 408, 410, 415, 418, 500, 502, 504, 599, 600, 999)
    },
    "status 201": Row(http(token(), "201 Created"), GRANTED, login=UNAVAILABLE),
    # -- later
    **{
        f"{status}, Retry-After {text}": Row(
            http(b"CANARY", f"{status} Later", f"Retry-After: {text}"),
            UNAVAILABLE,
            f"status {status}",
            retry=seconds,
        )
        for status in (429, 503)
        for text, seconds in (
            ("30", 30.0),
            ("0", PAUSE),
            ("-30", PAUSE),
            ("999999999", 3600.0),
            ("99999999999999999999", PAUSE),
            ("soon", PAUSE),
            ("", PAUSE),
            ("Thu, 01 Jan 1970 00:00:00 GMT", PAUSE),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
            ("1.5", PAUSE),
        )
    },
    "two that differ": Row(
        http(b"", "503 Later", "Retry-After: 30", "Retry-After: 60"), UNAVAILABLE, "status 503", retry=PAUSE
    ),
    # -- no answer
    "closed at once": Row((), UNAVAILABLE, LOST),
    "reset before the request": Row(Act.RESET_UNREAD, UNAVAILABLE, "connection"),
    "reset behind the request": Row(Act.RESET, UNAVAILABLE, LOST),
    "reset in the status line": Row((b"HTTP/1.1 20", Act.RESET), UNAVAILABLE, LOST),
    "reset in the headers": Row((b"HTTP/1.1 200 OK\r\nX-A: CANARY", Act.RESET), UNAVAILABLE, LOST),
    "reset in the body": Row((http(b"{", frame="Content-Length: 99"), Act.RESET), UNAVAILABLE, LOST),
    "silence": Row(Act.HANG, UNAVAILABLE, "did not answer in time"),
    "a slow body": Row(
        (http(b'{"access_token":"CANARY', frame="Content-Length: 99"), Act.HANG),
        UNAVAILABLE,
        "did not answer in time",
    ),
}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Listener:
    """A raw endpoint: every connection is answered by what `play` is at that time; requests are kept."""

    def __init__(self, stage: Callable[[], Stage]) -> None:
        self._stage = stage
        self.play: Part | tuple[Part, ...] = b""
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: read a request, play, close."""
        self.connections += 1
        try:
            if self.play is Act.RESET_UNREAD:
                self._reset(writer)
                return
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
            for part in self.play if isinstance(self.play, tuple) else (self.play,):
                await self._do(part, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left, as it should from some
        finally:
            writer.close()

    async def _do(self, part: Part, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(part, Act):
            if part is Act.HANG:
                await reader.read()
            else:
                self._reset(writer)
            return
        stage = self._stage()
        writer.write(filled(part, stage) if isinstance(part, bytes) else part(stage))
        await writer.drain()

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@asynccontextmanager
async def listening(listener: Listener, tls: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    """Serve it on a free port of loopback."""
    async with await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=tls) as server:
        listener.port = server.sockets[0].getsockname()[1]
        yield listener


@dataclass
class Upstream:
    """Takes every token but the refused ones."""

    far_end: Api
    refused: set[str] = field(default_factory=set)

    @property
    def tokens(self) -> list[str]:
        """With which it was called, in order."""
        return [seen.all("authorization")[0].removeprefix("Bearer ") for seen in self.far_end.seen]

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """401 for a refused one."""
        is_refused = seen.all("authorization")[0].removeprefix("Bearer ") in self.refused
        return web.Response(status=401 if is_refused else 200, text="no" if is_refused else "fine")


@dataclass
class Scene:
    """Everything that plays in one row."""

    proxy: Proxy
    token_endpoint: Listener
    elsewhere: Listener
    upstream: Upstream
    clock: HeldClock

    def events(self, name: str) -> list[dict[str, Any]]:
        """What became of the token requests of a credential."""
        kinds = {outcome.event for outcome in (GRANTED, UNAVAILABLE, REJECTED)}
        found = [json.loads(line) for line in self.proxy.log.getvalue().splitlines()]
        return [line for line in found if line["event"] in kinds and line.get("credential") == name]

    async def landed(self, name: str) -> None:
        """Wait for the token request in flight behind a request's back."""
        flight = self.proxy.instance._present.credentials[name].source._flight  # type: ignore[attr-defined]  # its TokenSource
        if flight is not None:
            await asyncio.wait({flight})

    def doubts(self, name: str) -> int:
        """How often its lifetime was doubted."""
        return len([line for line in self.proxy.lines("token_lifetime_doubtful") if line["credential"] == name])


def configuration(upstream: str, token_endpoint: str) -> dict[str, Any]:
    """Two credentials of each type: `…-first` gets no good token, `…-old` has one before."""
    made: dict[str, Any] = {"routes": [], "credentials": {}}
    for kind in KINDS:
        for when in ("first", "old"):
            name, url = f"{kind}-{when}", f"{token_endpoint}/{kind}-{when}"
            made["routes"].append({"prefix": f"/{name}", "upstream": upstream, "credential": name})
            made["credentials"][name] = {
                "oauth2": {
                    "type": "oauth2",
                    "grant": "client_credentials",
                    "token_url": url,
                    "client_id": "id",
                    "client_secret": {"env": "SECRET"},
                },
                "login": {
                    "type": "login",
                    "login": {"url": url, "fields": {"password": {"env": "SECRET"}}},
                    "refresh": {"url": url, "fields": {"refresh_token": "$refresh_token"}},
                    "response": {
                        "token": "/access_token",
                        "refresh_token": "/refresh_token",
                        "lifetime": "/expires_in",
                        "expires": "jwt",
                    },
                },
            }[kind]
    return made


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that issued nothing; it is loaded faster than all those of the machine."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
async def scene(proxying: StartProxy, canaries: Canaries, clock: HeldClock, ca: Path) -> AsyncIterator[Scene]:
    """A proxy whose `…-old` credentials have a good token, with a refresh token, already."""
    elsewhere = Listener(lambda: Stage("", 0.0, ""))

    def stage() -> Stage:
        return Stage(canaries.mint("token"), clock.wall(), f"http://127.0.0.1:{elsewhere.port}/CANARY")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(listening(elsewhere))
        token_endpoint = await stack.enter_async_context(listening(Listener(stage)))
        upstream = Upstream(await stack.enter_async_context(api()))
        upstream.far_end.answer = upstream.answer
        config = configuration(upstream.far_end.url, f"http://127.0.0.1:{token_endpoint.port}")
        environ = {"SECRET": canaries.mint("password")}
        proxy = await stack.enter_async_context(proxying(config, environ=environ, clock=clock, ca=ca))
        token_endpoint.play = http(token(refresh_token="CANARY"))
        for kind in KINDS:
            assert (await proxy.ask("GET", f"/{kind}-old/")).status == 200
        token_endpoint.requests.clear()
        yield Scene(proxy, token_endpoint, elsewhere, upstream, clock)


@pytest.fixture
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that hangs is given up soon, and rejections are hashed quickly."""
    monkeypatch.setattr(latch, "_SCRYPT_N", 2)
    row = ROWS.get(request.node.callspec.params.get("name"))
    play = (Act.HANG,) if row is None else row.play if isinstance(row.play, tuple) else (row.play,)
    if Act.HANG in play:
        defaults = TokenEndpoint.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, "timeout", 0.3)


def check_event(row: Row, outcome: Outcome, event: dict[str, Any]) -> None:
    """The event of a token request says what became of it, and in whose words."""
    assert event["event"] == outcome.event
    if outcome is GRANTED:
        assert event.get("lifetime") == row.lifetime
        return
    assert event["error"] == outcome.code
    assert row.detail in event["detail"] or outcome is not row.outcome
    assert event.get("retry_in") == (row.retry if outcome is UNAVAILABLE else None)
    assert {key: text for key, text in event.items() if key.startswith("oauth_")} == row.said


@pytest.mark.threat(56)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ROWS)
async def test_a_reply_that_is_bad_gives_no_token_and_costs_none(scene: Scene, name: str) -> None:
    """What a client gets without a token; a valid one goes on to be used, ahead of its end and after a refusal."""
    row, proxy, upstream = ROWS[name], scene.proxy, scene.upstream
    old = dict(zip(KINDS, upstream.tokens, strict=True))
    scene.token_endpoint.play = row.play
    for kind in KINDS:
        outcome = row.outcome_of(kind)
        upstream.far_end.seen.clear()
        answer = await proxy.ask("GET", f"/{kind}-first/")
        assert (answer.status, answer.code) == (outcome.status, outcome.code)
        assert len(upstream.far_end.seen) == (1 if outcome is GRANTED else 0)
        [event] = scene.events(f"{kind}-first")
        check_event(row, outcome, event)
        assert scene.doubts(f"{kind}-first") == row.doubt
    # One by a refresh ahead, the other by a refusal: the relay asks the same source either way.
    scene.clock.move(LIFETIME - 30)
    for kind in KINDS:
        outcome, credential = row.outcome_of(kind), f"{kind}-old"
        upstream.far_end.seen.clear()
        upstream.refused = {old[kind]} if kind == "login" else set()
        answer = await proxy.ask("GET", f"/{credential}/")
        assert answer.status == (200 if kind == "oauth2" or outcome is GRANTED else 401)
        assert upstream.tokens[0] == old[kind]
        await scene.landed(credential)
        [_, event] = scene.events(credential)
        check_event(row, outcome, event)
        upstream.refused.clear()
        assert (await proxy.ask("GET", f"/{credential}/")).status == 200
        assert (upstream.tokens[-1] == old[kind]) is (outcome is not GRANTED)
    assert scene.elsewhere.connections == 0


@pytest.mark.threat(101)
@pytest.mark.parametrize("reply", [token(), token(refresh_token=None), token(refresh_token="")])
async def test_a_refresh_token_that_is_not_replaced_is_used_again(scene: Scene, reply: dict[str, object]) -> None:
    """RFC 6749 section 6 (threat 101)."""
    scene.token_endpoint.play = http(reply)
    for _ in range(2):
        scene.clock.move(LIFETIME)
        for kind in KINDS:
            assert (await scene.proxy.ask("GET", f"/{kind}-old/")).status == 200
    sent = [request.partition(b"\r\n\r\n")[2] for request in scene.token_endpoint.requests]
    redeemed = [re.findall(rb"refresh_token=([^&]+)", body) for body in sent]
    assert redeemed[:2] == redeemed[2:]
    assert redeemed[0] != redeemed[1]
    assert all(len(each) == 1 for each in redeemed)


async def test_a_lifetime_is_doubted_once(scene: Scene) -> None:
    """Not with every token."""
    scene.token_endpoint.play = http(token("JWT+3600", expires_in=3_600_000))
    for _ in range(3):
        for kind in KINDS:
            assert (await scene.proxy.ask("GET", f"/{kind}-first/")).status == 200
        scene.clock.move(LIFETIME)
    for kind in KINDS:
        assert len(scene.events(f"{kind}-first")) == 3
        assert scene.doubts(f"{kind}-first") == 1


@pytest.mark.threat(55)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["another authority", "another name", "plain HTTP", "reset"])
async def test_without_trust_nothing_is_sent(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock, how: str
) -> None:
    """A certificate that does not fit, or no TLS at all (threat 55)."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example.com" if how == "another name" else "127.0.0.1").configure_cert(context)
    listener = Listener(lambda: Stage(canaries.mint("token"), clock.wall(), ""))
    listener.play = Act.RESET_UNREAD if how == "reset" else http(token())
    tls = context if how.startswith("another") else None
    async with listening(listener, tls), api() as upstream:
        config = configuration(upstream.url, f"https://127.0.0.1:{listener.port}")
        environ = {"SECRET": canaries.mint("password")}
        async with proxying(config, environ=environ, clock=clock) as proxy:
            for kind in KINDS:
                answer = await proxy.ask("GET", f"/{kind}-first/")
                assert (answer.status, answer.code) == (503, "credential_unavailable")
    assert not any(b"HTTP/1.1" in request for request in listener.requests)
    assert upstream.seen == []
