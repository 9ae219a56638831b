"""The inspector's paths: what is kept of each exchange, masked, and what can be done with it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from tests.support.api import Seen, api
from tests.support.client import DEADLINE, Answer, connected
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.support.vendors import Vendor

ALL: Final = {"admin": {"listen": "127.0.0.1:0", "inspector": {"bodies": 1000}}}


async def ask(
    proxy: Proxy, method: str, path: str, headers: Mapping[str, str] | None = None, document: object = None
) -> Answer:
    """Ask the admin listener, with its key unless `headers` are given."""
    url, key = proxy.instance.admin_url, proxy.instance.admin_key.reveal()
    assert url is not None
    fields = {"Host": url.removeprefix("http://"), **(headers or {"Authorization": f"Bearer {key}"})}
    body = None if document is None else json.dumps(document).encode()
    async with connected(url, proxy.artefacts) as client:
        return await client.ask(method, path, fields, body)


async def listed(proxy: Proxy, query: str = "") -> list[dict[str, Any]]:
    """What the list shows, the newest first."""
    answer = await ask(proxy, "GET", f"/api/exchanges{query}")
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json()["exchanges"]
    return found


async def newest(proxy: Proxy) -> dict[str, Any]:
    """All of the exchange that came last."""
    [first, *_] = await listed(proxy)
    found: dict[str, Any] = (await ask(proxy, "GET", f"/api/exchanges/{first['id']}")).json()
    return found


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token."""
    return Keyed(canaries.mint("token"))


@pytest.mark.threat(82)
async def test_082_an_exchange_is_shown_without_what_may_be_a_secret(proxying: StartProxy, keyed: Keyed) -> None:
    """Fields and parameters that are not known to be harmless are left out; of ours the places are told."""
    cookie, own, parameter = "cookie-of-the-site", "key-of-the-client", "ticket-of-the-client"

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(text="fine", headers={"Set-Cookie": f"s={cookie}", "X-Session": own, "ETag": '"1"'})

    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy,
    ):
        sent = {"Cookie": f"s={cookie}", "X-Session": own, "Authorization": f"Bearer {own}", "Accept": "text/plain"}
        assert (await proxy.ask("GET", f"/a?page=2&ticket={parameter}", sent)).status == 200
        shown = await newest(proxy)
    assert not any(each in json.dumps(shown) for each in (cookie, own, parameter))
    assert (shown["path"], shown["query"], shown["status"]) == ("/a", "page=2&ticket=***", 200)
    request = {name: (value, note) for name, value, note in shown["request"]["fields"]}
    assert request["Accept"] == ("text/plain", None)
    assert request["X-Session"] == (f"*** ({len(own)} bytes)", "masked: only fields known to be harmless are shown")
    assert request["Authorization"][1] == "dropped: that of credential default stands in its place"
    [attempt] = shown["attempts"]
    assert ["Authorization", "Bearer ***", "added: credential default, generation 1"] in attempt["fields"]
    assert ["Etag", '"1"', None] in [[name.title(), value, note] for name, value, note in attempt["answer"]]
    assert upstream.url in shown["why"]
    assert "generation 1" in shown["why"]


async def test_both_attempts_of_a_repeated_request_are_there(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Which generation was refused, which was taken, and where the time went."""
    async with proxying({**tracker.config, **ALL}, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls")).status == 200
        shown = await newest(proxy)
        timelines = (await ask(proxy, "GET", "/api/timelines")).json()
    first, second = shown["attempts"]
    assert [(each["status"], each["generation"], each["refused"]) for each in (first, second)] == [
        (401, 1, True),
        (200, 2, False),
    ]
    assert shown["retried"]
    assert "sent again with generation 2" in shown["why"]
    assert second["connection"] in {"new", "kept"}
    assert shown["timing"]["total_ms"] >= shown["timing"]["first_byte_ms"] > 0
    assert [each["what"] for each in timelines["default"]] == [
        "requested",
        "obtained",
        "refused",
        "requested",
        "obtained",
    ]


async def test_who_needs_a_connection_sees_how_long_that_took(proxying: StartProxy, keyed: Keyed) -> None:
    """Of the first request; the second one finds it open."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a")
        first = await newest(proxy)
        await proxy.ask("GET", "/a")
        second = await newest(proxy)
    [made], [found] = first["attempts"], second["attempts"]
    assert (made["connection"], found["connection"], found["connect_ms"]) == ("new", "kept", None)
    assert first["timing"]["connect_ms"] == made["connect_ms"] > 0
    assert second["timing"]["connect_ms"] == 0


