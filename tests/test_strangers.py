"""Somebody else's connection: 403 for whatever comes over it, a line in the log, and nothing beyond the listener.

Each of these tests has a proxy of its own, in front of a vendor that counts log-ins and requests.
"""

import asyncio
import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from proxy.demo.teletracker import TeleTracker
from proxy.errors import ConfigError
from proxy.listener.connection import ClientConnection
from proxy.listener.request import Request
from proxy.process import ADMIN_PLACES
from proxy.server import ADMIN_SECONDS
from tests.support.client import connected
from tests.support.harness import StartProxy
from tests.support.instances import ROOT
from tests.support.leaks import Canaries
from tests.support.listening import answer_to, listening
from tests.support.namespaces import Network, network, why_not
from tests.support.raw import head
from tests.support.routes import Keyed
from tests.support.sharing import Starting
from tests.support.site import site
from tests.support.strangers import GROUP, NOBODY, holding, needs_root, passable, stranger
from tests.support.unguarded import switch_off
from tests.support.upstreams import on_each_loop, reset, turns
from tests.support.vendors import Vendor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="this machine does not tell who connects")

ME: Final = os.geteuid()
#: A user that no test is.
OTHER: Final = 4242
ONLY_OTHERS: Final = {"guard": {"peers": {"uids": [OTHER]}}}
GET: Final = head("GET", "/calls?a=b", "Connection: close")


@pytest.fixture
def closed(tracker: Vendor[TeleTracker]) -> dict[str, Any]:
    """In front of a vendor that wants a login; the tests themselves are not among those who may connect."""
    return {**tracker.config, **ONLY_OTHERS}


def untouched(tracker: Vendor[TeleTracker]) -> bool:
    """Did the vendor see nothing at all, not even a login?"""
    return not tracker.double.journal and not tracker.double.token_requests


