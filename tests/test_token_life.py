"""The life of a token as clients and vendors see it: one token request, whatever happens at once."""

import asyncio
import functools
import hashlib
from collections import Counter

import pytest
from aiohttp import web

from proxy.demo.teletracker import TeleTracker
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.vendors import Vendor
from tests.support.waiting import until


async def at_once(proxy: Proxy, count: int, path: str = "/calls") -> Counter[int]:
    """Statuses of `count` requests sent at the same time, each on a connection of its own."""
    answers = await asyncio.gather(*(proxy.ask("GET", path) for _ in range(count)))
    return Counter(answer.status for answer in answers)


@pytest.mark.unmeasured
@pytest.mark.threat(86)
async def test_086_500_requests_at_once_on_an_expired_token_cost_one_token_request(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The token's life is over; everybody waits for the same refresh."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(3601)
        assert await at_once(proxy, 500) == {200: 500}
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        assert tracker.double.refusals == {}


@pytest.mark.unmeasured
@pytest.mark.threat(86)
async def test_086_500_requests_refused_at_once_cost_one_token_request(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The vendor forgot the token before its time; every request is refused, one refresh cures all."""
    config = {**tracker.config, "pool": {"size": 500}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        # Hold the refresh until every request was refused, so that all 500 really carried the old token.
        tracker.double.set(token_endpoint="slow")
        tracker.double.expire()
        asking = asyncio.create_task(at_once(proxy, 500))
        await until(lambda: sum(tracker.double.refusals.values()) == 500)
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        assert await asking == {200: 500}
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        assert tracker.double.refusals == {401: 500}


async def test_086_first_requests_at_once_share_one_login(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Nobody asked before; one login serves all."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert await at_once(proxy, 50) == {200: 50}
        assert tracker.double.token_requests == {"login": 1}


@pytest.mark.threat(87)
async def test_087_a_client_that_hangs_up_during_the_refresh_loses_nothing(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The one that began the refresh is gone; the refresh ends all the same, and its tokens are used."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(3601)
        tracker.double.set(token_endpoint="slow")
        async with proxy.connect() as leader:
            leader.send(b"GET /calls HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await tracker.double.holding()
        async with proxy.connect() as waiter:
            waiter.send(b"GET /calls HTTP/1.1\r\nHost: localhost\r\n\r\n")
            tracker.double.set(token_endpoint="up")
            tracker.double.release()
            assert (await waiter.answer()).status == 200
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        clock.move(3601)
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert tracker.double.token_requests == {"login": 1, "refresh": 2}
        assert tracker.double.refresh_reuses == 0


@pytest.mark.threat(86)
async def test_a_late_401_of_an_old_generation_costs_no_token_request(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """A slow request went out with the old token and is refused after others were cured: it is just sent again."""
    refuse_the_late_one = asyncio.Event()
    arrived = asyncio.Event()

    async def answer(seen: Seen) -> web.StreamResponse:
        refused = any("generation 1" in line for line in [generation(seen)])
        if seen.target == "/late" and refused:
            arrived.set()
            await refuse_the_late_one.wait()
        return web.Response(status=401 if refused else 200)

    known: list[str] = []

    def generation(seen: Seen) -> str:
        [token] = seen.all("authorization")
        if token not in known:
            known.append(token)
        return f"generation {known.index(token) + 1}"

    async with api(answer) as upstream:
        config = {**tracker.config, "upstream": upstream.url}
        async with proxying(config, environ=tracker.environ, clock=clock) as proxy, proxy.connect() as late:
            late.send(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await arrived.wait()
            assert (await proxy.ask("GET", "/other")).status == 200
            assert tracker.double.token_requests == {"login": 1, "refresh": 1}
            refuse_the_late_one.set()
            assert (await late.answer()).status == 200
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        assert Counter(seen.target for seen in upstream.seen) == {"/late": 2, "/other": 2}


@pytest.mark.unmeasured
async def test_teletracker_403_with_strict_rotation_under_load(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """25 forced expiries while 16 clients ask without pause: no client sees an error, no refresh token is reused.

    The next expiry is forced only after every client was served with the newest token: a request that meets two
    expiries would be answered twice with a refusal, and twice is all that a request gets (invariant 6).
    """
    expiries, clients = 25, 16
    tracker.double.set(refusal_status=403)
    statuses: Counter[int] = Counter()
    served: Counter[int] = Counter()
    changed = asyncio.Condition()
    stop = False

    async def client(number: int, proxy: Proxy) -> None:
        async with proxy.connect() as connection:
            while not stop:
                target = f"/echo-size?n={number}-{served[number]}"
                answer = await connection.ask("POST", target, body=b"x" * 1000)
                statuses[answer.status] += 1
                async with changed:
                    served[number] += 1
                    changed.notify_all()

    def reached(wanted: dict[int, int]) -> bool:
        return all(served[number] >= count for number, count in wanted.items())

    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        running = [asyncio.create_task(client(number, proxy)) for number in range(clients)]
        for _ in range(expiries):
            # Twice: the first answer may belong to a request that the last expiry met.
            wanted = {number: served[number] + 2 for number in range(clients)}
            async with changed:
                await changed.wait_for(functools.partial(reached, wanted))
            tracker.double.expire()
        stop = True
        await asyncio.gather(*running)
        retried = [line for line in proxy.lines() if line["retried"]]

    assert statuses.keys() == {200}
    assert tracker.double.refresh_reuses == 0
    assert tracker.double.token_requests["login"] == 1
    assert tracker.double.token_requests["refresh"] <= expiries
    refusals = tracker.double.refusals[403]
    assert refusals >= 20
    assert len(retried) == refusals
    # Each refusal was followed by a repeat of the same request with a newer token, and that one was served.
    answered: dict[str, list[tuple[int, int]]] = {}
    for entry in tracker.double.journal:
        if entry.generation is not None:
            answered.setdefault(entry.target, []).append((entry.status, entry.generation))
    refused = [answers for answers in answered.values() if len(answers) > 1]
    assert len(refused) == refusals
    for (first, old), (second, new) in refused:
        assert (first, second) == (403, 200)
        assert new > old


@pytest.mark.threat(108)
async def test_a_valid_token_keeps_serving_while_the_token_endpoint_is_down(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Stale, the refresh ahead fails, and nobody notices."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.set(token_endpoint="down")
        clock.move(3600 - 30)
        assert await at_once(proxy, 20) == {200: 20}
        await until(lambda: proxy.lines("token_refresh_failed"))
        [failed] = proxy.lines("token_refresh_failed")
        assert failed["credential"] == "default"
        assert tracker.double.token_requests == {"login": 1, "refresh": 1}
        # Over, and still down: an expired token is never sent.
        clock.move(31)
        answer = await proxy.ask("GET", "/calls")
        assert (answer.status, answer.code) == (503, "credential_unavailable")


@pytest.mark.threat(52, 126)
async def test_052_without_a_token_the_upstream_sees_nothing(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """503 with Retry-After, within the back-off one token request in all, and it recovers by itself."""
    tracker.double.set(token_endpoint="down")
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(20):
            answer = await proxy.ask("GET", "/calls")
            assert (answer.status, answer.code) == (503, "credential_unavailable")
            assert 1 <= int(answer["retry-after"]) <= 300
            assert "default" in answer.json()["detail"] or "token endpoint" in answer.json()["detail"]
        assert tracker.double.token_requests == {"login": 1}
        assert tracker.double.requests == {"POST /auth/login": 1}
        tracker.double.set(token_endpoint="up")
        clock.move(300)
        assert (await proxy.ask("GET", "/calls")).status == 200


@pytest.mark.threat(107, 127)
async def test_107_a_wrong_password_is_tried_once_however_many_requests_and_restarts_follow(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, canaries: Canaries
) -> None:
    """The rejection is latched in the state folder, on exactly this secret."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    for _ in range(20):
        async with proxying(tracker.config, environ=wrong, clock=clock) as proxy, proxy.connect() as client:
            for _ in range(50):
                answer = await client.ask("GET", "/calls")
                assert (answer.status, answer.code) == (502, "credential_rejected")
                assert "'default'" in answer.json()["detail"]
                clock.move(400)
        assert tracker.double.requests == {"POST /auth/login": 1}
    assert tracker.double.token_requests == {"login": 1}
    # Another secret is another matter.
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
    # The wrong one is still known.
    async with proxying(tracker.config, environ=wrong, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 502
    assert tracker.double.token_requests == {"login": 2}


async def test_107_a_person_can_have_a_rejected_secret_tried_again(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, canaries: Canaries
) -> None:
    """The password was right and the account locked: the forced refresh is one more attempt, no more."""
    wrong = {**tracker.environ, "TRACKER_PASSWORD": canaries.mint("password")}
    async with proxying(tracker.config, environ=wrong, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 502
        answer = await proxy.admin("POST", "/api/credentials/default/refresh")
        assert (answer.status, answer.code) == (502, "credential_rejected")
        assert tracker.double.token_requests == {"login": 2}
        assert (await proxy.ask("GET", "/calls")).status == 502
    assert tracker.double.token_requests == {"login": 2}


@pytest.mark.threat(99)
async def test_099_a_forbidden_path_costs_two_token_requests_and_elsewhere_a_401_is_cured(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """1,000 requests to a path that is forbidden whatever the token, within a second of the clock."""
    tracker.double.set(forbidden_paths=["/calls"])
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(20):
            assert await at_once(proxy, 50) == {403: 50}
            clock.move(0.05)
        before = dict(tracker.double.token_requests)
        assert sum(before.values()) - before["login"] <= 2
        tracker.double.expire()
        answer = await proxy.ask("POST", "/echo-size", body=b"abc")
        assert answer.status == 200
        assert sum(tracker.double.token_requests.values()) == sum(before.values()) + 1


@pytest.mark.threat(98)
async def test_098_the_gate_opens_again_after_its_pause_and_a_cure_opens_it_for_good(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Closed, a refusal passes; after the pause it is tried again; once cured, the next one is cured at once."""
    tracker.double.set(refusal_status=403, forbidden_paths=["/calls"])
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 403
        tracker.double.set(forbidden_paths=[])
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls")).status == 403
        clock.move(1.5)
        for _ in range(3):
            assert (await proxy.ask("GET", "/calls")).status == 200
            tracker.double.expire()


async def test_a_token_is_refreshed_ahead_behind_the_requests_back(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Within the margin the old token serves at once, and one refresh makes the next one."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(3600 - 30)
        tracker.double.set(token_endpoint="slow")
        assert await at_once(proxy, 20) == {200: 20}
        await tracker.double.holding()
        tracker.double.set(token_endpoint="up")
        tracker.double.release()
        await until(lambda: len(proxy.lines("token_refreshed")) == 2)
        clock.move(60)
        assert await at_once(proxy, 20) == {200: 20}
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}
    assert tracker.double.refusals == {}


@pytest.mark.threat(104)
@pytest.mark.parametrize("size", [0, 1, 1024, 64 * 1024 - 1, 64 * 1024])
async def test_104_a_body_up_to_the_bound_is_sent_again_byte_for_byte(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, size: int
) -> None:
    """The first attempt is refused; what the second one carries has the same SHA-256."""
    body = bytes(number % 251 for number in range(size))
    config = {**tracker.config, "replay": {"memory": "64KiB"}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        answer = await proxy.ask("POST", "/echo-size", body=body)
    assert answer.json()["data"] == [{"length": size, "sha256": hashlib.sha256(body).hexdigest()}]
    assert tracker.double.refusals == {401: 1}


@pytest.mark.threat(104)
async def test_104_a_body_over_the_bound_is_not_sent_again_and_the_client_is_told(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The refusal passes, the token is refreshed all the same, and the next try succeeds."""
    config = {**tracker.config, "replay": {"memory": "64KiB", "disk": 0}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        answer = await proxy.ask("POST", "/echo-size", body=b"x" * (64 * 1024 + 1))
        assert answer.status == 401
        assert answer["proxy-status"] == 'bearer-proxy; details="refreshed, body not replayable"'
        assert (await proxy.ask("POST", "/echo-size", body=b"x" * (64 * 1024 + 1))).status == 200
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}


@pytest.mark.threat(99)
async def test_099_a_401_that_was_cured_into_a_403_is_a_cured_401(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Who polls a forbidden path with an expired token must not close the gate for everybody's expiries."""
    tracker.double.set(forbidden_paths=["/calls"])
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(5):
            tracker.double.expire()
            assert (await proxy.ask("GET", "/calls")).status == 403
            tracker.double.expire()
            assert (await proxy.ask("POST", "/echo-size", body=b"abc")).status == 200


async def test_the_same_token_is_not_sent_twice_to_one_request(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """A vendor that gives its cached token again: the refusal passes, a POST is not done twice (refusals, 3)."""
    token = canaries.mint("token")

    async def answer(seen: Seen) -> web.StreamResponse:
        if seen.target == "/login":
            return web.json_response({"access_token": token})
        return web.Response(status=401)

    async with api(answer) as upstream:
        login = {"url": f"{upstream.url}/login", "fields": {"user": "ann"}}
        config = {"upstream": upstream.url, "credential": {"type": "login", "login": login}}
        async with proxying(config, clock=clock) as proxy:
            for _ in range(3):
                assert (await proxy.ask("POST", "/pay", body=b"1")).status == 401
    assert Counter(seen.target for seen in upstream.seen) == {"/login": 2, "/pay": 3}


async def test_who_waits_for_a_token_holds_no_connection_that_others_need(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The token endpoint hangs; refused requests wait for it, and a healthy path is served meanwhile."""
    tracker.double.set(forbidden_paths=["/calls"])
    config = {**tracker.config, "pool": {"size": 1}}
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("POST", "/echo-size", body=b"abc")).status == 200
        tracker.double.set(token_endpoint="slow")
        async with proxy.connect() as refused:
            refused.send(b"GET /calls HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await tracker.double.holding()
            assert (await proxy.ask("POST", "/echo-size", body=b"abc")).status == 200
            tracker.double.set(token_endpoint="up")
            tracker.double.release()
            assert (await refused.answer()).status == 403
