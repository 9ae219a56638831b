"""The inspector on answers that no upstream's answer stands behind, and on those that the client never got."""

import json
from typing import Any, Final

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import head
from tests.support.routes import OK, Keyed
from tests.support.upstreams import REQUEST, Upstream
from tests.support.vendors import Vendor
from tests.test_inspector import ALL, ask, newest

OFF: Final = {"admin": {"listen": "127.0.0.1:0"}}
OWN: Final = "added: the proxy's own answer"
#: What would run if anybody took it for more than text.
HOSTILE: Final = "</pre><script>globalThis.ran=1</script>"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token."""
    return Keyed(canaries.mint("token"))


async def har(proxy: Proxy) -> dict[str, Any]:
    """The newest exchange, as HAR has it; all of it is searched for secrets when the test ends."""
    raw = (await ask(proxy, "GET", "/api/exchanges.har")).body
    proxy.artefacts.add("har", raw)
    found: dict[str, Any] = json.loads(raw)["log"]["entries"][-1]
    return found


# -- what the proxy says itself


async def test_an_answer_of_the_proxy_is_shown_as_the_client_got_it(proxying: StartProxy, keyed: Keyed) -> None:
    """Its fields, each with the note that it is ours; its body, and how long that was; in HAR as well."""
    async with api() as upstream:
        config = keyed.config(upstream.url, top=ALL, deny=[{"paths": ["/a"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            got = await proxy.ask("GET", "/a", {"Connection": "close"})
            shown, exported = await newest(proxy), (await har(proxy))["response"]
    assert got.code == "path_denied"
    assert [(name, value) for name, value, _ in shown["response"]["fields"]] == got.fields
    assert {note for _name, _value, note in shown["response"]["fields"]} == {OWN}
    assert "Connection" in [name for name, _value in got.fields]
    kept = shown["response"]["body"]
    assert (kept["text"].encode(), kept["type"], kept["truncated"]) == (got.body, "application/problem+json", False)
    assert shown["bytes_out"] == kept["bytes"] == exported["bodySize"] == len(got.body)
    assert exported["content"]["text"].encode() == got.body
    assert [(each["name"], each["value"]) for each in exported["headers"]] == got.fields


async def test_of_an_answer_of_the_proxy_its_size_is_known_without_bodies(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """And its fields; a HEAD gets none of its body; the log counts the same."""
    async with api() as upstream:
        config = keyed.config(upstream.url, deny=[{"paths": ["/a"]}])
        async with proxying(config, environ=keyed.environ) as proxy:
            got = await proxy.ask("GET", "/a")
            shown = await newest(proxy)
            await proxy.ask("HEAD", "/a")
            of_a_head = await newest(proxy)
            await proxy.told(lambda lines: len(lines) == 2)
            lines = proxy.lines()
    assert (shown["response"]["body"], of_a_head["response"]["body"]) == (None, None)
    assert ["Content-Length", str(len(got.body)), OWN] in shown["response"]["fields"]
    assert ["Content-Length", of_a_head["response"]["fields"][-1][1], OWN] in of_a_head["response"]["fields"]
    sizes = [len(got.body), 0]
    assert [shown["bytes_out"], of_a_head["bytes_out"]] == sizes == [line["bytes_out"] for line in lines]


async def test_the_answer_to_a_request_that_could_not_be_read_is_shown(proxying: StartProxy, keyed: Keyed) -> None:
    """Nothing else is known of it."""
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nno field\r\n\r\n")
            got = await client.answer()
        shown = await newest(proxy)
    assert (shown["request"], shown["attempts"]) == (None, [])
    assert [(name, value) for name, value, _ in shown["response"]["fields"]] == got.fields
    assert ["Connection", "close", OWN] in shown["response"]["fields"]
    assert shown["response"]["body"]["text"].encode() == got.body


async def test_the_answer_to_a_preflight_is_shown(proxying: StartProxy, keyed: Keyed) -> None:
    """It has no body; the grants are the proxy's own."""
    page = "http://page.example"
    async with api() as upstream:
        config = keyed.config(upstream.url, top={**ALL, "guard": {"origins": [page]}})
        async with proxying(config, environ=keyed.environ) as proxy:
            sent = {"Origin": page, "Access-Control-Request-Method": "PUT"}
            got = await proxy.ask("OPTIONS", "/a", sent)
            shown = await newest(proxy)
    assert (got.status, shown["bytes_out"], shown["response"]["body"]["bytes"]) == (204, 0, 0)
    assert [name for name, _value, _ in shown["response"]["fields"]] == [name for name, _value in got.fields]
    assert {note for _name, _value, note in shown["response"]["fields"]} == {OWN}


