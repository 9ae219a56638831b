"""Why a request was answered as it was: one true reason for each refusal that stays, and what mends it."""

from typing import Any, Final

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import head, within
from tests.support.routes import Keyed
from tests.support.upstreams import CLOSE, REQUEST, Upstream
from tests.support.vendors import Vendor
from tests.test_inspector import ask, newest
from tests.test_inspector_messages import listening

ADMIN: Final = {"admin": {"listen": "127.0.0.1:0"}}
PHASES: Final = ("guard_ms", "token_wait_ms", "connect_ms", "first_byte_ms", "body_ms")


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token."""
    return Keyed(canaries.mint("token"))


async def why(proxy: Proxy) -> str:
    """What is said of the exchange that came last."""
    said: str = (await newest(proxy))["why"]
    return said


def adds_up(shown: dict[str, Any]) -> bool:
    """Do the phases make up the whole, as far as they are rounded?"""
    timing = shown["timing"]
    return bool(abs(sum(timing[phase] or 0.0 for phase in PHASES) - timing["total_ms"]) < 0.04)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "This is a fixed token: make a new one at the vendor and put it in its place."),
        (
            403,
            "This is a fixed token, and the answer does not say that it is bad: the credential may lack a right.",
        ),
    ],
)
async def test_a_fixed_token_that_was_refused_is_told_from_one_that_lacks_a_right(
    proxying: StartProxy, keyed: Keyed, status: int, reason: str
) -> None:
    """A 401 says that the token is bad; a bare 403 does not."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=status)

    async with api(answer) as upstream:
        config = keyed.config(upstream.url, refresh_on=[401, 403])
        async with proxying(config, environ=keyed.environ) as proxy:
            await proxy.ask("GET", "/a")
            assert await why(proxy) == (
                f"Route default (/) led to {upstream.url}, which answered {status}. "
                f"It refused generation 1 of credential default. {reason}"
            )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "Neither refresh_on nor expired names this status, so no newer token was asked for."),
        (
            'Bearer error="insufficient_scope"',
            "By what it says this answer does not refuse the token, so no newer one was asked for.",
        ),
    ],
)
async def test_a_403_that_is_no_refusal_of_the_token_is_told_as_that(
    proxying: StartProxy, keyed: Keyed, said: str, reason: str
) -> None:
    """The route does not take it for one, or the answer itself says that it is none."""

    async def answer(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=403, headers={"WWW-Authenticate": said} if said else {})

    async with api(answer) as upstream:
        config = keyed.config(upstream.url, refresh_on=[401, 403] if said else [401])
        async with proxying(config, environ=keyed.environ) as proxy:
            await proxy.ask("GET", "/a")
            assert (await why(proxy)).endswith(f"Credential default was added, generation 1. {reason}")


