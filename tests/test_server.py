"""An instance begins whole or not at all, and ends within its time."""

import asyncio
import socket
import struct
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla_tokens import sign
from proxy.errors import ConfigError
from proxy.sockets import BACKLOG, ListenError
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, StartProxy
from tests.support.vendors import Vendor
from tests.support.waiting import until

GET = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def taken() -> socket.socket:
    """A listening socket of somebody else."""
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    return other


@pytest.mark.threat(19)
async def test_019_an_address_that_is_taken_stops_the_start_and_frees_the_others(
    proxying: StartProxy, taken: socket.socket
) -> None:
    """All addresses or none, and never another port silently."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    config = {
        "listen": [f"127.0.0.1:{free}", f"127.0.0.1:{taken.getsockname()[1]}"],
        "upstream": "http://127.0.0.1:9",
    }
    with pytest.raises(ListenError, match="another process listens there"):
        async with proxying(config):
            pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))
    taken.close()


async def test_the_default_admin_port_gives_way_where_it_is_taken(proxying: StartProxy) -> None:
    """Two proxies on one machine, neither says where its admin listener is."""
    config = {"upstream": "http://127.0.0.1:9", "admin": {}}
    async with proxying(config) as one, proxying(config) as other:
        assert one.instance.admin_url != other.instance.admin_url
        assert (await other.admin("GET", "/healthz")).status == 200


@pytest.mark.parametrize(
    "way",
    [
        {"upstream": "http://localhost:8081"},
        {"upstream": "https://api.example.com", "via": "http://127.0.0.1:8081"},
    ],
    ids=["upstream", "outbound proxy"],
)
async def test_the_default_admin_port_is_left_to_whom_a_route_leads_to(
    proxying: StartProxy, way: dict[str, str]
) -> None:
    """No route leads to the admin listener, nor after a reload, and a service that starts later has its port."""
    config = {**way, "admin": {}}
    async with proxying(config) as proxy:
        assert proxy.instance.admin_url is not None
        assert not proxy.instance.admin_url.endswith(":8081")
    async with proxying({"upstream": "http://127.0.0.1:9", "admin": {}}) as proxy:
        with pytest.raises(ConfigError, match="admin listener's port: this cannot change"):
            await proxy.reload(config)


async def test_an_admin_port_that_was_chosen_does_not_give_way(proxying: StartProxy, taken: socket.socket) -> None:
    """Somebody will look for it there."""
    config = {"upstream": "http://127.0.0.1:9", "admin": {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}}
    with pytest.raises(ListenError):
        async with proxying(config):
            pass
    taken.close()


async def test_the_admin_listener_can_be_off(proxying: StartProxy) -> None:
    """`admin: {listen: null}`."""
    async with proxying({"upstream": "http://127.0.0.1:9", "admin": {"listen": None}}) as proxy:
        assert proxy.instance.admin_url is None


@pytest.mark.threat(117)
@pytest.mark.skipif(sys.platform != "linux", reason="this machine does not tell how many may wait")
async def test_117_so_many_may_wait_to_be_taken_as_was_asked_for(proxying: StartProxy) -> None:
    """At every door; the loop's own number would be a hundred. The kernel may allow fewer."""
    async with proxying({"upstream": "http://127.0.0.1:9"}) as proxy:
        allowed = int(Path("/proc/sys/net/core/somaxconn").read_text("ascii"))
        doors = proxy.instance._sockets
        assert len(doors) == 2
        for door in doors:
            info = door.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            # Of a listening socket tcpi_sacked is the length of its queue (tcp_get_info, net/ipv4/tcp.c).
            assert struct.unpack_from("=8x6I", info)[5] == min(BACKLOG, allowed)


@pytest.mark.threat(122)
async def test_122_a_request_in_flight_is_finished_and_new_connections_are_not_taken(proxying: StartProxy) -> None:
    """The answer says that the connection ends with it."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response(text="done")

    async with api(slow) as upstream, proxying({"upstream": upstream.url}) as proxy:
        async with proxy.connect() as client:
            client.send(GET)
            await arrived.wait()
            draining = asyncio.create_task(proxy.instance.drain())
            await until(lambda: proxy.lines("draining"))
            with pytest.raises(ConnectionError):
                await proxy.ask("GET", "/")
            go_on.set()
            answer = await client.answer()
            assert (answer.status, answer.body, answer["connection"]) == (200, b"done", "close")
        await draining
        assert proxy.lines("stopped")


@pytest.mark.threat(122)
async def test_122_a_connection_that_nobody_has_taken_yet_is_answered(proxying: StartProxy) -> None:
    """The client has sent its request when the door closes."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy:
        # Blocking: the proxy, in this thread, sees nothing of it before it drains.
        client = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port))
        client.sendall(GET)

        def read() -> bytes:
            with client, client.makefile("rb") as answer:
                return answer.read()

        reading = asyncio.get_running_loop().run_in_executor(None, read)
        await proxy.instance.drain()
        assert (await reading).endswith(b"Connection: close\r\n\r\nfine")