async def test_what_the_proxy_says_of_an_upstream_is_told_from_what_that_said(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """Here it was nothing that could be understood, with the status that the proxy gives for it."""
    async with (
        Upstream([REQUEST, b"HTTP/1.1 502 Oh\r\nContent-Length: x\r\n\r\n"]) as upstream,
        proxying(keyed.config(upstream.origin, top=ALL), environ=keyed.environ) as proxy,
    ):
        got = await proxy.ask("GET", "/a")
        shown = await newest(proxy)
    [attempt] = shown["attempts"]
    assert (got.code, attempt["error"], attempt["answer"]) == ("upstream_protocol", "upstream_protocol", [])
    assert {note for _name, _value, note in shown["response"]["fields"]} == {OWN}
    assert shown["response"]["body"]["text"].encode() == got.body


@pytest.mark.parametrize(
    ("version", "asked", "said"), [("1.1", "close", "close"), ("1.0", "keep-alive", "keep-alive")]
)
async def test_what_the_proxy_says_of_the_connection_is_shown(
    proxying: StartProxy, keyed: Keyed, version: str, asked: str, said: str
) -> None:
    """On an upstream's answer, where the upstream had said something else of its own connection."""
    upstreams_own = OK.replace(b"\r\n\r\n", b"\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")
    async with (
        Upstream([REQUEST, upstreams_own]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(head("GET", "/a", f"Connection: {asked}", version=version))
            got = await client.answer()
        shown = await newest(proxy)
    assert got["connection"] == said
    assert [name for name, _value, _ in shown["response"]["fields"]] == [name for name, _value in got.fields]
    assert ["Connection", said, "written anew"] in shown["response"]["fields"]
    assert ["Connection", "X-Hop", "written anew"] in shown["attempts"][0]["answer"]


# -- what a refused answer said


class Refusing:
    """A service that gives a new token for each login, and takes the second one alone; `says` so to the first."""

    def __init__(self, canaries: Canaries, says: str) -> None:
        self._canaries = canaries
        self.says = says
        self.tokens: list[str] = []

    async def answer(self, seen: Seen) -> web.StreamResponse:
        """A login, or anything else."""
        if seen.target == "/login":
            self.tokens.append(self._canaries.mint("token"))
            return web.json_response({"access_token": self.tokens[-1]})
        [given] = seen.all("authorization")
        if given == f"Bearer {self.tokens[0]}":
            text = self.says.replace("TOKEN", self.tokens[0])
            return web.Response(status=401, text=text, content_type="application/json")
        return web.json_response({"taken": True})

    def config(self, url: str, top: dict[str, Any]) -> dict[str, Any]:
        """Of a proxy before it."""
        login = {"url": f"{url}/login", "fields": {"user": "ann"}}
        return {"upstream": url, "credential": {"type": "login", "login": login}, **top}


@pytest.mark.threat(82)
async def test_082_what_a_refused_answer_said_is_shown_with_its_attempt(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """In the detail and in HAR, masked: it repeats the live token, names a password, and holds markup."""
    said = {"error": "invalid_token", "error_description": f"TOKEN lapsed {HOSTILE}", "password": "of-the-vendor"}
    vendor = Refusing(canaries, json.dumps(said))
    async with (
        api(vendor.answer) as upstream,
        proxying(vendor.config(upstream.url, ALL), clock=clock) as proxy,
    ):
        assert (await proxy.ask("GET", "/a")).json() == {"taken": True}
        shown, exported = await newest(proxy), await har(proxy)
        raw = await ask(proxy, "GET", f"/api/exchanges/{shown['id']}")
        proxy.artefacts.add("detail", raw.body)
    assert (raw["content-type"], raw["x-content-type-options"]) == ("application/json; charset=utf-8", "nosniff")
    refused, taken = shown["attempts"]
    told = {"error": "invalid_token", "error_description": f"*** lapsed {HOSTILE}", "password": "***"}
    assert json.loads(refused["body"]["text"]) == told
    assert (refused["body"]["truncated"], refused["body"]["type"]) == (False, "application/json; charset=utf-8")
    assert taken["body"] is None
    assert json.loads(shown["response"]["body"]["text"]) == {"taken": True}
    [first] = exported["_refused"]
    assert (first["status"], json.loads(first["content"]["text"])) == (401, told)
    assert "Content-Type" in [each["name"] for each in first["headers"]]
    assert json.loads(exported["response"]["content"]["text"]) == {"taken": True}
    assert not any(token in json.dumps([shown, exported]) for token in vendor.tokens)


async def test_of_a_refused_answer_nothing_is_kept_while_bodies_are_off(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """Nor of the answer to a request that is not repeated: the client got that one."""
    vendor = Refusing(canaries, '{"error": "invalid_token"}')
    async with (
        api(vendor.answer) as upstream,
        proxying(vendor.config(upstream.url, OFF), clock=clock) as proxy,
    ):
        await proxy.ask("GET", "/a")
        shown, exported = await newest(proxy), await har(proxy)
        await ask(proxy, "POST", "/api/inspector", document={"bodies": 1000})
        await proxy.ask("GET", "/a")
        later = await newest(proxy)
    assert [each["body"] for each in shown["attempts"]] == [None, None]
    assert exported["_refused"][0]["content"] == {"size": -1, "mimeType": ""}
    assert [each["body"] for each in later["attempts"]] == [None]


@pytest.mark.parametrize("body", [b"", b"half", b"x" * 3000], ids=["none", "some", "more than is kept"])
async def test_no_repeat_waits_for_what_a_refused_answer_still_says(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, body: bytes
) -> None:
    """What was there is kept, up to the bound, and said to be cut; the rest never comes."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9999\r\n\r\n%b" % body
    async with Upstream([REQUEST, refused], [REQUEST, OK]) as upstream:
        config = {**tracker.config, **ALL, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            assert (await proxy.ask("GET", "/a")).body == b"fine"
            shown = await newest(proxy)
    said = shown["attempts"][0]["body"]
    kept = body[:1000]
    assert ((said["text"] or "").encode(), said["bytes"], said["kept"]) == (kept, len(body), len(kept))
    assert said["truncated"]


async def test_what_a_refused_answer_said_is_there_where_the_repeat_failed(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """It is all that the upstream said."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nlapsed"
    async with Upstream([REQUEST, refused], [REQUEST, b"nonsense\r\n\r\n"]) as upstream:
        config = {**tracker.config, **ALL, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            got = await proxy.ask("POST", "/a", body=b"1")
            shown = await newest(proxy)
    assert [each["body"] and each["body"]["text"] for each in shown["attempts"]] == ["lapsed", None]
    assert shown["response"]["body"]["text"].encode() == got.body