async def test_a_token_request_that_failed_is_told_with_its_failure(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Nobody has to look for it in the log; and the wait for it is counted once."""
    async with proxying({**tracker.config, **ADMIN}, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        tracker.double.set(token_endpoint="down")
        assert (await proxy.ask("GET", "/calls")).status == 401
        shown = await newest(proxy)
    assert "It refused generation 1 of credential default. No newer token could be had: " in shown["why"]
    assert "503" in shown["why"]
    assert adds_up(shown), shown["timing"]


async def test_a_refusal_that_newer_tokens_do_not_cure_is_told_as_such(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """First after two attempts, then without another token request, as long as the gate is closed."""
    tracker.double.set(forbidden_paths=["/calls"], refusal_status=403)
    async with proxying({**tracker.config, **ADMIN}, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 403
        twice = await newest(proxy)
        assert (await proxy.ask("GET", "/calls")).status == 403
        assert (await why(proxy)).endswith(
            "It refused generation 2 of credential default. Asking for a newer token did not help a moment ago, "
            "so none was asked for now: the credential may lack a right."
        )
    assert "It refused credential default twice, the second time generation 2, which was newer" in twice["why"]
    assert adds_up(twice), twice["timing"]


async def test_a_vendor_that_gives_the_same_token_again_is_told(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """It was asked, and there is nothing to send."""
    token = canaries.mint("token")

    async def answer(seen: Seen) -> web.StreamResponse:
        return web.json_response({"access_token": token}) if seen.target == "/login" else web.Response(status=401)

    async with api(answer) as upstream:
        login = {"url": f"{upstream.url}/login", "fields": {"user": "ann"}}
        config = {"upstream": upstream.url, "credential": {"type": "login", "login": login}, **ADMIN}
        async with proxying(config, clock=clock) as proxy:
            assert (await proxy.ask("GET", "/a")).status == 401
            assert (await why(proxy)).endswith(
                "The same token came back when a newer one was asked for: to send it again proves nothing."
            )


async def test_a_body_that_could_not_be_sent_again_is_told(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """With what mends it."""
    config = {**tracker.config, **ADMIN, "replay": {"memory": "1KiB", "disk": 0}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        assert (await proxy.ask("POST", "/echo-size", body=b"x" * 65536)).status == 401
        assert (await why(proxy)).endswith(
            "A newer token is there now, but the body was longer than replay keeps, so it could not be sent again: "
            "send the request anew, or raise replay."
        )


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"deny": [{"paths": ["/b"]}, {"paths": ["/a*"]}]}, "deny: all methods of /a*"),
        ({"allow": [{"methods": ["POST", "PUT"], "paths": ["/a"]}]}, "no entry of allow holds: POST, PUT of /a"),
    ],
)
async def test_a_denied_path_names_its_rule(
    proxying: StartProxy, keyed: Keyed, rules: dict[str, Any], told: str
) -> None:
    """In the words of `explain`; the client is not told."""
    async with api() as upstream, proxying(keyed.config(upstream.url, **rules), environ=keyed.environ) as proxy:
        answer = await proxy.ask("GET", "/a")
        assert (answer.code, told in answer.body.decode()) == ("path_denied", False)
        assert await why(proxy) == f"The proxy itself said path_denied, on route default. Its rules say: {told}."


async def test_the_rule_of_a_client_key_is_told_as_that(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries
) -> None:
    """No route was looked for."""
    key = canaries.mint("key")
    guard = {"guard": {"client_keys": {"ci": {"key": {"env": "CI"}, "methods": ["GET"], "paths": ["/b"]}}}}
    async with api() as upstream:
        config = keyed.config(upstream.url, top=guard)
        async with proxying(config, environ={**keyed.environ, "CI": key}) as proxy:
            answer = await proxy.ask("GET", "/a", {"X-Proxy-Key": key})
            assert answer.code == "path_denied"
            said = "The proxy itself said path_denied. Its rules say: the key of client ci is for GET of /b."
            assert await why(proxy) == said


async def test_where_no_route_matches_that_is_said(proxying: StartProxy, keyed: Keyed) -> None:
    """It was looked for."""
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url, prefix="/v2"), environ=keyed.environ) as proxy,
    ):
        assert (await proxy.ask("GET", "/a")).code == "no_route"
        said = "The proxy itself said no_route. No route of this proxy matches the host and path."
        assert await why(proxy) == said


async def test_without_a_token_the_reason_is_the_one_that_the_client_got(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """And nothing is said of an upstream that was not asked."""
    tracker.double.set(token_endpoint="down")
    async with proxying({**tracker.config, **ADMIN}, environ=tracker.environ, clock=clock) as proxy:
        answer = await proxy.ask("GET", "/calls")
        assert answer.code == "credential_unavailable"
        said = f"The proxy itself said credential_unavailable, on route default. {answer.json()['detail']}"
        assert await why(proxy) == said


async def test_an_upstream_that_fails_is_told_with_its_way(proxying: StartProxy, keyed: Keyed) -> None:
    """Where it led, with which token, and what went wrong."""
    async with api() as upstream:
        url = upstream.url
    async with proxying(keyed.config(url), environ=keyed.environ) as proxy:
        answer = await proxy.ask("GET", "/a")
        assert answer.code == "upstream_unreachable"
        assert await why(proxy) == (
            f"Route default (/) led to {url}, which did not answer. Credential default was added, generation 1. "
            f"The proxy itself said upstream_unreachable, on route default. {answer.json()['detail']}"
        )


async def test_a_client_that_leaves_is_told_behind_the_way(proxying: StartProxy, keyed: Keyed) -> None:
    """The route, the credential, and the upstream's 200 stay."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with (
        Upstream([REQUEST, begun]) as upstream,
        proxying(keyed.config(upstream.origin), environ=keyed.environ) as proxy,
    ):
        async with proxy.connect() as client:
            client.send(head("GET", "/a"))
            await within(client.reader.readuntil(b"half"))
        await proxy.told(lambda lines: len(lines) == 1)
        assert await why(proxy) == (
            f"Route default (/) led to {upstream.origin}, which answered 200. Credential default was added, "
            "generation 1. The client hung up before it had the whole answer."
        )


async def test_while_a_newer_token_is_waited_for_that_is_said(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """No time of it is the body's; a client that leaves meanwhile got nothing of the refusal's reason."""
    async with proxying({**tracker.config, **ADMIN}, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        tracker.double.set(token_endpoint="slow")
        async with listening(proxy) as page, proxy.connect() as client:
            client.send(head("GET", "/calls"))
            await within(tracker.double.holding())
            while not (begun := await page.next("exchange"))["live"]:
                pass
            live = (await ask(proxy, "GET", f"/api/exchanges/{begun['id']}")).json()
        await proxy.told(lambda lines: len(lines) == 2)
        left = await why(proxy)
        tracker.double.release()
    refused = "which answered 401. It refused generation 1 of credential default."
    assert live["why"].endswith(f"{refused} A newer token is waited for.")
    assert live["timing"]["body_ms"] is None
    assert left.endswith(f"{refused} The client hung up before it had the whole answer.")


async def test_a_repeat_that_gets_no_answer_is_not_called_accepted(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """It was sent with a newer token; whether that is good nobody knows."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    async with Upstream([REQUEST, refused], [REQUEST, b"nonsense\r\n\r\n", CLOSE]) as upstream:
        config = {**tracker.config, **ADMIN, "upstream": str(upstream.origin)}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
            answer = await proxy.ask("POST", "/a", body=b"1")
            assert answer.code == "upstream_protocol"
            said = await why(proxy)
    assert (
        "which did not answer. It refused the token of credential default once; the request was sent again with "
        "generation 2. The proxy itself said upstream_protocol, on route default. "
    ) in said
