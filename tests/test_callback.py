"""The listener that a browser comes back to: one answer, from one place, and pages that tell nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from proxy.credentials import callback as module
from proxy.credentials.callback import CONNECTIONS_MOST, HEAD_MOST, Callback, CallbackError, listening
from proxy.grants.authorization import Attempt, Fault, InvalidCallback, read_callback
from proxy.redact import Secret
from tests.support.leaks import Artefacts, Canaries

ISSUER: Final = "https://id.example.com"


@dataclass
class Waiting:
    """A listener, and what it waits for."""

    callback: Callback
    state: str
    code: str
    artefacts: Artefacts
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def host(self) -> str:
        """As a browser writes it."""
        return f"127.0.0.1:{self.callback.port}"

    async def send(self, raw: bytes) -> bytes:
        """All that comes back to these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.callback.port)
        try:
            writer.write(raw)
            async with asyncio.timeout(5):
                answer = await reader.read()
        finally:
            writer.close()
        self.artefacts.add("page", answer)
        return answer

    async def get(self, target: str, *, method: str = "GET", host: str | None = None, more: str = "") -> bytes:
        """One proper request."""
        return await self.send(f"{method} {target} HTTP/1.1\r\nHost: {host or self.host}\r\n{more}\r\n".encode())

    @property
    def right(self) -> str:
        """The target that is waited for."""
        return f"/callback?code={self.code}&state={self.state}"

    async def code_within(self, seconds: float = 5.0) -> Secret:
        """What the login gets."""
        async with asyncio.timeout(seconds):
            return await self.callback.wait()


@pytest.fixture
async def waiting(canaries: Canaries, artefacts: Artefacts) -> AsyncIterator[Waiting]:
    """A listener that waits for an answer."""
    async with _waiting(canaries, artefacts) as one:
        yield one


@asynccontextmanager
async def _waiting(canaries: Canaries, artefacts: Artefacts) -> AsyncIterator[Waiting]:
    state, code = canaries.mint("token"), canaries.mint("token")
    made = Attempt(Secret(canaries.mint("token")), Secret(state))

    def read(query: str) -> Secret:
        return read_callback(query, made, issuer=ISSUER, promised=False)

    async with listening("/callback", read) as callback:
        yield Waiting(callback, state, code, artefacts)


def _status(answer: bytes) -> int:
    return int(answer[9:12])


async def test_the_answer_that_is_waited_for_is_taken(waiting: Waiting) -> None:
    """A page that says nothing of it, and lets nothing out."""
    answer = await waiting.get(waiting.right)
    assert await waiting.code_within() == Secret(waiting.code)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; charset=utf-8",
        b"Cache-Control: no-store",
        b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        b"Referrer-Policy: no-referrer",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
        b"Content-Length: %d" % len(body),
    ]
    assert body == b"bearer-proxy: the answer has arrived. Go back to the terminal; this page can be closed.\n"


#: Target (with {state}, {code}), method, Host (None: the right one), further fields; the status, and is it counted.
FOREIGN: Final = {
    "wrong state": ("/callback?code={code}&state=other", "GET", None, "", 400, 1),
    "missing state": ("/callback?code={code}", "GET", None, "", 400, 1),
    "two states": ("/callback?code={code}&state={state}&state={state}", "GET", None, "", 400, 1),
    "an error of somebody else": ("/callback?error=access_denied&state=other", "GET", None, "", 400, 1),
    "no query": ("/callback", "GET", None, "", 400, 1),
    "wrong host": ("/callback?code={code}&state={state}", "GET", "evil.example:{port}", "", 403, 0),
    "wrong port": ("/callback?code={code}&state={state}", "GET", "127.0.0.1:1", "", 403, 0),
    "no port": ("/callback?code={code}&state={state}", "GET", "127.0.0.1", "", 403, 0),
    "localhost": ("/callback?code={code}&state={state}", "GET", "localhost:{port}", "", 403, 0),
    "two hosts": ("/callback?code={code}&state={state}", "GET", None, "Host: evil.example\r\n", 400, 0),
    "POST": ("/callback?code={code}&state={state}", "POST", None, "Content-Length: 0\r\n", 405, 0),
    "HEAD": ("/callback?code={code}&state={state}", "HEAD", None, "", 405, 0),
    "OPTIONS": ("/callback?code={code}&state={state}", "OPTIONS", None, "Origin: https://evil.example\r\n", 405, 0),
    "wrong path": ("/callbac?code={code}&state={state}", "GET", None, "", 404, 0),
    "a slash more": ("/callback/?code={code}&state={state}", "GET", None, "", 404, 0),
    "another spelling": ("/%63allback?code={code}&state={state}", "GET", None, "", 404, 0),
    "root": ("/", "GET", None, "", 404, 0),
    "favicon": ("/favicon.ico", "GET", None, "", 404, 0),
    "absolute form": ("http://127.0.0.1/callback?code={code}&state={state}", "GET", None, "", 404, 0),
    "two lengths": ("/callback?code={code}&state={state}", "GET", None, "Content-Length: 1\r\n" * 2, 400, 0),
    "an expectation": ("/callback?code={code}&state={state}", "GET", None, "Expect: x\r\n", 400, 0),
}