WHATEVER: Final = {
    "GET": head("GET", "/calls"),
    "GET of HTTP/1.0": head("GET", "/calls", version="1.0"),
    "HEAD": head("HEAD", "/calls"),
    "a body": head("POST", "/calls", "Content-Length: 5") + b"hello",
    "half a body": head("POST", "/calls", "Content-Length: 5") + b"he",
    "an endless body": head("POST", "/calls", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n",
    "Expect": head("POST", "/calls", "Content-Length: 5", "Expect: 100-continue"),
    "a WebSocket": head(
        "GET", "/calls", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "a preflight": head(
        "OPTIONS", "/calls", "Origin: https://app.example", "Access-Control-Request-Method: GET"
    ),
    "a foreign page": head("GET", "/calls", "Origin: http://evil.example"),
    "a foreign Host": b"GET /calls HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an absolute form": head("GET", "http://localhost/calls"),
    "CONNECT": head("CONNECT", "localhost:443"),
    "two at once": head("GET", "/calls") * 2,
}  # fmt: skip


@pytest.mark.threat(13)
@pytest.mark.parametrize("wire", WHATEVER.values(), ids=WHATEVER)
async def test_013_whatever_somebody_else_sends_is_refused(
    proxying: StartProxy, closed: dict[str, Any], tracker: Vendor[TeleTracker], wire: bytes
) -> None:
    """Before anything else is looked at, once, and then the connection ends."""
    async with proxying(closed, environ=tracker.environ) as proxy, proxy.connect() as client:
        client.send(wire)
        answer = await client.answer("HEAD" if wire.startswith(b"HEAD") else "GET")
        assert (answer.status, answer["content-type"]) == (403, "application/problem+json")
        assert answer["proxy-status"] == 'bearer-proxy; details="peer_not_allowed"'
        assert answer["connection"] == "close"
        assert wire.startswith(b"HEAD") or answer.code == "peer_not_allowed"
        assert not answer.interim
        assert await client.reader.read() == b""
        [line] = proxy.lines()
        assert (line["status"], line["error"], line["client"]) == (403, "peer_not_allowed", "127.0.0.1")
        assert line["path"] == ("/calls" if b" /calls " in wire else "")
        [told] = proxy.lines("peer_refused")
        assert (told["uid"], told["level"]) == (ME, "warning")
        counted = (await proxy.admin("GET", "/metrics")).body
        assert b'guard_denials_total{code="peer_not_allowed"} 1' in counted
        assert untouched(tracker)


async def test_the_line_of_a_refusal_shows_names_of_parameters_and_no_values(
    proxying: StartProxy, closed: dict[str, Any], tracker: Vendor[TeleTracker], canaries: Canaries
) -> None:
    """Somebody else's secrets are secrets."""
    secret = canaries.mint("token")
    async with proxying(closed, environ=tracker.environ) as proxy:
        assert (await proxy.ask("GET", f"/x?access_token={secret}")).code == "peer_not_allowed"
        [line] = proxy.lines()
        assert (line["path"], line["query_keys"]) == ("/x", ["access_token"])


async def test_what_is_malformed_is_told_so_first(
    proxying: StartProxy, closed: dict[str, Any], tracker: Vendor[TeleTracker]
) -> None:
    """Nobody knows where the next request would begin."""
    async with proxying(closed, environ=tracker.environ) as proxy, proxy.connect() as client:
        client.send(b"GET /\r\n\r\n")
        assert (await client.answer()).code == "bad_request"


async def test_each_user_is_named_once_in_the_log(
    proxying: StartProxy, closed: dict[str, Any], tracker: Vendor[TeleTracker]
) -> None:
    """With the mend; the access log has a line for each request."""
    async with proxying(closed, environ=tracker.environ) as proxy:
        for _ in range(3):
            assert (await proxy.ask("GET", "/")).code == "peer_not_allowed"
        [told] = proxy.lines("peer_refused")
        assert told["mend"] == f"add {ME} to guard.peers.uids, or set guard.client_key"
        assert len(proxy.lines()) == 3


@pytest.mark.parametrize("guard", [{}, {"peers": {"uids": ["self"]}}, {"peers": {"uids": [OTHER, ME]}}])
async def test_whoever_may_connect_is_served(
    proxying: StartProxy, tracker: Vendor[TeleTracker], guard: dict[str, Any]
) -> None:
    """The proxy's own user by default."""
    async with proxying({**tracker.config, "guard": guard}, environ=tracker.environ) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert proxy.lines("peer_refused") == []


async def test_the_admin_listener_asks_for_its_key_alone(
    proxying: StartProxy, closed: dict[str, Any], tracker: Vendor[TeleTracker]
) -> None:
    """Probes and scrapers are other users, as a rule."""
    async with proxying(closed, environ=tracker.environ) as proxy:
        for path in ("/healthz", "/metrics", "/api/credentials"):
            assert (await proxy.admin("GET", path)).status == 200


@needs_root
@pytest.mark.threat(14)
async def test_014_who_closes_early_is_nobody_even_where_root_may_connect(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """The kernel then shows uid 0, and the request is there in full."""
    config = {**tracker.config, "guard": {"peers": {"uids": [0, "self"]}}}
    async with proxying(config, environ=tracker.environ) as proxy:
        # The program waits in this process, so it is over before the connection is accepted.
        assert stranger(proxy.url, head("DELETE", "/calls/1"), "leave").returncode == 0
        while not proxy.lines():
            await turns(1)
        [line] = proxy.lines()
        assert (line["method"], line["error"]) == ("DELETE", "peer_not_allowed")
        assert [told["uid"] for told in proxy.lines("peer_refused")] == ["unknown"]
        assert untouched(tracker)


@pytest.mark.threat(1)
@on_each_loop
async def test_001_a_connection_that_is_reset_before_it_is_accepted_is_none_of_a_unix_socket() -> None:
    """The kernel does not know its address any more, and Host must be asked for all the same."""
    seen = asyncio.Queue[Request]()

    async def handler(request: Request, connection: ClientConnection) -> None:
        seen.put_nowait(request)
        answer_to(request, connection).document(200, (), b"")

    async with listening(handler) as listener:
        parts = urlsplit(listener.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            client.sendall(head("GET", "/"))
            reset(client)
        async with asyncio.timeout(20):
            request = await seen.get()
        assert request.port is not None


# -- Unix sockets


@pytest.mark.threat(18)
@pytest.mark.parametrize(
    ("mode", "uids", "status"),
    [("0600", None, 200), ("0600", [OTHER], 403), ("0660", None, 200), ("0660", [OTHER], 403)],
)
async def test_018_the_peer_of_a_unix_socket_counts_unless_its_mode_was_widened(
    proxying: StartProxy, tracker: Vendor[TeleTracker], *, mode: str, uids: Any, status: int
) -> None:
    """Who widens it says by that who may connect; a list of users holds for every socket."""
    with passable() as folder:
        listen = {"unix": str(folder / "p.sock"), "mode": mode}
        config = {**tracker.config, "listen": listen, "guard": {"peers": {"uids": uids}}}
        async with proxying(config, environ=tracker.environ) as proxy:
            assert (await proxy.ask("GET", "/calls")).status == status
            assert proxy.lines()[0]["client"] == "unix"


async def from_elsewhere(url: str, *, groups: tuple[int, ...] = ()) -> tuple[int, bytes]:
    """Status and output of another user's try, while the proxy goes on."""
    ended = await asyncio.to_thread(stranger, url, GET, groups=groups)
    return ended.returncode, ended.stdout


@needs_root
@pytest.mark.threat(16, 18, 20)
async def test_020_a_socket_for_a_group_is_for_those_in_it(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """The sidecar of another user."""
    with passable() as folder:
        listen = {"unix": str(folder / "p.sock"), "mode": "0660", "group": GROUP}
        async with proxying({**tracker.config, "listen": listen}, environ=tracker.environ) as proxy:
            assert (await from_elsewhere(proxy.url))[0] == 13  # EACCES
            status, answer = await from_elsewhere(proxy.url, groups=(GROUP,))
            assert (status, answer[:12]) == (0, b"HTTP/1.1 200")


@needs_root
@pytest.mark.threat(16, 18)
async def test_016_a_private_socket_is_ours_even_where_somebody_opens_its_mode(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """First the file's mode keeps others out; behind it, the kernel's word."""
    with passable() as folder:
        path = folder / "p.sock"
        async with proxying({**tracker.config, "listen": f"unix:{path}"}, environ=tracker.environ) as proxy:
            assert (await from_elsewhere(proxy.url))[0] == 13  # EACCES
            path.chmod(0o666)
            status, answer = await from_elsewhere(proxy.url)
            assert (status, answer[:12]) == (0, b"HTTP/1.1 403")
            assert proxy.lines("peer_refused")[0]["uid"] == NOBODY
            assert untouched(tracker)


# -- everything, by somebody else in truth

_WS: Final = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
_PAGE: Final = "Origin: http://evil.example"
#: The end of a WebSocket (RFC 6455 section 5.5.1).
_CLOSE: Final = b"\x88\x80\0\0\0\0"


def _wire(method: str, *lines: str, host: str = "localhost", body: bytes = b"", to: str = "") -> bytes:
    """A request whose path says which it is. The last on its connection, unless that is to be a tunnel."""
    fields = [f"Host: {host}", *lines]
    fields += [f"Content-Length: {len(body)}"] * bool(body)
    fields += [f"Connection: {'Upgrade' if set(_WS) <= set(lines) else 'close'}"]
    return "\r\n".join([f"{method} /{to or method} HTTP/1.1", *fields, "", ""]).encode() + body


#: By the path of each.
TRIED: Final = {
    "GET": _wire("GET"),
    "HEAD": _wire("HEAD"),
    "POST": _wire("POST", body=b"hello"),
    "PUT": _wire("PUT", "Content-Type: application/json", body=b"{}"),
    "DELETE": _wire("DELETE"),
    "websocket": _wire("GET", *_WS, to="websocket") + _CLOSE,
    "fetch": _wire("GET", _PAGE, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", to="fetch"),
    "form": _wire("POST", _PAGE, "Content-Type: application/x-www-form-urlencoded", to="form", body=b"a=b"),
    "img": _wire("GET", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image", to="img"),
    "page": _wire("GET", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", to="page"),
    "pages-websocket": _wire("GET", _PAGE, *_WS, to="pages-websocket") + _CLOSE,
    "rebound": _wire("GET", host="evil.example", to="rebound"),
}


async def tried_by_another(
    url: str, inside: Sequence[str] = (), names: Iterable[str] = TRIED, *, uid: int = NOBODY, key: str = ""
) -> list[int]:
    """Try each, at once; the statuses of the programs."""
    field = f"\r\nX-Proxy-Key: {key}\r\n".encode() if key else b"\r\n"
    wires = [wire.replace(b"\r\n", field, 1) for wire in (TRIED[name] for name in names)]
    tries = (asyncio.to_thread(stranger, url, wire, uid=uid, inside=inside) for wire in wires)
    return [ended.returncode for ended in await asyncio.gather(*tries)]


def outcomes(lines: list[dict[str, Any]]) -> dict[str, tuple[int, str | None]]:
    """Status and code of each; what stands behind a handshake that was refused is no request of theirs."""
    return {line["path"][1:]: (line["status"], line["error"]) for line in lines if line["path"]}


@needs_root
@pytest.mark.patches
@pytest.mark.threat(13)
async def test_013_another_user_reaches_nothing_by_anything(
    proxying: StartProxy, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing but who he is stands in his way: where everybody may connect, all of it gets through."""
    switch_off(monkeypatch)
    keyed = Keyed(canaries.mint("token"))
    async with site() as upstream:
        passed = {name: (101 if name.endswith("websocket") else 200, None) for name in TRIED}
        for uids, expected in ((["self"], dict.fromkeys(TRIED, (403, "peer_not_allowed"))), ("any", passed)):
            config = keyed.config(upstream.url, top={"guard": {"peers": {"uids": uids}}})
            async with proxying(config, environ=keyed.environ) as proxy:
                assert await tried_by_another(proxy.url) == [0] * len(TRIED)
                await proxy.told(lambda lines: len(outcomes(lines)) == len(TRIED))
                assert outcomes(proxy.lines()) == expected
                assert sorted(it.path[1:] for it in upstream.seen) == sorted(
                    name for name, (_, error) in expected.items() if not error
                )


@pytest.fixture
def neighbours() -> Iterator[Network]:
    """Two machines on a network; skips where there can be none."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with network(2) as made:
        yield made


#: What is wrong with some of them besides.
WITHOUT_KEY: Final = {
    "fetch": (403, "origin_not_allowed"),
    "form": (403, "origin_not_allowed"),
    "img": (403, "origin_not_allowed"),
    "page": (403, "origin_not_allowed"),
    "pages-websocket": (403, "origin_not_allowed"),
    "rebound": (403, "host_not_allowed"),
}
OPEN: Final = {"hosts": ["evil.example"], "origins": ["http://evil.example"], "browser": True}


@needs_root
@pytest.mark.slow
@pytest.mark.threat(7, 13, 20)
async def test_020_another_network_reaches_nothing_by_anything(
    starting: Starting, tracker: Vendor[TeleTracker], neighbours: Network, canaries: Canaries
) -> None:
    """Loopback is not there at all; elsewhere it needs the key, and where only users of ours may come, none helps.

    With the key, and where everybody may connect, all of it gets through.
    """
    here, there = neighbours.machines
    key = canaries.mint("key")
    guard = {"client_key": {"env": "CLIENT_KEY"}}
    log = {"format": "json", "access": True}
    async with neighbours.serving(tracker.double) as url:
        credential = {**tracker.credential, "base_url": url, "insecure_http": True}
        config = {"upstream": url, "insecure_http": True, "credential": credential, "log": log}
        async with starting({**config, "listen": [f"{here.address}:0", "127.0.0.1:0"]}) as instances:

            async def tried(
                guard: dict[str, Any], key: str = "", *, passes: bool = False
            ) -> dict[str, tuple[int, str | None]]:
                instance = await instances.start(*here.inside, also={"guard": guard}, CLIENT_KEY=key or "k" * 16)
                assert await tried_by_another(instance.url, there.inside, uid=ME, key=key) == [0] * len(TRIED)
                for count in itertools.count(1):
                    found = outcomes(instance.all("request"))
                    left = [name for name in TRIED if name not in found]
                    if not left:
                        return found
                    if passes:
                        await instance.event("request", len(instance.all("request")) + 1)
                        continue
                    # Of those that are refused ten a second have a line; all that have one stand before this event.
                    instance.process.send_signal(signal.SIGHUP)
                    await instance.event("reloaded", count)
                    await tried_by_another(instance.url, there.inside, left, uid=ME, key=key)
                raise AssertionError

            refused = dict.fromkeys(TRIED, (401, "client_key_required"))
            assert await tried(guard) == {**refused, **WITHOUT_KEY}
            refused = dict.fromkeys(TRIED, (403, "peer_not_allowed"))
            assert await tried({**guard, **OPEN, "peers": {"uids": ["self"]}}, key) == refused
            assert untouched(tracker)
            passed = await tried({**guard, **OPEN}, key, passes=True)
            # No setting admits what has no Origin and is of another site.
            assert {name for name, (_, error) in passed.items() if error} == {"img"}
            assert len([entry for entry in tracker.double.journal if entry.grant is None]) == len(TRIED) - 1
            # Where only this machine's own network leads to.
            loopback = instances.running[-1].all("listening")[1]["url"]
            for host in ("127.0.0.1", here.address):
                nowhere = loopback.replace("127.0.0.1", host)
                ended = await asyncio.to_thread(stranger, nowhere, TRIED["GET"], uid=ME, inside=there.inside)
                assert ended.returncode == errno.ECONNREFUSED


# -- the program


@needs_root
@pytest.mark.threat(13)
async def test_013_another_user_gets_nothing_from_the_program(
    starting: Starting, tracker: Vendor[TeleTracker]
) -> None:
    """403 for him, the line and the event for us; no login, no request upstream. Ours is served."""
    log = {"log": {"format": "json", "access": True}}
    async with starting({**tracker.config, **log}) as instances:
        instance = await instances.start()
        status, answer = await from_elsewhere(instance.url)
        assert (status, answer[:12]) == (0, b"HTTP/1.1 403")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "peer_not_allowed"
        line = await instance.event("request")
        assert (line["status"], line["error"], line["path"]) == (403, "peer_not_allowed", "/calls")
        assert (await instance.event("peer_refused"))["uid"] == NOBODY
        assert untouched(tracker)
        assert (await instance.get()).status == 200
        assert tracker.double.token_requests == {"login": 1}


@needs_root
@pytest.mark.threat(14)
async def test_014_who_closes_early_gets_nothing_from_the_program(
    starting: Starting, tracker: Vendor[TeleTracker]
) -> None:
    """It stands still while he sends and goes, and root may connect."""
    config = {**tracker.config, "guard": {"peers": {"uids": [0]}}, "log": {"format": "json", "access": True}}
    async with starting(config) as instances:
        instance = await instances.start()
        await instance.stop()
        gone = await asyncio.to_thread(stranger, instance.url, head("DELETE", "/calls/1"), "leave")
        assert gone.returncode == 0
        instance.go_on()
        line = await instance.event("request")
        assert (line["method"], line["error"]) == ("DELETE", "peer_not_allowed")
        assert untouched(tracker)


@needs_root
@pytest.mark.threat(13)
@pytest.mark.parametrize(("uids", "ours"), [([NOBODY], 403), ("any", 200)])
async def test_013_a_listed_user_and_everybody_else_where_that_is_written(
    starting: Starting, tracker: Vendor[TeleTracker], uids: Any, ours: int
) -> None:
    """By number, and by `any`."""
    async with starting({**tracker.config, "guard": {"peers": {"uids": uids}}}) as instances:
        instance = await instances.start()
        assert (await from_elsewhere(instance.url))[1][:12] == b"HTTP/1.1 200"
        assert (await instance.get()).status == ours


# -- the admin listener


@needs_root
@pytest.mark.threat(13, 115)
async def test_115_another_user_takes_no_place_of_the_owners_at_the_admin_listener(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """Sixty connections of his end none of ours; an orchestrator's probe, which comes as he does, is answered."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy, AsyncExitStack() as stack:
        url = proxy.instance.admin_url
        assert url is not None
        for places in (proxy.instance._admin._places, proxy.instance._admin._strangers):
            places._yield_seconds = 0.0  # however fast this machine is
        ours = [await stack.enter_async_context(connected(url, proxy.artefacts)) for _ in range(ADMIN_PLACES)]
        with holding(url):
            for each in ours:
                assert (await each.ask("GET", "/healthz")).status == 200
            probe = head("GET", "/healthz", "Connection: close")
            asked = await asyncio.to_thread(stranger, url, probe)
            assert asked.stdout.startswith(b"HTTP/1.1 200")
        assert (await proxy.admin("GET", "/api/credentials")).status == 200
        assert not proxy.lines("peer_refused")


@pytest.mark.threat(112)
async def test_112_who_says_nothing_to_the_admin_listener_goes_soon(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """What it answers is asked for at once; shorter bounds of the configuration hold there, too."""
    async with proxying({**tracker.config, "limits": {"header_time": 3}}, environ=tracker.environ) as proxy:
        server = proxy.instance._admin
        assert (server.idle_seconds, server.header_seconds) == (ADMIN_SECONDS, 3)


# -- the start


async def test_a_start_that_cannot_keep_others_out_fails_where_it_must(
    proxying: StartProxy, tracker: Vendor[TeleTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a list of users; nothing stays open. By default it warns, and listens."""
    monkeypatch.setattr("proxy.peers._way_to_ask", lambda _diag: None)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    listen = {"listen": f"127.0.0.1:{port}"}
    with pytest.raises(ConfigError, match="this machine does not tell who connects"):
        async with proxying({**tracker.config, **ONLY_OTHERS, **listen}, environ=tracker.environ):
            pytest.fail("it started")
    async with proxying({**tracker.config, **listen}, environ=tracker.environ) as proxy:
        [told] = proxy.lines("peers_unknown")
        assert told["mend"] == "set guard.client_key, or listen on unix:/path"
        assert (await proxy.ask("GET", "/calls")).status == 200


def test_the_command_says_in_a_sentence_that_it_cannot_keep_others_out(tmp_path: Path) -> None:
    """Status 2, as for anything that only another configuration mends."""
    path = tmp_path / "c.yaml"
    path.write_text("listen: 127.0.0.1:0\nupstream: http://localhost:9\nguard: {peers: {uids: [self]}}\n")
    program = (
        "import sys; from proxy import peers; peers._way_to_ask = lambda _diag: None\n"
        f"from proxy.__main__ import main; sys.argv[1:] = ['run', '-c', {str(path)!r}]; main()"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "guard.peers.uids: this machine does not tell who connects: write uids: any, and set" in ended.stderr
    assert "Traceback" not in ended.stderr