@pytest.mark.threat(82)
async def test_082_bodies_are_off_until_they_are_switched_on_and_then_masked_and_cut(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Up to the bound; a live token in one is masked, a binary one is shown as bytes."""
    secret = 'correct horse "battery" \\ staple'

    async def answer(seen: Seen) -> web.StreamResponse:
        return web.Response(body=seen.body.replace(keyed.token.encode(), b"***"), content_type="application/json")

    async with api(answer) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        body = json.dumps({"password": secret, "Pin_Token": 4711, "said": keyed.token, "long": "x" * 3000}).encode()
        await proxy.ask("POST", "/a", {"Content-Type": "application/json"}, body)
        assert (await newest(proxy))["request"]["body"] is None
        assert (await ask(proxy, "POST", "/api/inspector", document={"bodies": 1000})).json()["bodies"] == 1000
        await proxy.ask("POST", "/a", {"Content-Type": "application/json"}, body)
        shown = await newest(proxy)
        await proxy.ask(
            "POST", "/a", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1&my_token=x y&b=2"
        )
        form = (await newest(proxy))["request"]["body"]["text"]
        await proxy.ask("POST", "/a", {"Content-Type": "image/png"}, b"\x89PNG\0\xff")
        image = await newest(proxy)
        assert (await ask(proxy, "POST", "/api/inspector", document={"bodies": -1})).status == 400
    assert form == "a=1&my_token=***&b=2"
    for side in ("request", "response"):
        kept = shown[side]["body"]
        assert (kept["kept"], kept["truncated"]) == (1000, True)
        assert kept["text"].startswith('{"password": "***", "Pin_Token": "***", "said": "***"')
        assert image[side]["body"]["base64"] == "iVBORwD/"


@pytest.mark.threat(82)
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "${7*7}"])
async def test_082_what_clients_and_upstreams_write_is_data(proxying: StartProxy, keyed: Keyed, text: str) -> None:
    """In JSON, with its type, and never taken for anything else."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(text=text, headers={"Server": text, "Content-Type": "text/html"})

    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy,
    ):
        await proxy.ask("POST", "/a", {"User-Agent": text}, text.encode())
        shown = await newest(proxy)
        raw = await ask(proxy, "GET", f"/api/exchanges/{shown['id']}")
    assert (raw["content-type"], raw["x-content-type-options"]) == ("application/json; charset=utf-8", "nosniff")
    assert ["User-Agent", text, None] in shown["request"]["fields"]
    assert shown["response"]["body"]["text"] == text


async def test_the_list_is_filtered_and_bounded(proxying: StartProxy, keyed: Keyed) -> None:
    """By method, status, text anywhere, and number; what is pushed out is gone."""

    async def answer(seen: Seen) -> web.StreamResponse:
        return web.Response(status=404 if "none" in seen.target else 200)

    top = {"admin": {"listen": "127.0.0.1:0", "inspector": {"exchanges": 5}}}
    async with (
        api(answer) as upstream,
        proxying(keyed.config(upstream.url, top=top), environ=keyed.environ) as proxy,
    ):
        for number in range(4):
            await proxy.ask("GET", f"/{number}")
        await proxy.ask("POST", "/none", {"User-Agent": "Needle/1"})
        await proxy.ask("GET", "/", {"Host": "evil.example"})
        assert [each["path"] for each in await listed(proxy)] == ["/", "/none", "/3", "/2", "/1"]
        for query, paths in {
            "?method=post": ["/none"],
            "?status=4xx": ["/", "/none"],
            "?status=404": ["/none"],
            "?status=4x4": ["/none"],
            "?text=needle": ["/none"],
            "?route=default&limit=2": ["/none", "/3"],
            "?text=nowhere": [],
            "?text=retried": [],  # the name of a value
        }.items():
            assert [each["path"] for each in await listed(proxy, query)] == paths, query
        for path in ("/api/exchanges", "/api/exchanges.har"):
            refused = await ask(proxy, "GET", f"{path}?status=banana")
            assert (refused.status, refused.code) == (400, "bad_request")
            assert refused.json()["detail"] == "status takes 200, 404, 4xx and the like."
        third = (await listed(proxy, "?text=/2"))[0]
        assert [each["path"] for each in await listed(proxy, f"?before={third['number']}")] == ["/1"]
        assert (await listed(proxy))[0]["error"] == "host_not_allowed"
        assert (await ask(proxy, "POST", "/api/inspector/clear")).status == 200
        assert await listed(proxy) == []
        assert (await ask(proxy, "GET", f"/api/exchanges/{third['id']}")).code == "no_route"


