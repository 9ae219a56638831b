"""What the inspector says of each field: whether it crossed, and the one reason where it did not."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from tests.support.api import Seen, api
from tests.support.harness import StartProxy
from tests.support.raw import LAST_CHUNK, chunk, head, within
from tests.support.routes import Keyed
from tests.support.upstreams import REQUEST, Step, Upstream
from tests.test_inspector import ask, keyed, newest

__all__ = ["keyed"]

NOT_LISTED = "masked: only fields known to be harmless are shown"
#: A page of another origin that may call.
PAGE = "http://page.example"


def notes(fields: list[list[Any]]) -> dict[str, str | None]:
    """The notes of these fields, by their lower-case names."""
    return {name.lower(): note for name, _value, note in fields}


async def test_each_field_of_a_request_has_the_one_reason_why_it_did_not_cross(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """In the words of `explain`; and what the proxy wrote says who had it written."""
    rules: dict[str, Any] = {
        "headers": {"set": {"X-Tenant": "of-the-route"}, "remove": ["X-Debug"]},
        "forwarded": True,
    }
    async with api() as upstream, proxying(keyed.config(upstream.url, **rules), environ=keyed.environ) as proxy:
        sent = {
            "Connection": "x-hop",
            "X-Hop": "1",
            "X-Debug": "1",
            "X_Tenant": "of-the-client",
            "X-Real-IP": "10.0.0.1",
            "New-URI": "/b",
            "Authorization": "Bearer of-the-client",
            "Cookie": "a=1; bearer_proxy_x=2",
            "Referer": "http://localhost/page",
            "X-Mine": "1",
        }
        assert (await proxy.ask("GET", "/a", sent)).status == 200
        shown = await newest(proxy)
    came = notes(shown["request"]["fields"])
    assert came == {
        "host": "written anew",
        "connection": "dropped: it is about this connection alone",
        "x-hop": "dropped: Connection names it",
        "x-debug": "dropped: headers.remove of the route",
        "x_tenant": "dropped: headers.set of the route",
        "x-real-ip": "dropped: only a proxy may say it",
        "new-uri": "dropped: it may name a place that no rule judged",
        "authorization": "dropped: that of credential default stands in its place",
        "cookie": f"{NOT_LISTED}; not all of it crossed: the proxy's own stay here",
        "referer": "rewritten: it named the proxy",
        "x-mine": NOT_LISTED,
    }
    [attempt] = shown["attempts"]
    went = notes(attempt["fields"])
    assert went == {
        "host": "added: host_header: upstream",
        "x-tenant": "added: headers.set of the route",
        "x-forwarded-for": "added: forwarded: true",
        "x-forwarded-host": "added: forwarded: true",
        "x-forwarded-proto": "added: forwarded: true",
        "referer": "rewritten: the client's, with the upstream's name in place of the proxy's",
        "cookie": NOT_LISTED,
        "x-mine": NOT_LISTED,
        "authorization": "added: credential default, generation 1",
    }
    assert "of-the-route" not in str(shown)


async def test_each_field_of_an_answer_has_the_one_reason_why_the_client_did_not_get_it_so(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """What stopped, what was rewritten, and what the proxy added."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(
            text="fine",
            headers=[
                ("Strict-Transport-Security", "max-age=1"),
                ("Access-Control-Allow-Origin", "*"),
                ("Keep-Alive", "timeout=5"),
                ("Connection", "keep-alive, x-hop"),
                ("X-Hop", "1"),
                ("X-Echo", keyed.token),
                ("Location", f"{upstream.url}/b"),
                ("Set-Cookie", "s=1; Domain=api.example; Path=/"),
                ("X-Mine", "1"),
                ("ETag", '"1"'),
            ],
        )

    async with api(answer) as upstream:
        config = keyed.config(upstream.url, top={"guard": {"origins": [PAGE]}})
        async with proxying(config, environ=keyed.environ) as proxy:
            got = await proxy.ask("GET", "/a", {"Origin": PAGE})
            shown = await newest(proxy)
    [attempt] = shown["attempts"]
    came = notes(attempt["answer"])
    del came["date"], came["server"]
    assert came == {
        "strict-transport-security": "dropped: rewrite.hsts of the route: browsers would hold it against all that"
        " this host serves",
        "access-control-allow-origin": "dropped: rewrite.cors of the route: such grants are the proxy's to give",
        "keep-alive": "dropped: it is about this connection alone",
        "connection": "dropped: it is about this connection alone",
        "x-hop": "dropped: Connection names it",
        "x-echo": "dropped: the token stands in it",
        "location": "rewritten: rewrite.location of the route",
        "set-cookie": "rewritten: rewrite.cookies of the route",
        "x-mine": NOT_LISTED,
        "etag": None,
        "content-type": None,
        "content-length": None,
    }
    went = notes(shown["response"]["fields"])
    assert went["location"] == "rewritten: rewrite.location of the route"
    assert went["set-cookie"] == "rewritten: rewrite.cookies of the route"
    own = "added: rewrite.cors of the route: the proxy's own grant"
    assert (went["access-control-allow-origin"], went["vary"]) == (own, own)
    assert ["Content-Length", "4", None] in shown["response"]["fields"]
    assert set(went) == {name.lower() for name, _ in got.fields}


