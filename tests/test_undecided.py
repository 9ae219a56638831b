"""Answers to a redemption that are neither a token nor a refusal, by a server that takes a refresh token once.

What it may have redeemed is not redeemed again where the credential can begin anew (RFC 9700 section 4.14); who
cannot tries it all the same, and says so. What it surely did not redeem costs no login.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest

from proxy.credentials import token_endpoint
from proxy.credentials.token_endpoint import TokenEndpoint
from proxy.errors import CredentialUnavailable
from proxy.grants.login import ResponseRules
from proxy.grants.request import TokenReply, TokenRequest
from proxy.grants.undecided import rotated
from proxy.redact import Secret
from tests.support.api import api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.strict import LIFETIME, Reply, Strict

#: Longer than the pause after a first failure.
LATER: Final = 60


HTML: Final = ("Content-Type", "text/html")
JSON: Final = ("Content-Type", "application/json")
PAGE: Final = b"<html>no</html>"
#: Nobody can know then whether it was redeemed.
UNDECIDED: Final = {
    "500": Reply(500),
    "500 with an error": Reply(500, (JSON,), b'{"error": "server_error"}'),
    "502": Reply(502, (HTML,), PAGE),
    "504": Reply(504, (HTML,), PAGE),
    "520": Reply(520, (HTML,), PAGE),
    "302": Reply(302, (("Location", "/login"),)),
    "303 with nothing": Reply(303),
    "202": Reply(202, (JSON,), b"{}"),
    "204": Reply(204),
    "403 of a firewall": Reply(403, (HTML,), PAGE),
    "200 with a page": Reply(200, (HTML,), PAGE),
    "200 cut short": Reply(200, (JSON,), b'{"access_token": "a'),
    "206 with a page": Reply(206, (HTML,), PAGE),
}
#: The server has said what counts from now on.
CARRYING: Final = {
    "202": Reply(202, (JSON,), carries=True),
    "203": Reply(203, (JSON,), carries=True),
    "200 without a token": Reply(200, (JSON,), carries=True),
}
#: It was surely not redeemed.
DECIDED: Final = {
    "429": Reply(429, (("Retry-After", "30"),)),
    "503": Reply(503, (HTML,), PAGE),
    "503 with Retry-After": Reply(503, (("Retry-After", "30"),)),
    "408": Reply(408),
    "404": Reply(404, (HTML,), PAGE),
    "405": Reply(405),
}
#: For a login, which knows statuses only, it is a refusal.
NOT_NOW: Final = {"400 not now": Reply(400, (JSON,), b'{"error": "temporarily_unavailable"}')}


def credential(kind: str, url: str) -> dict[str, Any]:
    """`password` and `login` begin anew; of `refresh_token` the refresh token is all that there is."""
    client = {"type": "oauth2", "token_url": url, "client_id": "id", "client_auth": "none"}
    return {
        "password": {**client, "grant": "password", "username": "u", "password": {"env": "PASSWORD"}},
        "refresh_token": {**client, "grant": "refresh_token", "refresh_token": {"env": "REFRESH"}},
        "login": {
            "type": "login",
            "login": {"url": url, "fields": {"password": {"env": "PASSWORD"}}},
            "refresh": {"url": url, "fields": {"refresh_token": "$refresh_token"}},
            "response": {"token": "/access_token", "refresh_token": "/refresh_token", "lifetime": "/expires_in"},
        },
    }[kind]


def _listening(port: int, backlog: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(backlog)
    return listening


@contextmanager
def crowded(port: int = 0) -> Iterator[int]:
    """A port where no connection ever completes, as behind a firewall that drops."""
    with ExitStack() as stack:
        address = stack.enter_context(_listening(port, 0)).getsockname()
        stack.enter_context(socket.create_connection(address))
        second = stack.enter_context(socket.socket())
        second.setblocking(False)  # noqa: FBT003  the socket module's own signature
        second.connect_ex(address)
        yield address[1]


class Door:
    """The way to `port`, from a port of its own; it can be shut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Let connections in, at the port of before."""
        self._server = await asyncio.start_server(self._pass, sock=_listening(self.port, 16))
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Nobody listens there any more."""
        assert self._server is not None
        self._server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self._to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, outer), pump(inner, writer))


@dataclass
class Scene:
    """A proxy with a token that is over."""

    proxy: Proxy
    endpoint: Strict
    clock: HeldClock
    door: Door

    async def get(self) -> tuple[int, str]:
        """What a client gets, after the pause of a failure before."""
        self.clock.move(LATER)
        answer = await self.proxy.ask("GET", "/")
        return answer.status, answer.code

    def again(self) -> None:
        """The token is over; what was seen is done with."""
        self.clock.move(LIFETIME)
        self.endpoint.seen.clear()

    @property
    def lost(self) -> list[bool]:
        """What was told of rotations that may be lost: is it begun anew?"""
        return [line["anew"] for line in self.proxy.lines("token_rotation_lost")]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits for a connection for a short time, from its beginning on."""
    monkeypatch.setattr(token_endpoint, "_CONNECT_SHARE", 0.015)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Of the credential."""
    return str(request.param)