async def test_a_request_is_repeated_with_the_token_of_now(proxying: StartProxy, keyed: Keyed) -> None:
    """As it was, and changed; what was not kept is not invented."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a?page=1", {"Accept": "text/plain", "X-Own": "kept by nobody"})
        [first] = await listed(proxy)
        path = f"/api/exchanges/{first['id']}/replay"
        again = (await ask(proxy, "POST", path)).json()
        assert again["status"] == 200
        assert again["id"] != first["id"]
        changed = {"method": "PUT", "path": "/b", "query": "", "fields": [["X-Own", "given"]], "body": "text"}
        assert (await ask(proxy, "POST", path, document=changed)).json()["status"] == 200
        for wrong in (
            {"path": "b"},
            {"path": "/a b"},
            {"method": "GET\r\nX: y"},
            {"fields": 5},
            {"body_base64": "?"},
        ):
            assert (await ask(proxy, "POST", path, document=wrong)).status == 400, wrong
        await proxy.ask("POST", "/a?ticket=1", {}, b"body")
        [masked, *_] = await listed(proxy)
        refused = await ask(proxy, "POST", f"/api/exchanges/{masked['id']}/replay")
        assert (refused.status, refused.code) == (409, "not_kept")
    seen = [(each.method, each.target, each.all("x-own"), each.all("authorization")) for each in upstream.seen]
    token = [f"Bearer {keyed.token}"]
    assert seen == [
        ("GET", "/a?page=1", ["kept by nobody"], token),
        ("GET", "/a?page=1", [], token),
        ("PUT", "/b", ["given"], token),
        ("POST", "/a?ticket=1", [], token),
    ]


async def test_a_client_key_is_shown_for_a_repeated_request(proxying: StartProxy, keyed: Keyed) -> None:
    """That of the client who asked first, so that its rules hold."""
    top = {
        "guard": {
            "client_keys": {
                "reader": {"key": {"env": "READER"}, "methods": ["GET"]},
                "writer": {"key": {"env": "WRITER"}},
            }
        }
    }
    environ = {**keyed.environ, "READER": "reader-key-0123456789", "WRITER": "writer-key-0123456789"}
    async with api() as upstream, proxying(keyed.config(upstream.url, top=top), environ=environ) as proxy:
        await proxy.ask("GET", "/a", {"X-Proxy-Key": environ["READER"]})
        [first] = await listed(proxy)
        path = f"/api/exchanges/{first['id']}/replay"
        assert (await ask(proxy, "POST", path)).json()["status"] == 200
        assert (await ask(proxy, "POST", path, document={"method": "POST"})).json()["status"] == 403
        curl = (await ask(proxy, "GET", f"/api/exchanges/{first['id']}/curl")).body.decode()
    assert curl.startswith(f"curl -sS --globoff --path-as-is {proxy.url}/a")
    assert '-H "X-Proxy-Key: $PROXY_KEY"' in curl


async def test_a_command_says_what_of_the_request_it_lacks(proxying: StartProxy, keyed: Keyed) -> None:
    """In a line before it; nothing is said where it is the same request."""
    fields = {"Content-Type": "application/json", "X-Tenant": "acme"}
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await ask(proxy, "POST", "/api/inspector", document={"bodies": 1000})
        await proxy.ask("POST", "/a?ticket=4711", fields, b'{"password": "kept by nobody"}')
        await proxy.ask("POST", "/b", {"Content-Type": "application/json"}, b'{"page": 1}')
        second, first = await listed(proxy)
        lacking, whole = [
            (await ask(proxy, "GET", f"/api/exchanges/{each['id']}/curl")).body.decode().splitlines()
            for each in (first, second)
        ]
    said = "a part of its target, 1 of its fields, its body, or a part of it"
    assert lacking[0] == f"# Left out, since it is masked or was not kept: {said}"
    assert lacking[1].startswith("curl -sS --globoff --path-as-is -X POST")
    command = f"curl -sS --globoff --path-as-is -X POST {proxy.url}/b -H 'Content-Type: application/json'"
    assert whole == [f"{command} -H User-Agent: -H Accept: --data-raw '{{\"page\": 1}}'"]


async def test_events_tell_of_exchanges_and_tokens_as_they_come(
    proxying: StartProxy, tracker: Vendor[TeleTracker]
) -> None:
    """A page hears of what happens without asking."""
    async with proxying(tracker.config, environ=tracker.environ) as proxy:
        url, key = proxy.instance.admin_url, proxy.instance.admin_key.reveal()
        assert url is not None
        async with connected(url, proxy.artefacts) as client:
            client.send(
                f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
            )
            async with asyncio.timeout(DEADLINE):
                await client.reader.readuntil(b"\n\n")
                await proxy.ask("GET", "/calls")
                heard = await client.reader.readuntil(b"event: exchange\n")
                summary = json.loads((await client.reader.readuntil(b"\n\n")).removeprefix(b"data: "))
        assert b'"what": "obtained"' in heard
        assert b'event: credential\ndata: {"name": "default", "state": "fresh"' in heard
        assert (summary["path"], summary["status"]) == ("/calls", 200)


async def test_what_stands_in_a_body_is_found_as_it_was_written(proxying: StartProxy, keyed: Keyed) -> None:
    """Quotes and letters beyond ASCII, too; and it can be had as HAR by what was found."""
    async with api() as upstream, proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy:
        for body in ('{"who": "Ada"}', "Grüße", "else"):
            await proxy.ask("POST", "/a", {"Content-Type": "text/plain; charset=utf-8"}, body.encode())
        [found] = await listed(proxy, "?text=%22who%22%3A%20%22ada%22")
        [other] = await listed(proxy, "?text=gr%C3%BC%C3%9Fe")
        asked = {"ids": [found["id"], other["id"], "gone"]}
        log = (await ask(proxy, "POST", "/api/exchanges.har", document=asked)).json()["log"]
        wrong = [await ask(proxy, "POST", "/api/exchanges.har", document=each) for each in ({}, {"ids": [1]})]
    assert [each["request"]["postData"]["text"] for each in log["entries"]] == ['{"who": "Ada"}', "Grüße"]
    assert [(each.status, each.code) for each in wrong] == [(400, "bad_request")] * 2


async def test_har_is_what_other_tools_read(proxying: StartProxy, keyed: Keyed) -> None:
    """Version 1.2, the oldest first, masked."""
    async with api() as upstream, proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a?page=1")
        await proxy.ask("POST", "/b", {"Content-Type": "text/plain"}, b"text")
        log = (await ask(proxy, "GET", "/api/exchanges.har")).json()["log"]
    assert log["version"] == "1.2"
    first, second = log["entries"]
    assert first["request"]["url"] == f"{upstream.url}/a?page=1"
    assert first["request"]["queryString"] == [{"name": "page", "value": "1"}]
    assert second["request"]["postData"]["text"] == "text"
    assert second["response"]["content"]["text"] == "fine"
    assert (first["response"]["status"], first["response"]["statusText"]) == (200, "OK")


# -- who may see it


@pytest.mark.threat(21)
async def test_021_the_key_comes_once_and_becomes_a_cookie(proxying: StartProxy, keyed: Keyed) -> None:
    """It leaves the address, and what rests in the browser is not the key."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        key = proxy.instance.admin_key.reveal()
        entered = await ask(proxy, "GET", f"/?key={key}", {"Accept": "text/html"})
        cookie = entered["set-cookie"].partition(";")[0]
        assert (entered.status, entered["location"]) == (303, "/")
        assert entered["set-cookie"].endswith("; HttpOnly; SameSite=Strict; Path=/")
        assert key not in cookie
        page = await ask(proxy, "GET", "/", {"Cookie": cookie})
        assert (page.status, page["content-type"]) == (200, "text/html; charset=utf-8")
        assert "unsafe" not in page["content-security-policy"]
        assert (await ask(proxy, "GET", "/api/exchanges", {"Cookie": cookie})).status == 200
        for wrong in ("/?key=wrong", f"/?key={key}&key=x", "/", "/static/inspector.css", "/api/exchanges"):
            assert (await ask(proxy, "GET", wrong, {"Cookie": "bearer_proxy_admin=wrong"})).status == 401, wrong