@pytest.mark.threat(122)
async def test_122_a_hung_upstream_does_not_keep_it_from_ending(proxying: StartProxy) -> None:
    """After `limits.drain` the request is cut, visibly."""
    arrived = asyncio.Event()

    async def never(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with api(never) as upstream:
        config = {"upstream": upstream.url, "limits": {"drain": "100ms"}}
        async with proxying(config) as proxy, proxy.connect() as client:
            client.send(GET)
            await arrived.wait()
            async with asyncio.timeout(10):
                await proxy.instance.drain()
            assert await client.at_end()
            assert [line["error"] for line in proxy.lines()] == ["drain_timeout"]


@pytest.mark.threat(111)
async def test_111_a_token_request_in_flight_is_waited_for_on_shutdown(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The client is gone, the proxy is told to end; the vendor's answer is still taken in."""
    tracker.double.set(token_endpoint="slow")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        async with proxy.connect() as client:
            client.send(GET)
            await tracker.double.holding()
        draining = asyncio.create_task(proxy.instance.drain())
        await until(lambda: proxy.lines("draining"))
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        await draining
        assert [line["generation"] for line in proxy.lines("token_refreshed")] == [1]


async def test_the_file_of_a_unix_socket_goes_with_the_instance(proxying: StartProxy, tmp_path: Path) -> None:
    """The next start finds nothing stale."""
    path = tmp_path / "p.sock"
    async with proxying({"upstream": "http://127.0.0.1:9", "listen": f"unix:{path}"}) as proxy:
        assert proxy.url == f"unix:{path}"
        assert path.is_socket()
    assert not path.exists()


async def test_a_token_that_ends_soon_is_spoken_of_at_the_start(proxying: StartProxy, clock: HeldClock) -> None:
    """A personal access token that tells its own expiry (WIRE: `va.` tokens, third part)."""
    token = sign(bytes(24), int(clock.wall()) + 10 * 86400, "a-secret-that-is-long-enough-for-it")
    config = {"upstream": "http://127.0.0.1:9", "credential": {"preset": "vanilla", "token": {"env": "T"}}}
    async with proxying(config, environ={"T": token}, clock=clock) as proxy:
        [line] = proxy.lines("token_expires_soon")
        assert (line["credential"], line["days"]) == ("default", 10.0)


async def test_122_an_upload_in_flight_is_finished_too(proxying: StartProxy) -> None:
    """The rest of its body comes while the instance drains."""
    async with api() as upstream, proxying({"upstream": upstream.url}) as proxy, proxy.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
        await until(lambda: proxy.instance.is_busy)
        draining = asyncio.create_task(proxy.instance.drain())
        await until(lambda: proxy.lines("draining"))
        client.send(b"def")
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"fine")
        client.writer.close()
        await draining
    assert [seen.body for seen in upstream.seen] == [b"abcdef"]


async def test_a_fixed_token_that_is_over_is_not_ready(proxying: StartProxy, clock: HeldClock) -> None:
    """Where the token itself tells its end; `/readyz` says which credential."""
    token = sign(bytes(24), int(clock.wall()) - 86400, "a-secret-that-is-long-enough-for-it")
    config = {"upstream": "http://127.0.0.1:9", "credential": {"preset": "vanilla", "token": {"env": "T"}}}
    async with proxying(config, environ={"T": token}, clock=clock) as proxy:
        ready = await proxy.admin("GET", "/readyz")
        assert ready.status == 503
        assert "'default' has expired" in ready.json()["credentials"]["default"]
        assert proxy.lines("token_expired")


async def test_a_fixed_token_that_one_path_called_bad_is_ready_all_the_same(proxying: StartProxy) -> None:
    """Whoever may ask for a path must not take the proxy out of service for all others: they get their answers."""

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.target == "/fine":
            return web.Response(text="fine")
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    async with api(answer) as upstream:
        config = {"upstream": upstream.url, "credential": {"type": "static", "token": {"env": "T"}}}
        async with proxying(config, environ={"T": "a-token-of-twenty-ch"}) as proxy:
            assert (await proxy.ask("GET", "/other")).status == 401
            [report] = proxy.instance.reports()
            assert "an upstream said" in str(report.last_error)
            assert (await proxy.admin("GET", "/readyz")).status == 200
            assert (await proxy.ask("GET", "/fine")).body == b"fine"
            assert b'bearer_proxy_refusals_total{route="default"} 1' in (await proxy.admin("GET", "/metrics")).body