@pytest.fixture
async def scene(proxying: StartProxy, canaries: Canaries, clock: HeldClock, kind: str) -> AsyncIterator[Scene]:
    """One token was got, and is over."""
    async with AsyncExitStack() as stack:
        endpoint = Strict(canaries)
        served = await stack.enter_async_context(api(endpoint.answer))
        upstream = await stack.enter_async_context(api())
        environ = {"PASSWORD": canaries.mint("password"), "REFRESH": endpoint.begin()}
        used = "REFRESH" if kind == "refresh_token" else "PASSWORD"
        door = Door(int(served.url.rpartition(":")[2]))
        await door.open()
        stack.callback(door.shut)
        config = {"upstream": upstream.url, "credential": credential(kind, f"http://127.0.0.1:{door.port}/token")}
        proxy = await stack.enter_async_context(proxying(config, environ={used: environ[used]}, clock=clock))
        made = Scene(proxy, endpoint, clock, door)
        assert await made.get() == (200, "")
        made.again()
        yield made


ANEW: Final = pytest.mark.parametrize("kind", ["password", "login"], indirect=True)
ALONE: Final = pytest.mark.parametrize("kind", ["refresh_token"], indirect=True)
EACH: Final = pytest.mark.parametrize("kind", ["password", "login", "refresh_token"], indirect=True)


@ANEW
@pytest.mark.parametrize("redeems", [True, False], ids=["redeemed", "not redeemed"])
async def test_090_what_may_have_been_redeemed_is_not_redeemed_again(scene: Scene, *, redeems: bool) -> None:
    """One login takes its place, and that is told."""
    for count, (name, reply) in enumerate(UNDECIDED.items(), start=1):
        scene.endpoint.reply, scene.endpoint.redeems = reply, redeems
        assert (name, *await scene.get()) == (name, 503, "credential_unavailable")
        scene.endpoint.reply = None
        assert (name, *await scene.get()) == (name, 200, "")
        assert (name, scene.endpoint.seen) == (name, ["refresh", "login"])
        assert (name, scene.lost) == (name, [True] * count)
        assert (name, scene.endpoint.reuses) == (name, 0)
        scene.again()


@ALONE
async def test_090_who_cannot_begin_anew_tries_it_all_the_same_and_says_so(scene: Scene) -> None:
    """Else a gateway that fails once would end a person's login."""
    for count, (name, reply) in enumerate(UNDECIDED.items(), start=1):
        scene.endpoint.reply, scene.endpoint.redeems = reply, False
        assert (name, *await scene.get()) == (name, 503, "credential_unavailable")
        scene.endpoint.reply = None
        assert (name, *await scene.get()) == (name, 200, "")
        assert (name, scene.endpoint.seen) == (name, ["refresh", "refresh"])
        assert (name, scene.lost) == (name, [False] * count)
        scene.again()
    assert scene.endpoint.reuses == 0


@ALONE
@pytest.mark.parametrize("name", ["502", "204"])
async def test_090_who_cannot_begin_anew_is_told_where_it_was_redeemed(scene: Scene, name: str) -> None:
    """The family ends; nothing of that is silent."""
    scene.endpoint.reply = UNDECIDED[name]
    assert await scene.get() == (503, "credential_unavailable")
    scene.endpoint.reply = None
    assert await scene.get() == (502, "credential_rejected")
    assert scene.lost == [False]
    assert scene.endpoint.reuses == 1


@EACH
async def test_090_a_refresh_token_that_comes_with_an_odd_success_is_the_next(scene: Scene) -> None:
    """It stands in the place of the one that was redeemed."""
    for name, reply in CARRYING.items():
        scene.endpoint.reply = reply
        assert (name, *await scene.get()) == (name, 503, "credential_unavailable")
        scene.endpoint.reply = None
        assert (name, *await scene.get()) == (name, 200, "")
        assert (name, scene.endpoint.seen) == (name, ["refresh", "refresh"])
        scene.again()
    assert scene.lost == []
    assert scene.endpoint.reuses == 0


