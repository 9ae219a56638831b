"""What goes wrong at far ends: tables of hostile answers, each with the numbers of the threats that it stands for.

Every one of them repeats what the request brought, token and secrets included, where a careless server would. A new
way for something to go wrong is one more row.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from proxy.config.yamltext import dump
from proxy.leaktest.farend import MARK, Heard, Play, Played, http
from proxy.leaktest.replies import JSON

#: What of a request is repeated in one line of a head, which has its bounds.
_LINE: Final = 6000


@dataclass(frozen=True, slots=True)
class Fault:
    """A hostile answer, and the cases of docs/threat-model.md; `early`: it is there before the body is read."""

    name: str
    threats: tuple[int, ...]
    play: Play
    early: bool = False


def _line(heard: Heard) -> str:
    return heard.text[:_LINE]


def _echo(status: str, **fields: Callable[[Heard], str]) -> Play:
    """An answer whose body is the request, with fields made of it too; `_` in a name is a hyphen."""

    def play(heard: Heard) -> Played:
        made = {name.replace("_", "-"): make(heard) for name, make in fields.items()}
        return http(status, made, heard.head + heard.body)

    return play


def _raw(text: str, end: str = "close") -> Play:
    """Bytes as they stand here, ECHO replaced by the request."""

    def play(heard: Heard) -> Played:
        return Played(text.replace("ECHO", _line(heard)).encode("latin-1", "replace"), end)  # type: ignore[arg-type]  # one of its words

    return play


def _same(text: str) -> Callable[[Heard], str]:
    return lambda heard: text.replace("ECHO", _line(heard))


def _field(name: str) -> Callable[[Heard], str]:
    """One field of the request, as it was."""
    return lambda heard: heard.fields.get(name, "")


def _in_base64(heard: Heard) -> str:
    return base64.b64encode(_line(heard).encode("latin-1")).decode("ascii")


def _in_json(heard: Heard) -> str:
    return json.dumps({"request": _line(heard)})


def _websocket(heard: Heard) -> Played:
    fields = (
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {heard.accepted()}\r\n{MARK}: 1\r\n"
    )
    line = f"X-Echo: {_line(heard)}\r\n"
    return Played(f"HTTP/1.1 101 Switching Protocols\r\n{fields}{line}\r\n".encode("latin-1"), "echo")


_OK: Final = "HTTP/1.1 200 OK\r\n"
_MARKED: Final = f"{_OK}{MARK}: 1\r\n"

WEBSOCKET: Final = Fault("a WebSocket that repeats it", (6, 41, 62), _websocket)
REFUSED: Final = Fault(
    "a 401 whose challenge names the token",
    (57, 62, 98, 100),
    _echo(
        "401 Unauthorized",
        WWW_Authenticate=_same('Bearer error="invalid_token", error_description="ECHO"'),
    ),
)
UPSTREAM: Final = (
    Fault(
        "an answer that repeats the request in fields and body",
        (62, 74),
        _echo(
            "200 OK",
            X_Echo=_line,
            X_Authorization=_field("authorization"),
            Set_Cookie=_same("session=ECHO; Path=/"),
            Location=_same("/next?q=ECHO"),
            Link=_same("<https://elsewhere.example/?t=ECHO>; rel=next"),
            ETag=_same('"ECHO"'),
            Refresh=_same("0; url=https://elsewhere.example/?ECHO"),
        ),
    ),
    Fault(
        "fields that repeat it in Base64, in JSON, and percent-encoded",
        (62, 76),
        _echo(
            "200 OK",
            X_Base64=_in_base64,
            X_Json=_in_json,
            X_Quoted=lambda heard: quote(_line(heard)),
            X_Quoted_Too=lambda heard: quote(_line(heard), safe=""),
        ),
    ),
    REFUSED,
    Fault(
        "a 403 that is about rights",
        (99,),
        _echo(
            "403 Forbidden",
            WWW_Authenticate=_same('Bearer error="insufficient_scope", scope="ECHO"'),
        ),
    ),
    Fault("a 429 that says when", (109,), _echo("429 Too Many Requests", Retry_After=_same("ECHO"))),
    Fault(
        "redirects to elsewhere with the token in the target",
        (61,),
        _echo(
            "307 Temporary Redirect",
            Location=_same("https://elsewhere.example/ECHO"),
        ),
    ),
    Fault(
        "a reason phrase that is the request",
        (70,),
        _raw(f"HTTP/1.1 400 ECHO\r\n{MARK}: 1\r\nContent-Length: 0\r\n\r\n"),
    ),
    Fault(
        "a status that there is not", (70,), _raw("HTTP/1.1 999 ECHO\r\nX-Echo: ECHO\r\nContent-Length: 0\r\n\r\n")
    ),
    Fault("a field with a control character", (63,), _raw(f"{_OK}X-Echo: ECHO\x01\r\nContent-Length: 0\r\n\r\n")),
    Fault("a line that is no field", (44, 63), _raw(f"{_OK}ECHO\r\nContent-Length: 0\r\n\r\n")),
    Fault(
        "a field that is too long", (63,), _raw(f"{_OK}X-Echo: ECHO{'x' * 500_000}\r\nContent-Length: 0\r\n\r\n")
    ),
    Fault("no HTTP at all", (44,), _raw("ECHO\r\n\r\n")),
    Fault("two lengths", (44,), _raw(f"{_OK}Content-Length: 1\r\nContent-Length: 2\r\nX-Echo: ECHO\r\n\r\nECHO")),
    Fault(
        "interim answers that repeat it",
        (64,),
        _raw(
            f"{'HTTP/1.1 103 Early Hints{}Link: <https://elsewhere.example/?ECHO>; rel=preload{}{}' * 3}".replace(
                "{}", "\r\n"
            )
            + f"{_MARKED}Content-Length: 2\r\n\r\nok",
        ),
    ),
    Fault("a compressed body", (65,), _raw(f"{_MARKED}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nECHO")),
    Fault("chunks that are none", (44, 66), _raw(f"{_MARKED}Transfer-Encoding: chunked\r\n\r\nECHO\r\n")),
    Fault(
        "trailers that repeat it",
        (62,),
        _raw(
            f"{_MARKED}Transfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n2\r\nok\r\n0\r\nX-Echo: ECHO\r\n\r\n",
        ),
    ),
    Fault("a body that ends early", (66,), lambda heard: http("200 OK", None, heard.head, length=1 << 20)),
    Fault("bytes behind the answer", (43,), _raw(f"{_MARKED}Content-Length: 2\r\n\r\nokHTTP/1.1 200 ECHO\r\n\r\n")),
    Fault(
        "a 101 that nobody asked for",
        (42,),
        _raw("HTTP/1.1 101 ECHO\r\nUpgrade: ECHO\r\nConnection: upgrade\r\n\r\n"),
    ),
    Fault("a reset instead of an answer", (103,), lambda _heard: Played(end="reset")),
    Fault("a reset within the answer's head", (66, 103), lambda _heard: Played(_OK.encode(), "reset")),
    Fault("silence", (67,), lambda _heard: Played(end="hang")),
    Fault("a 401 while the body is still sent", (104, 105), _echo("401 Unauthorized", X_Echo=_line), early=True),
    Fault(
        "what a browser would keep for localhost",
        (73,),
        _echo(
            "200 OK",
            Alt_Svc=_same('h2="ECHO"'),
            Clear_Site_Data=_same('"ECHO"'),
            Strict_Transport_Security=_same("ECHO"),
        ),
    ),
    WEBSOCKET,
)


def _reply(status: str = "200 OK", **members: object) -> Play:
    """A token reply of these members, in which ECHO is the request."""

    def play(heard: Heard) -> Played:
        return http(status, JSON, json.dumps(members).replace("ECHO", json.dumps(_line(heard))[1:-1]).encode())

    return play


def _error(status: str, code: str) -> Play:
    return _reply(
        status, error=code, error_description="ECHO", error_uri="https://id.example/?ECHO", request="ECHO"
    )


def _page(status: str) -> Play:
    """What a firewall or a crashed server answers."""
    return lambda heard: http(status, {"Content-Type": "text/html"}, f"<html><pre>{heard.text}</pre>".encode())


_TOKENS: Final = {"access_token": "ECHO", "token": "ECHO"}
#: In the place of a good answer of a token endpoint.
TOKEN_ENDPOINT: Final = (
    Fault("a password that is refused, and repeated", (74, 89, 107), _error("400 Bad Request", "invalid_grant")),
    Fault("a client that is refused, and repeated", (107,), _error("401 Unauthorized", "invalid_client")),
    Fault("an error code that is the request", (80, 107), _error("400 Bad Request", "ECHO")),
    Fault("a page of a firewall", (107,), _page("403 Forbidden")),
    Fault("a server's failure that shows the request", (108,), _page("500 Internal Server Error")),
    Fault(
        "try later", (108,), lambda heard: http("429 Too Many Requests", {"Retry-After": _line(heard)}, heard.head)
    ),
    Fault(
        "a redirect that would take the secrets along",
        (54,),
        _echo("307 Temporary Redirect", Location=_same("/ECHO")),
    ),
    Fault("no JSON", (56,), lambda heard: http("200 OK", JSON, b'{"access_token": ' + heard.head + heard.body)),
    Fault("too much", (56,), lambda heard: http("200 OK", JSON, b'{"a": "' + (heard.head + heard.body) * 400)),
    Fault("a compressed reply", (56,), lambda heard: http("200 OK", {"Content-Encoding": "gzip"}, heard.head)),
    Fault("a token of another type", (56,), _reply(**_TOKENS, token_type="ECHO")),  # noqa: S106  no secret
    Fault("no token", (56,), _reply(scope="ECHO", message="ECHO")),
    Fault("a lifetime that is no number", (56,), _reply(**_TOKENS, expires_in="ECHO")),
    Fault("a token that no header takes", (50,), _reply(access_token="ECHO\r\nX: ECHO", token="ECHO\n")),  # noqa: S106  no secret
    Fault("no HTTP at all", (56,), _raw("ECHO\r\n\r\n")),
    Fault("a reset instead of a reply", (52, 108), lambda _heard: Played(end="reset")),
    Fault("a reply that ends early", (56, 108), lambda heard: http("200 OK", JSON, heard.head, length=1 << 20)),
    Fault("silence", (52, 108), lambda _heard: Played(end="hang")),
)


@dataclass(frozen=True, slots=True)
class Given:
    """What a program prints, or what stands in a file, in the place of a token; ECHO is a new secret."""

    name: str
    threats: tuple[int, ...]
    text: str
    status: int = 0


PROGRAM: Final = (
    Given("a token with a control character", (50,), "ECHO\x01ECHO"),
    Given("an unfinished document", (56,), '{"access_token": "ECHO", '),
    Given("an object without a token", (56,), '{"kind": "ExecCredential", "spec": "ECHO"}'),
    Given("a failure, and the secret", (52,), "ECHO", 3),
    Given("too much", (56,), "ECHO" * 4000),
)
FILE: Final = (
    Given("a token with a line break inside", (50,), "ECHO\nECHO"),
    Given("a token with a control character", (50,), "ECHO\x01"),
    Given("nothing", (50,), ""),
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A configuration with mistakes: its text, of the copy's data and of a secret, and the file's mode."""

    name: str
    text: Callable[[Mapping[str, Any], str], str]
    mode: int = 0o600


def _everywhere(data: Mapping[str, Any], secret: str) -> str:
    """A secret as a value of every section, in a URL, as a key, and where only a private file may have one."""
    route = {**data["routes"][0], "upstream": f"https://u:{secret}@api.example.com", secret: None, "pool": secret}
    credentials = {name: {**each, "x": secret, "margin": secret} for name, each in data["credentials"].items()}
    guard = {"client_key": {secret: None}, "client_keys": {"x": {"key": secret}}}
    more = {"listen": secret, "limits": {"idle": secret}, "guard": guard, "x": [secret], f"x:{secret}": 1}
    return dump({**data, "routes": [route], "credentials": credentials, **more})


MISTAKES: Final = (
    Mistake("no YAML", lambda data, secret: f'{dump(data)}\nbroken: ["{secret}\n  {secret}: [{secret}'),
    Mistake("values", _everywhere, 0o644),
)
