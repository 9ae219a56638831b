"""Real clients go through the proxy to the vendors' doubles: no mocks in between, and a refresh in the middle."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import Vanilla
from tests.support.gate import gate
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Canaries
from tests.support.npm import BIN, ROOT, installed
from tests.support.programs import program, run, surroundings
from tests.support.vendors import Vendor

BODY = b"kalium=1&natrium=2\x00\xff" * 500


def sum_of(answer: bytes) -> str:
    """The digest in an answer of `/echo-size`."""
    return str(json.loads(answer)["data"][0]["sha256"])


async def test_curl_reads_writes_and_is_refreshed(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, tmp_path: Path
) -> None:
    """GET, an upload with Expect: 100-continue, a chunked upload from standard input, a deletion with a body."""
    curl = program("curl")
    (tmp_path / "body").write_bytes(BODY)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert json.loads(await run(proxy.artefacts, curl, "-sSf", f"{proxy.url}/calls"))["success"]
        tracker.double.expire()
        sent = await run(
            proxy.artefacts, curl, "-sSf", "-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path}/body",
            f"{proxy.url}/echo-size",
        )  # fmt: skip
        assert sum_of(sent) == hashlib.sha256(BODY).hexdigest()
        deleted = await run(proxy.artefacts, curl, "-sS", "-X", "DELETE", "-d", "id=1", f"{proxy.url}/calls")
        assert json.loads(deleted)["success"]
        head = await run(proxy.artefacts, curl, "-sSI", f"{proxy.url}/calls")
        assert head.startswith(b"HTTP/1.1 200 ")
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}
    assert tracker.double.refusals == {401: 1}


async def test_curl_over_a_unix_socket(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, tmp_path: Path
) -> None:
    """The Host header says nothing there; the file's mode admits."""
    curl = program("curl")
    config = {**tracker.config, "listen": f"unix:{tmp_path}/p.sock"}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        out = await run(
            proxy.artefacts, curl, "-sSf", "--unix-socket", f"{tmp_path}/p.sock", "http://anything/calls"
        )
    assert json.loads(out)["success"]


async def test_wget(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock) -> None:
    """A download after a refusal."""
    wget = program("wget")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(2):
            out = await run(proxy.artefacts, wget, "-q", "-O", "-", f"{proxy.url}/calls")
            assert json.loads(out)["success"]
            tracker.double.expire()
    assert tracker.double.refusals == {401: 1}


async def test_httpie(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, tmp_path: Path) -> None:
    """A POST whose first attempt is refused."""
    command = [BIN / "http", "--ignore-stdin", "--check-status", "--body"]
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        sent = [f"{proxy.url}/calls", "caller=+15550000009"]
        out = await run(proxy.artefacts, *command, *sent, environ=surroundings(tmp_path))
    assert json.loads(out)["data"][0]["caller"] == "+15550000009"
    assert tracker.double.refusals == {401: 1}


URLLIB = """
    import sys, urllib.request
    request = urllib.request.Request(sys.argv[1] + "/echo-size", data=sys.stdin.buffer.read(), method="POST")
    request.add_header("Content-Type", "application/octet-stream")
    sys.stdout.buffer.write(urllib.request.urlopen(request).read())
"""

REQUESTS = """
    import sys, requests
    body = sys.stdin.buffer.read()
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(sys.argv[1] + "/calls").json()["success"]
        answer = session.post(sys.argv[1] + "/echo-size", data=body)
    answer.raise_for_status()
    sys.stdout.buffer.write(answer.content)
"""


HTTPX = """
    import sys, httpx
    with httpx.Client(base_url=sys.argv[1]) as client:
        assert client.get("/calls").json()["success"]
        answer = client.post("/echo-size", content=sys.stdin.buffer.read())
    answer.raise_for_status()
    sys.stdout.buffer.write(answer.content)
"""

AIOHTTP = """
    import asyncio, sys, aiohttp
    async def main():
        async with aiohttp.ClientSession(sys.argv[1], raise_for_status=True) as session:
            async with session.post("/echo-size", data=sys.stdin.buffer.read()) as answer:
                sys.stdout.buffer.write(await answer.read())
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "script", [URLLIB, REQUESTS, HTTPX, AIOHTTP], ids=["urllib", "requests", "httpx", "aiohttp"]
)
async def test_python(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, script: str) -> None:
    """A POST whose first attempt is refused."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        out = await run(proxy.artefacts, sys.executable, "-c", dedent(script), proxy.url, stdin=BODY)
    assert sum_of(out) == hashlib.sha256(BODY).hexdigest()
    assert tracker.double.refusals == {401: 1}


NODE = """
    const url = process.argv[1];
    const chunks = [];
    for await (const chunk of process.stdin) chunks.push(chunk);
    const answer = await fetch(url + "/echo-size", {method: "POST", body: Buffer.concat(chunks)});
    if (!answer.ok) process.exit(1);
    process.stdout.write(await answer.text());
"""


@pytest.mark.threat(3)
async def test_node_fetch(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock) -> None:
    """Node's fetch sends Sec-Fetch-Mode and no Sec-Fetch-Site; it is no browser."""
    node = program("node")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        out = await run(proxy.artefacts, node, "--input-type=module", "-e", NODE, proxy.url, stdin=BODY)
    assert sum_of(out) == hashlib.sha256(BODY).hexdigest()