async def test_a_cookie_that_stops_says_why(proxying: StartProxy, keyed: Keyed) -> None:
    """One that pretends to be the proxy's, and one that the route would never get back."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(headers=[("Set-Cookie", "bearer_proxy_x=1"), ("Set-Cookie", "s=1; Path=/elsewhere")])

    async with api(answer) as upstream:
        config = keyed.config(f"{upstream.url}/v2", prefix="/crm")
        async with proxying(config, environ=keyed.environ) as proxy:
            await proxy.ask("GET", "/crm/a")
            shown = await newest(proxy)
    [attempt] = shown["attempts"]
    assert [note for name, _, note in attempt["answer"] if name == "Set-Cookie"] == [
        "dropped: cookies of this name are the proxy's own",
        "dropped: rewrite.cookies of the route: no path of this route would get it back",
    ]


async def test_what_was_rewritten_goes_along_in_a_repetition(proxying: StartProxy, keyed: Keyed) -> None:
    """It is shown as it came, and the proxy rewrites it once more."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a", {"Referer": "http://localhost/page"})
        shown = await newest(proxy)
        curl = (await ask(proxy, "GET", f"/api/exchanges/{shown['id']}/curl")).body.decode()
    assert "Referer" in curl


async def test_how_the_body_was_framed_for_the_client_is_told(proxying: StartProxy, keyed: Keyed) -> None:
    """In chunks where nobody knows its length; the answer to a HEAD speaks of a length."""

    async def answer(seen: Seen) -> web.StreamResponse:
        response = web.Response(text="fine")
        if seen.method == "GET":
            response.enable_chunked_encoding()
        return response

    async with api(answer) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a")
        in_chunks = await newest(proxy)
        await proxy.ask("HEAD", "/a")
        of_a_head = await newest(proxy)
    assert ["Transfer-Encoding", "chunked", "written anew"] in in_chunks["response"]["fields"]
    assert notes(in_chunks["attempts"][0]["answer"])["transfer-encoding"] == "written anew"
    assert ["Content-Length", "4", None] in of_a_head["response"]["fields"]


async def test_of_an_answer_that_comes_again_each_client_sees_what_it_got(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """The same head on one connection, asked for otherwise in one respect each time."""
    of_cors = "dropped: rewrite.cors of the route: such grants are the proxy's to give"
    asked = {
        "plainly": head("GET", "/a"),
        "by HEAD": head("HEAD", "/a"),
        "by GET again": head("GET", "/a"),
        "by a page": head("GET", "/a", f"Origin: {PAGE}"),
        "by no page": head("GET", "/a"),
        "for the last time": head("GET", "/a", "Connection: close"),
        "by an older client": head("GET", "/a", version="1.0"),
        "plainly again": head("GET", "/a"),
    }
    said = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nAccess-Control-Allow-Origin: {keyed.token}\r\n\r\n"
    script: list[Step] = []
    for each in asked.values():
        script += [REQUEST, said.encode() + (b"" if each.startswith(b"HEAD") else chunk(b"fine") + LAST_CHUNK)]
    async with Upstream(script) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"origins": [PAGE]}})
        async with proxying(config, environ=keyed.environ) as proxy:
            for how, each in asked.items():
                async with proxy.connect() as client:
                    client.send(each)
                    answer = (await within(client.reader.readuntil(b"\r\n\r\n"))).decode()
                    if not each.startswith(b"HEAD"):
                        await within(client.reader.readuntil(b"fine"))
                shown = await newest(proxy)
                got = [line.partition(":")[0] for line in answer.split("\r\n")[1:-2]]
                assert (how, [name for name, _value, _note in shown["response"]["fields"]]) == (how, got)
                [attempt] = shown["attempts"]
                assert (how, notes(attempt["answer"])["access-control-allow-origin"]) == (how, of_cors)
        assert upstream.requests == len(asked)