@pytest.mark.threat(1, 110)
@pytest.mark.parametrize("case", FOREIGN)
async def test_a_foreign_request_changes_nothing(waiting: Waiting, case: str) -> None:
    """It is refused, and the one that is waited for is taken afterwards."""
    target, method, host, more, status, counted = FOREIGN[case]
    port = waiting.callback.port
    answer = await waiting.get(
        target.format(state=waiting.state, code=waiting.code),
        method=method,
        host=None if host is None else host.format(port=port),
        more=more,
    )
    assert (_status(answer), waiting.callback.foreign) == (status, counted)
    assert (b"\r\nAllow: GET\r\n" in answer) == (status == 405)
    assert b"Referrer-Policy: no-referrer" in answer
    assert _status(await waiting.get(waiting.right)) == 200
    assert await waiting.code_within() == Secret(waiting.code)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /callback HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * HEAD_MOST + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", 400),
        (b"A" * (4 * HEAD_MOST), 431),
    ],
    ids=["no host", "HTTP/2", "two spaces", "TLS", "folded", "NUL", "oversized", "many fields", "endless"],
)
async def test_what_is_no_proper_request_is_refused(waiting: Waiting, raw: bytes, status: int) -> None:
    """And changes nothing."""
    assert _status(await waiting.send(raw)) == status
    assert _status(await waiting.get(waiting.right)) == 200


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("error=access_denied&state={state}", Fault.DENIED),
        ("code={code}&state={state}&iss=https://evil.example", Fault.MIXED_UP),
        ("state={state}", Fault.NO_CODE),
    ],
    ids=["denied", "another server", "no code"],
)
async def test_an_answer_of_this_login_without_a_code_ends_it(waiting: Waiting, query: str, fault: Fault) -> None:
    """The page sends the person to the terminal, which says why; a code that comes later is too late."""
    answer = await waiting.get(f"/callback?{query.format(state=waiting.state, code=waiting.code)}")
    assert _status(answer) == 200
    assert b"was not completed" in answer
    with pytest.raises(InvalidCallback) as ended:
        await waiting.code_within()
    assert ended.value.fault is fault
    assert _status(await waiting.get(waiting.right)) == 410


@pytest.mark.threat(110)
async def test_the_first_of_two_answers_counts(waiting: Waiting) -> None:
    """A second one with the same state is too late, whatever it brings."""
    assert _status(await waiting.get(waiting.right)) == 200
    assert _status(await waiting.get(waiting.right.replace(waiting.code, "other"))) == 410
    assert await waiting.code_within() == Secret(waiting.code)


async def test_afterwards_nobody_listens(canaries: Canaries, artefacts: Artefacts) -> None:
    """The port is closed as soon as the login has its answer."""
    async with _waiting(canaries, artefacts) as waiting:
        await waiting.get(waiting.right)
    with pytest.raises(ConnectionRefusedError):
        await waiting.get(waiting.right)


@pytest.mark.threat(110)
async def test_it_listens_on_this_machine_alone(waiting: Waiting) -> None:
    """Not on another address of this machine, IPv6 included."""
    with pytest.raises(OSError):  # noqa: PT011  refused, or no IPv6 here
        await asyncio.open_connection("::1", waiting.callback.port)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", waiting.callback.port)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_port_that_is_taken_is_said_to_be(taken: int) -> None:
    """What is registered at the server cannot be changed in silence."""
    with pytest.raises(CallbackError, match=f"127.0.0.1:{taken} cannot be listened on: .*redirect_port"):
        async with listening("/callback", Secret, port=taken):
            pass


async def test_who_connects_and_says_nothing_keeps_nobody_out(waiting: Waiting) -> None:
    """Not the browser: the oldest connection gives way to it; and what is left ends with the login."""
    silent = [await asyncio.open_connection("127.0.0.1", waiting.callback.port) for _ in range(CONNECTIONS_MOST)]
    assert _status(await waiting.get(waiting.right)) == 200
    assert await waiting.code_within() == Secret(waiting.code)
    async with asyncio.timeout(5):
        assert await silent[0][0].read() == b""
    for _, writer in silent:
        writer.close()


async def test_however_many_connect_at_once_a_browser_is_heard(waiting: Waiting) -> None:
    """Also those that are there before this process has looked."""
    silent = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", waiting.callback.port) for _ in range(3 * CONNECTIONS_MOST))
    )
    assert _status(await waiting.get(waiting.right)) == 200
    assert len(waiting.callback._open) <= CONNECTIONS_MOST
    for _, writer in silent:
        writer.close()


@pytest.mark.patches
async def test_a_head_that_does_not_end_is_given_up(
    canaries: Canaries, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a connection for ever."""
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    async with _waiting(canaries, artefacts) as waiting:
        assert await waiting.send(b"GET /callback HTTP/1.1\r\n") == b""


@pytest.mark.patches
async def test_a_silent_connection_does_not_hold_up_the_end(
    canaries: Canaries, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser opens connections ahead of need."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    async with _waiting(canaries, artefacts) as waiting:
        reader, writer = await asyncio.open_connection("127.0.0.1", waiting.callback.port)
        assert _status(await waiting.get("/")) == 404
    assert await reader.read() == b""
    writer.close()