@pytest.mark.threat(21)
@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 401),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://{host}"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
    ],
)
async def test_021_the_cookie_changes_something_for_our_own_page_alone(
    proxying: StartProxy, keyed: Keyed, said: dict[str, str], status: int
) -> None:
    """A page of another port is sent the cookie as well, since cookies know no ports."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        key, url = proxy.instance.admin_key.reveal(), proxy.instance.admin_url
        assert url is not None
        entered = await ask(proxy, "GET", f"/?key={key}", {"Accept": "text/html"})
        host = url.removeprefix("http://")
        fields = {name: value.format(host=host) for name, value in said.items()}
        cookie = {"Cookie": entered["set-cookie"].partition(";")[0]}
        assert (await ask(proxy, "POST", "/api/inspector/clear", {**cookie, **fields})).status == status


@pytest.mark.threat(21, 82)
async def test_082_without_an_inspector_nothing_is_kept(proxying: StartProxy, keyed: Keyed) -> None:
    """And none of its paths is there."""
    top = {"admin": {"listen": "127.0.0.1:0", "inspector": False}}
    async with api() as upstream, proxying(keyed.config(upstream.url, top=top), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a")
        for path in ("/", "/static/inspector.css", "/api/exchanges", "/api/events"):
            assert (await ask(proxy, "GET", path)).status == 404, path
        assert (await ask(proxy, "GET", "/api/credentials")).status == 200


@pytest.mark.threat(21)
@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "app.py", "inspector.css/x", "/etc/passwd"])
async def test_021_only_the_pages_own_files_are_served(proxying: StartProxy, keyed: Keyed, name: str) -> None:
    """By their names, from one folder."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        assert (await ask(proxy, "GET", f"/static/{name}")).status in {400, 404}