@EACH
async def test_090_what_was_surely_not_redeemed_is_redeemed_later(scene: Scene, kind: str) -> None:
    """A pause of the server costs no login, however often it is tried."""
    scene.endpoint.redeems = False
    for name, reply in {**DECIDED, **({} if kind == "login" else NOT_NOW)}.items():
        scene.endpoint.reply = reply
        for _ in range(3):
            assert (name, *await scene.get()) == (name, 503, "credential_unavailable")
        scene.endpoint.reply = None
        scene.clock.move(LIFETIME)
        assert (name, *await scene.get()) == (name, 200, "")
        assert set(scene.endpoint.seen) == {"refresh"}
        scene.again()
    assert scene.lost == []
    assert scene.endpoint.reuses == 0


@pytest.mark.threat(90)
@pytest.mark.usefixtures("hasty")
@EACH
async def test_090_what_was_never_sent_is_redeemed_later(scene: Scene) -> None:
    """Nobody listens, or a connection never completes (a VPN that is down): that costs no login."""
    for name in ("refused", "never completes"):
        scene.door.shut()
        with nullcontext() if name == "refused" else crowded(scene.door.port):
            for _ in range(2):
                assert (name, *await scene.get()) == (name, 503, "credential_unavailable")
        await scene.door.open()
        scene.clock.move(LIFETIME)
        assert (name, *await scene.get()) == (name, 200, "")
        assert (name, scene.endpoint.seen) == (name, ["refresh"])
        scene.again()
    assert scene.lost == []
    assert scene.endpoint.reuses == 0


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes connections, and never says a word."""
    with suppress(ConnectionError):
        await reader.read()
    writer.close()


async def _resetting(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def _closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def _never(*_given: object, **_named: object) -> list[Any]:
    """A name server that does not answer."""
    return await asyncio.Future()


#: How a request fails: where, who is there, and whether it may have been read.
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
FAILURES: Final[dict[str, tuple[str, Serve | None, bool]]] = {
    "refused": ("http://127.0.0.1:{free}", None, False),
    "never completes": ("http://127.0.0.1:{crowded}", None, False),
    "never completes, with TLS": ("https://127.0.0.1:{crowded}", None, False),
    "no such name": ("http://name.invalid:{free}", None, False),
    "no name server": ("http://silent.example:{free}", None, False),
    "a handshake that never ends": ("https://127.0.0.1:{served}", _silent, False),
    "a handshake that is reset": ("https://127.0.0.1:{served}", _resetting, False),
    "a handshake with what is no TLS": ("https://127.0.0.1:{served}", _plain, False),
    "no answer": ("http://127.0.0.1:{served}", _silent, True),
    "closed without an answer": ("http://127.0.0.1:{served}", _closing, True),
}


@pytest.mark.threat(90)
@pytest.mark.parametrize("name", FAILURES)
async def test_090_what_never_connected_was_surely_not_redeemed(
    name: str, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Whatever was sent may have been read."""
    url, serve, expected = FAILURES[name]
    if name == "no name server":
        monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", _never)
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(serve or _silent, "127.0.0.1", 0)
        stack.callback(server.close)
        ports = {
            "free": unused_tcp_port,
            "crowded": stack.enter_context(crowded()),
            "served": server.sockets[0].getsockname()[1],
        }
        client = TokenEndpoint(timeout=0.4)
        stack.push_async_callback(client.close)
        with pytest.raises(CredentialUnavailable) as caught:
            await client.send(TokenRequest("POST", url.format(**ports), (("Content-Length", "1"),), b"r"))
    assert caught.value.undecided is expected


def test_a_refresh_token_counts_only_in_a_success_that_is_one() -> None:
    """Not in an error, nor where the reply itself says that it failed."""
    rules = ResponseRules(token="/t", refresh_token="/r", success={"/ok": True})

    def found(status: int, **body: object) -> Secret | None:
        return rotated(TokenReply(status, (), json.dumps(body).encode()), rules, now_wall=0.0)

    assert found(202, ok=True, r="new") == found(202, ok=True, r="new", t="token") == Secret("new")
    assert found(202, ok=True, t="token") is None
    assert found(202, ok=False, r="new") is None
    assert found(302, ok=True, r="new") is found(500, ok=True, r="new") is None


@ANEW
async def test_108_a_server_that_is_down_for_an_hour_costs_one_login_when_it_is_back(scene: Scene) -> None:
    """Each attempt meanwhile is one request, with the pauses between them that any failure has."""
    scene.endpoint.reply, scene.endpoint.to_all, scene.endpoint.redeems = UNDECIDED["502"], True, False
    for _ in range(LIFETIME // LATER):
        assert await scene.get() == (503, "credential_unavailable")
    assert scene.endpoint.seen[:2] == ["refresh", "login"]
    assert len(scene.endpoint.seen) < 30
    scene.endpoint.reply = None
    scene.again()
    assert await scene.get() == (200, "")
    assert scene.endpoint.seen == ["login"]
    assert scene.endpoint.reuses == 0