AXIOS = """
    const chunks = [];
    for await (const chunk of process.stdin) chunks.push(chunk);
    const {default: axios} = await import("axios");
    const api = axios.create({baseURL: process.argv[1]});
    process.stdout.write(JSON.stringify((await api.post("/echo-size", Buffer.concat(chunks))).data));
"""


@pytest.mark.slow
async def test_axios(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, tmp_path: Path) -> None:
    """The first attempt of its POST is refused."""
    modules, environ = installed(ROOT / "tests" / "npm"), surroundings(tmp_path)
    command = [BIN / "node", "--input-type=module", "-e", AXIOS]
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        out = await run(proxy.artefacts, *command, proxy.url, stdin=BODY, cwd=modules, environ=environ)
    assert sum_of(out) == hashlib.sha256(BODY).hexdigest()
    assert tracker.double.refusals == {401: 1}


SSE = """
    import sys, httpx, httpx_sse
    headers = {}
    with httpx.Client(base_url=sys.argv[1]) as client:
        for _ in range(2):
            with httpx_sse.connect_sse(client, "GET", "/events", headers=headers) as source:
                for event in source.iter_sse():
                    print(event.id, event.data)
                    headers = {"Last-Event-ID": event.id}
                    client.post("/seen", content=event.id)
"""


async def test_httpx_sse(proxying: StartProxy, canaries: Canaries, tmp_path: Path) -> None:
    """Each event arrives before the next one is made; the connection after the stream meets an old token."""
    seen = asyncio.Event()

    async def behind(request: web.Request) -> web.StreamResponse:
        if request.path == "/seen":
            seen.set()
            return web.Response()
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        last = int(request.headers.get("Last-Event-ID", "0"))
        for number in (last + 1, last + 2):
            await answer.write(f"id: {number}\ndata: event\n\n".encode())
            await seen.wait()
            seen.clear()
        server.end()
        return answer

    async with gate(behind, canaries) as server, proxying(server.config, environ=server.environ) as proxy:
        out = await run(
            proxy.artefacts, sys.executable, "-c", dedent(SSE), proxy.url, environ=surroundings(tmp_path)
        )
    assert out.split() == b"1 event 2 event 3 event 4 event".split()
    assert server.refused == ["/events"]


async def echo(request: web.Request) -> web.StreamResponse:
    """A WebSocket that says what it hears, or an event."""
    if "Upgrade" not in request.headers:
        return web.Response(text="data: event\n\n", content_type="text/event-stream")
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


WEBSOCKET_CLIENT = """
    import sys, websocket
    socket = websocket.create_connection(sys.argv[1].replace("http", "ws"))
    socket.send("hello")
    print(socket.recv())
    socket.close()
"""


@pytest.mark.threat(3)
async def test_websocket_client(proxying: StartProxy, canaries: Canaries, tmp_path: Path) -> None:
    """It sends the `Origin` of what it asks: it is no page of ours, and the upstream hears of its own."""
    origins: list[str] = []

    async def behind(request: web.Request) -> web.StreamResponse:
        origins.append(request.headers["Origin"])
        return await echo(request)

    async with gate(behind, canaries) as server, proxying(server.config, environ=server.environ) as proxy:
        server.once(lambda _request: True)
        command = [sys.executable, "-c", dedent(WEBSOCKET_CLIENT), proxy.url]
        assert await run(proxy.artefacts, *command, environ=surroundings(tmp_path)) == b"hello\n"
    assert set(origins) == {server.url}
    assert server.refused == ["/"]


NODE_STREAMS = """
    const url = process.argv[1];
    await new Promise(done => {
        const events = new EventSource(url);
        events.onmessage = ({data}) => { console.log(data); events.close(); done(); };
    });
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({data}) => { console.log(data); socket.close(); };
"""


@pytest.mark.threat(3)
async def test_node_websocket_and_event_source(proxying: StartProxy, canaries: Canaries, tmp_path: Path) -> None:
    """They send Sec-Fetch-Mode as a browser does, and no Sec-Fetch-Site; the handshake meets an old token."""
    command = [
        BIN / "node",
        "--no-warnings",
        "--experimental-eventsource",
        "--input-type=module",
        "-e",
        NODE_STREAMS,
    ]
    async with gate(echo, canaries) as server, proxying(server.config, environ=server.environ) as proxy:
        server.once(lambda request: "Upgrade" in request.headers)
        assert await run(proxy.artefacts, *command, proxy.url, environ=surroundings(tmp_path)) == b"event\nhello\n"
    assert server.refused == ["/"]


async def test_curl_with_a_token_in_the_query_and_a_stale_one_of_its_own(
    proxying: StartProxy, forum: Vendor[Vanilla], clock: HeldClock
) -> None:
    """Vanilla reads the query first; the client's stray token never arrives."""
    curl = program("curl")
    async with proxying(forum.config, environ=forum.environ, clock=clock) as proxy:
        out = await run(proxy.artefacts, curl, "-sSf", f"{proxy.url}/api/v2/users/me?access_token=stale&limit=3")
    assert json.loads(out)["name"]
    [entry] = [entry for entry in forum.double.journal if entry.target.startswith("/api/v2/users/me")]
    assert entry.target == "/api/v2/users/me?limit=3"
    assert entry.places == ("header:authorization",)