async def test_of_lines_that_are_alike_each_has_a_note_of_its_own(proxying: StartProxy, keyed: Keyed) -> None:
    """Two that the upstream sent, and one that the proxy added to them."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVary: Origin\r\nVary: Origin\r\nAge: 1\r\n\r\n"
    async with Upstream([REQUEST, said]) as upstream:
        config = keyed.config(upstream.origin, top={"guard": {"origins": [PAGE]}})
        async with proxying(config, environ=keyed.environ) as proxy:
            await proxy.ask("GET", "/a", {"Origin": PAGE})
            shown = await newest(proxy)
    varying = [each for each in shown["response"]["fields"] if each[0] == "Vary"]
    ours = "added: rewrite.cors of the route: the proxy's own grant"
    assert varying == [["Vary", "Origin", None], ["Vary", "Origin", None], ["Vary", "Origin", ours]]


async def test_a_field_that_a_client_key_stands_in_and_a_cookie_that_the_route_removes_say_so(
    proxying: StartProxy, keyed: Keyed
) -> None:
    """And the key that a client shows as its Authorization, on a route that has a credential elsewhere."""
    key = "key-of-the-client-0123456789"
    rules: dict[str, Any] = {"headers": {"remove": ["Cookie"]}, "inject": "if-absent"}
    config = keyed.config("", top={"guard": {"client_key": {"env": "KEY"}}}, **rules)
    async with api() as upstream:
        config["routes"][0]["upstream"] = upstream.url
        async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
            sent = {"Authorization": f"Bearer {key}", "X-Copy": f"a {key}", "Cookie": "a=1"}
            assert (await proxy.ask("GET", "/a", sent)).status == 200
            shown = await newest(proxy)
    came = notes(shown["request"]["fields"])
    assert came["authorization"] == "dropped: the client key is for the proxy alone"
    assert came["x-copy"] == "dropped: a client key stands in it"
    assert came["cookie"] == "dropped: headers.remove of the route"


@pytest.mark.threat(82)
async def test_082_a_password_in_an_address_is_not_shown(proxying: StartProxy, keyed: Keyed) -> None:
    """In none of the fields that hold one; the rest of the address is."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(headers={"Location": "https://me:hunter-4711@other.example/b"})

    async with api(answer) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a", {"Referer": "https://hunter-4711@other.example/a"})
        shown = await newest(proxy)
    assert "hunter" not in str(shown)
    assert ["Referer", "https://***@other.example/a"] in [field[:2] for field in shown["request"]["fields"]]
    assert ["Location", "https://me:***@other.example/b"] in [field[:2] for field in shown["response"]["fields"]]


@pytest.mark.threat(82)
@pytest.mark.parametrize(
    "escape",
    [
        lambda token: "".join(f"%{ord(letter):02X}" for letter in token),
        lambda token: f"%25{ord(token[0]):02x}{token[1:]}",
        lambda token: "".join(f"\\u{ord(letter):04x}" for letter in token),
    ],
)
async def test_082_a_token_with_more_escapes_than_it_needs_is_not_shown(
    escape: Callable[[str], str], proxying: StartProxy, keyed: Keyed
) -> None:
    """Neither by the inspector nor in the log, wherever a client puts it."""
    written = escape(keyed.token)
    in_a_target = written if "%" in written else quote(written)
    fields = dict.fromkeys(("User-Agent", "If-Match", "Referer"), written)
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        assert (await proxy.ask("GET", f"/{in_a_target}/a?page={in_a_target}&{in_a_target}", fields)).status == 200
        shown = await newest(proxy)
        await proxy.told(lambda lines: len(lines) == 1)
        said = proxy.log.getvalue()
    assert (shown["path"], shown["query"]) == ("/***/a", "page=***&***")
    assert "/***/a" in said
    assert written not in said + json.dumps(shown).replace("\\\\", "\\")
    assert {value for name, value, _note in shown["request"]["fields"] if name in fields} == {"***"}
