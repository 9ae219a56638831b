"""The end of the program while clients are at work: it is told to leave, and no request of theirs fails."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from proxy.demo.serving import serving
from tests.support.api import Seen, api
from tests.support.client import Answer, connected
from tests.support.instances import Fleet, Running, fleet
from tests.support.leaks import Artefacts, Canaries
from tests.support.longer import TIMES
from tests.support.upstreams import turns

pytestmark = [pytest.mark.slow, pytest.mark.threat(122)]

#: How many requests are in flight when the program is told to leave, and how long each takes; seconds.
REQUESTS: Final = 50
SECONDS: Final = 3.0
#: What Compose and Kubernetes are told to wait before they kill (docs/deployment.md).
GRACE: Final = 30.0


async def by_signal(instances: Fleet) -> None:
    """As a supervisor does."""
    instances.running[0].process.send_signal(signal.SIGTERM)


async def by_quit(instances: Fleet) -> None:
    """As a Job does."""
    assert (await office(instances, "POST", "/quit")).status == 202


async def office(instances: Fleet, method: str, path: str) -> Answer:
    """What the admin listener answers to whoever has read the run file."""
    [runfile] = instances.folder.glob("instance-1/bearer-proxy/*.json")
    running = json.loads(runfile.read_text())
    async with connected(running["admin_url"], instances.artefacts) as client:
        return await client.ask(method, path, [("Authorization", f"Bearer {running['admin_key']}")])


ways: Final = pytest.mark.parametrize("leave", [by_signal, by_quit])
Leave = Callable[[Fleet], Awaitable[None]]


@pytest.fixture
async def instances(tmp_path: Path, artefacts: Artefacts) -> AsyncIterator[Fleet]:
    """Where instances are started; their configuration comes with the start."""
    async with fleet(tmp_path, {"log": {"format": "json"}}, {}, artefacts) as made:
        yield made


async def gone(running: Running) -> list[dict[str, Any]]:
    """Wait until it has left, with 0; gives the log lines of its requests."""
    async with asyncio.timeout(GRACE):
        assert await running.process.wait() == 0
    await running.event("stopped")
    return running.all("request")


async def until_refused(running: Running) -> list[int]:
    """Connect until nobody takes it: the door closes just after the log says so. Gives what was answered before."""
    answered: list[int] = []
    async with asyncio.timeout(GRACE):
        while True:
            try:
                answered.append((await running.get()).status)
            except ConnectionRefusedError:
                return answered


@ways
@pytest.mark.parametrize("_time", range(TIMES))
async def test_122_fifty_requests_of_three_seconds_are_finished(instances: Fleet, leave: Leave, _time: int) -> None:
    """Fetches and uploads, on new connections and on used ones; whoever comes later is refused."""
    arrived = asyncio.Semaphore(0)

    async def slow(seen: Seen) -> web.StreamResponse:
        if not seen.target.startswith("/slow"):
            return web.Response(text="quick")
        arrived.release()
        await asyncio.sleep(SECONDS)
        return web.Response(text=seen.target)

    async def ask(number: int, running: Running) -> Answer:
        async with connected(running.url, running.artefacts) as client:
            if number % 2:
                assert (await client.ask("GET")).status == 200
            body = bytes(100_000) if number % 5 == 0 else None
            return await client.ask("GET" if body is None else "POST", f"/slow/{number}", (), body)

    async with api(slow) as upstream:
        running = await instances.start(also={"upstream": upstream.url})
        asking = [asyncio.create_task(ask(number, running)) for number in range(REQUESTS)]
        async with asyncio.timeout(GRACE):
            for _ in asking:
                await arrived.acquire()
        await leave(instances)
        await running.event("draining")
        late = await until_refused(running)
        answers = await asyncio.gather(*asking)
        lines = await gone(running)
    for number, answer in enumerate(answers):
        assert (answer.status, answer.body, answer.complete) == (200, f"/slow/{number}".encode(), True)
        assert answer["connection"] == "close"
    assert set(late) <= {200}
    assert Counter(line["error"] for line in lines) == {None: len(upstream.seen)}


@dataclass
class Busy:
    """Clients that never rest, until they are told that it is over: what they were answered."""

    running: Running
    answers: Counter[int] = field(default_factory=Counter)
    told: int = 0

    async def stays(self) -> None:
        """One request after another on one connection, until an answer says that it ends."""
        async with connected(self.running.url, self.running.artefacts) as client:
            while True:
                answer = await client.ask("GET")
                self.answers[answer.status] += 1
                assert answer.complete
                if answer.all("connection") == ["close"]:
                    self.told += 1
                    return
                await turns(1)


@ways
@pytest.mark.parametrize("_time", range(3 * TIMES))
async def test_122_clients_that_never_rest_lose_no_request(instances: Fleet, leave: Leave, _time: int) -> None:
    """Each is told with an answer, which may be that to a request that was on its way."""
    async with api() as upstream:
        running = await instances.start(also={"upstream": upstream.url})
        busy = Busy(running)
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(busy.stays())
            while busy.answers[200] < 500:
                await turns(10)
            await leave(instances)
        lines = await gone(running)
    assert set(busy.answers) == {200}
    assert busy.told == 16
    assert {line["error"] for line in lines} == {None}


async def test_122_streams_without_an_end_are_cut_in_time(instances: Fleet) -> None:
    """Behind the drain of 25 seconds; neither kind of client can take it for a proper end."""
    ended = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.Event().wait()
        raise AssertionError

    async def echo(server: ServerConnection) -> None:
        try:
            async for message in server:
                await server.send(message)
        finally:
            ended.set()

    app = web.Application()
    app.add_routes([web.get("/", events)])
    async with serving(app) as upstream, serve(echo, "127.0.0.1", 0) as sockets:
        port = next(iter(sockets.sockets)).getsockname()[1]
        routes = [
            {"prefix": "/events", "upstream": upstream},
            {"prefix": "/ws", "upstream": f"http://127.0.0.1:{port}"},
        ]
        running = await instances.start(also={"routes": routes})
        async with connected(running.url, running.artefacts) as client, connect(f"ws{running.url[4:]}/ws/") as ws:
            client.send(b"GET /events/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await client.reader.readuntil(b"data: first")
            await ws.send("before")
            assert await ws.recv() == "before"
            await by_signal(instances)
            await running.event("draining")
            await ws.send("while it drains")
            assert await ws.recv() == "while it drains"
            lines = await gone(running)
            assert await client.reader.read() == b"\n\n\r\n"  # not b"0\r\n\r\n", which would end it
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd is None
            await ended.wait()
    assert [line["error"] for line in lines] == ["drain_timeout"] * 2


@pytest.mark.parametrize("signals", [1, 2])
async def test_122_a_signal_behind_quit_is_the_first(instances: Fleet, signals: int) -> None:
    """The request goes on; a second one ends it at once."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(_seen: Seen) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        return web.Response(text="fine")

    async with api(slow) as upstream:
        running = await instances.start(also={"upstream": upstream.url})
        async with connected(running.url, running.artefacts) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await arrived.wait()
            await by_quit(instances)
            await running.event("draining")
            for number in range(1, signals + 1):
                await by_signal(instances)
                if number == 1:
                    # Two at once would be one. It was taken when what was asked behind it is answered.
                    assert (await office(instances, "GET", "/readyz")).status == 503
            if signals == 1:
                go.set()
                assert (await client.answer()).body == b"fine"
            else:
                assert await client.at_end()
            await gone(running)
        go.set()


async def test_122_the_whole_end_is_in_time_where_everything_hangs(instances: Fleet, canaries: Canaries) -> None:
    """The upstream, the token request of another route, and the collector of spans: each has its time at once."""
    hanging: list[str] = []
    release, arrived = asyncio.Event(), asyncio.Condition()

    async def hang(request: web.Request) -> web.Response:
        async with arrived:
            hanging.append(request.path)
            arrived.notify_all()
        await release.wait()
        return web.Response(text="late")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", hang)
    async with serving(app) as far:
        login = {"type": "oauth2", "grant": "client_credentials", "token_url": f"{far}/token", "client_id": "me"}
        config = {
            "routes": [
                {"prefix": "/", "upstream": far},
                {"prefix": "/api", "upstream": far, "credential": "login"},
            ],
            "credentials": {"login": {**login, "client_secret": {"env": "SECRET"}}},
            "tracing": {"otlp": far},
        }
        running = await instances.start(also=config, SECRET=canaries.mint("key"))
        async with (
            connected(running.url, running.artefacts) as one,
            connected(running.url, running.artefacts) as two,
        ):
            one.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            two.send(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with arrived:
                await arrived.wait_for(lambda: {"/slow", "/token"} <= set(hanging))
            await by_signal(instances)
            await gone(running)
        assert "/v1/traces" in hanging
        release.set()
