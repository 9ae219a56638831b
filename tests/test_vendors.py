"""The three vendors' presets and the plain credentials, end to end, switch by switch."""

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import Vanilla
from tests.support.api import Seen, api
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.support.vendors import Vendor

DAY = 86400
REJECTED = 'bearer-proxy; details="credential rejected"'


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


def with_credential(vendor: Vendor[Any], **more: Any) -> dict[str, Any]:
    """The vendor's short form with further keys in the credential."""
    return {"upstream": vendor.url, "credential": {**vendor.credential, **more}}


# -- TeleTracker


@pytest.mark.parametrize(
    ("switches", "honour", "places"),
    [
        ({}, "authorization", {"header:authorization", "header:authentication"}),
        ({}, "authentication", {"header:authorization", "header:authentication"}),
        ({}, "both", {"header:authorization", "header:authentication"}),
        ({"authentication": False}, "authorization", {"header:authorization"}),
        ({"authorization": False}, "authentication", {"header:authentication"}),
    ],
)
async def test_teletracker_gets_its_token_in_both_headers_or_in_the_one_that_is_on(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    clock: HeldClock,
    *,
    switches: Mapping[str, bool],
    honour: str,
    places: set[str],
) -> None:
    """Whichever the server reads; what the client has in either of them never arrives."""
    tracker.double.set(honour=honour)
    config = with_credential(tracker, **switches)
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        own = {"authorization": "Bearer mine", "Authentication": "Bearer mine"}
        assert (await proxy.ask("GET", "/calls", own)).status == 200
    entry = tracker.double.journal[-1]
    assert set(entry.places) == places
    assert len(entry.places) == len(places)
    assert entry.generation == 1


async def test_teletracker_in_403_mode_is_refreshed_and_the_refresh_token_rotated(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """Three expiries in a row; each refresh token is used once."""
    tracker.double.set(refusal_status=403)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(4):
            assert (await proxy.ask("GET", "/calls")).status == 200
            tracker.double.expire()
    assert tracker.double.token_requests == {"login": 1, "refresh": 3}
    assert tracker.double.refusals == {403: 3}
    assert tracker.double.refresh_reuses == 0


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_teletracker_logs_in_again_where_the_refresh_token_is_gone(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, status: int
) -> None:
    """However the vendor says so."""
    tracker.double.set(reuse_status=status)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        tracker.double.revoke_refresh()
        assert (await proxy.ask("GET", "/calls")).status == 200
    assert tracker.double.token_requests == {"login": 2, "refresh": 1}


@pytest.mark.parametrize("minutes", [-600, 600])
async def test_093_teletrackers_wrong_clock_changes_nothing(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, minutes: int
) -> None:
    """The lifetime counts, not the absolute time beside it."""
    tracker.double.set(skew_minutes=minutes)
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/calls")).status == 200
        clock.move(3600 - 61)
        assert (await proxy.ask("GET", "/calls")).status == 200
        assert tracker.double.token_requests == {"login": 1}
        clock.move(62)
        assert (await proxy.ask("GET", "/calls")).status == 200
    assert tracker.double.token_requests == {"login": 1, "refresh": 1}
    assert tracker.double.refusals == {}


@pytest.mark.parametrize(
    ("more", "account", "grants"),
    [
        ({}, 4711, {"login": 1}),
        ({"account_id": 4712}, 4712, {"login": 1}),
        ({"masquerade_path": "/auth/masquerade", "masquerade_account": 4712}, 4712, {"login": 1, "masquerade": 1}),
    ],
    ids=["default", "account_id", "masquerade"],
)
async def test_teletracker_acts_on_the_account_that_is_named(
    proxying: StartProxy,
    tracker: Vendor[TeleTracker],
    clock: HeldClock,
    *,
    more: Mapping[str, Any],
    account: int,
    grants: Mapping[str, int],
) -> None:
    """At login, or by a second step with the bearer of the first; a refresh keeps the account."""
    async with proxying(with_credential(tracker, **more), environ=tracker.environ, clock=clock) as proxy:
        for _ in range(2):
            answer = await proxy.ask("GET", "/calls")
            assert {call["account_id"] for call in answer.json()["data"]} == {account}
            assert tracker.double.token_requests == grants
            grants = {**grants, "refresh": 1}
            tracker.double.expire()


async def test_a_second_step_that_is_refused_is_a_rejected_credential(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """The token of the first step is not used instead."""
    config = with_credential(tracker, masquerade_path="/auth/masquerade", masquerade_account=9999)
    async with proxying(config, environ=tracker.environ, clock=clock) as proxy:
        for _ in range(3):
            answer = await proxy.ask("GET", "/calls")
            assert (answer.status, answer.code) == (502, "credential_rejected")
            assert "step 1 after login" in answer.json()["detail"]
    assert tracker.double.token_requests == {"login": 1, "masquerade": 1}
    assert "GET /calls" not in tracker.double.requests


@pytest.mark.parametrize(
    "target", ["/auth/login", "/auth/refresh", "/AUTH/login", "//auth/login", "/x/../auth/login"]
)
async def test_teletrackers_token_endpoints_are_not_for_clients(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, target: str
) -> None:
    """A token of the account must not come out as an answer."""
    async with proxying(tracker.config, environ=tracker.environ, clock=clock) as proxy:
        assert (await proxy.ask("POST", target, {}, b"x=y")).code == "path_denied"
    assert tracker.double.requests == {}


# -- MainBrainer


@pytest.mark.parametrize("in_header", [False, True], ids=["body", "header"])
@pytest.mark.parametrize("slash", [False, True], ids=["token", "token/"])
async def test_mainbrainers_private_token_goes_into_the_body_or_a_header(
    proxying: StartProxy, brainer: Vendor[MainBrainer], clock: HeldClock, *, in_header: bool, slash: bool
) -> None:
    """Also under the vendor's other name, and with the older portal's path."""
    brainer.double.set(private_token_in="header" if in_header else "body")
    more = {"private_token_in": {"header": "privateToken"}} if in_header else {}
    config = with_credential(brainer, preset="loyalty-communication", trailing_slash=slash, **more)
    async with proxying(config, environ=brainer.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/customers")).status == 200
        assert (await proxy.ask("GET", "/customers")).status == 200
    assert brainer.double.requests == {"POST /token/" if slash else "POST /token": 1, "GET /customers": 2}


async def test_mainbrainers_minutes_are_minutes_and_expiry_is_a_new_login(
    proxying: StartProxy, brainer: Vendor[MainBrainer], clock: HeldClock
) -> None:
    """`expires_in` is 120; a client sees no refusal."""
    async with proxying(brainer.config, environ=brainer.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/customers")).status == 200
        clock.move(7200 - 61)
        assert (await proxy.ask("GET", "/customers")).status == 200
        assert brainer.double.token_requests == {"login": 1}
        clock.move(62)
        assert (await proxy.ask("GET", "/customers")).status == 200
        assert brainer.double.token_requests == {"login": 2}
        brainer.double.expire()
        assert (await proxy.ask("GET", "/customers")).status == 200
    assert brainer.double.token_requests == {"login": 3}
    assert brainer.double.refusals == {401: 1}


async def test_mainbrainers_403_is_no_expiry(
    proxying: StartProxy, brainer: Vendor[MainBrainer], clock: HeldClock
) -> None:
    """Its preset narrows `refresh_on` to 401; written in the route, it is wide again."""
    brainer.double.set(refusal_status=403)
    async with proxying(brainer.config, environ=brainer.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/customers")).status == 200
        brainer.double.expire()
        assert (await proxy.ask("GET", "/customers")).status == 403
        assert brainer.double.token_requests == {"login": 1}
    async with proxying({**brainer.config, "refresh_on": [403]}, environ=brainer.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/customers")).status == 200
        brainer.double.expire()
        assert (await proxy.ask("GET", "/customers")).status == 200
    assert brainer.double.token_requests == {"login": 3}


@pytest.mark.parametrize(("validity", "seconds"), [("ShortLive", 15 * 60), ("LongLive", 30 * DAY)])
async def test_mainbrainers_validity_is_asked_for(
    proxying: StartProxy, brainer: Vendor[MainBrainer], clock: HeldClock, *, validity: str, seconds: int
) -> None:
    """And the lifetime that comes back is what counts."""
    config = with_credential(brainer, validity=validity)
    async with proxying(config, environ=brainer.environ, clock=clock) as proxy:
        assert (await proxy.ask("GET", "/customers")).status == 200
        [state] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
        assert state["expires_in"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, (502, "credential_rejected")), (401, (502, "credential_rejected")), (403, (502, "credential_rejected")),
     (409, (502, "credential_rejected")), (422, (502, "credential_rejected")),
     (429, (503, "credential_unavailable")), (500, (503, "credential_unavailable"))],
)  # fmt: skip
async def test_a_login_that_fails_is_asked_once_and_told_apart(
    proxying: StartProxy, brainer: Vendor[MainBrainer], clock: HeldClock, *, status: int, expected: tuple[int, str]
) -> None:
    """For good with these secrets, or worth another try later; nothing reaches the upstream."""

    async def refuse(_seen: Seen) -> web.StreamResponse:
        return web.json_response({"message": "no"}, status=status)

    async with api(refuse) as login:
        config = with_credential(brainer, base_url=login.url)
        async with proxying(config, environ=brainer.environ, clock=clock) as proxy:
            for _ in range(3):
                answer = await proxy.ask("GET", "/customers")
                assert (answer.status, answer.code) == expected
        assert len(login.seen) == 1
    assert brainer.double.requests == {}


# -- Vanilla


@pytest.mark.parametrize(("where", "place"), [("header", "header:authorization"), ("query", "query:access_token")])
@pytest.mark.parametrize(
    ("query", "arrives"),
    [
        ("", ""),
        ("?limit=3", "?limit=3"),
        ("?access_token=mine&limit=3", "?limit=3"),
        ("?limit=3&access%5Ftoken=mine", "?limit=3"),
        ("?ACCESS_TOKEN=mine", ""),
        ("?access_token[]=mine&a", "?a"),
        ("?a;access_token=mine", "?a"),
        ("?access.token=mine&access_token=&access+token=mine", ""),
    ],
)
async def test_vanilla_gets_its_token_in_one_place_and_none_of_the_clients(
    proxying: StartProxy,
    forum: Vendor[Vanilla],
    clock: HeldClock,
    *,
    where: str,
    place: str,
    query: str,
    arrives: str,
) -> None:
    """The query wins over the header there, so a stray token of the client would win over ours."""
    config = with_credential(forum, **{"in": where})
    async with proxying(config, environ=forum.environ, clock=clock) as proxy:
        own = {"Authorization": "Bearer mine", "X-Vanilla-Spoof": "1"}
        answer = await proxy.ask("GET", f"/api/v2/users/me{query}", own)
        assert answer.json()["name"] == "member"
    [entry] = forum.double.journal
    assert entry.places == (place,)
    if where == "query":
        arrives = f"{arrives}&access_token=***" if arrives else "?access_token=***"
    assert entry.target == f"/api/v2/users/me{arrives}"


async def test_a_vanilla_token_that_is_not_taken_is_noticed_on_a_200(
    proxying: StartProxy, forum: Vendor[Vanilla], clock: HeldClock
) -> None:
    """A guest's answer passes unchanged, with a word that the credential is bad; nothing is repeated."""
    async with proxying(forum.config, environ=forum.environ, clock=clock) as proxy:
        good = await proxy.ask("GET", "/api/v2/discussions")
        assert len(good.json()) == 2
        assert good.all("proxy-status") == []
        forum.double.expire()
        guest = await proxy.ask("GET", "/api/v2/discussions")
        assert (guest.status, len(guest.json())) == (200, 1)
        assert guest["proxy-status"] == REJECTED
        assert "invalid_token" in guest["x-www-authenticate"]
        denied = await proxy.ask("GET", "/api/v2/users/me")
        assert (denied.status, denied["proxy-status"]) == (403, REJECTED)
    assert len(forum.double.journal) == 3


async def test_a_plain_403_of_vanilla_means_that_the_user_may_not(
    proxying: StartProxy, forum: Vendor[Vanilla], clock: HeldClock
) -> None:
    """It says nothing about the token."""
    forum.double.set(forbidden_paths=["/api/v2/discussions"])
    async with proxying(forum.config, environ=forum.environ, clock=clock) as proxy:
        answer = await proxy.ask("GET", "/api/v2/discussions")
    assert answer.status == 403
    assert answer.json()["permissions"] == ["Garden.Settings.Manage"]
    assert answer.all("proxy-status") == []


@pytest.mark.parametrize(
    ("days", "event"), [(31, None), (29, "token_expires_soon"), (-1, "token_expired")], ids=["31", "29", "past"]
)
async def test_the_end_of_a_vanilla_token_is_read_from_it_and_warned_of(
    proxying: StartProxy, forum: Vendor[Vanilla], clock: HeldClock, days: int, event: str | None
) -> None:
    """Offline, at the start; the state of the credential shows it too."""
    left = forum.double.switches.lifetime - days * DAY
    clock.move(left)
    async with proxying(forum.config, environ=forum.environ, clock=clock) as proxy:
        [state] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
        assert state["expires_in"] == pytest.approx(days * DAY, abs=1)
        warned = {name: proxy.lines(name) for name in ("token_expires_soon", "token_expired")}
    assert [name for name, lines in warned.items() if lines] == ([event] if event else [])
    for lines in warned.values():
        for line in lines:
            assert (line["level"], line["credential"], line["days"]) == ("warning", "default", days)


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/api/v2/tokens"), ("GET", "/api/v2/tokens/1?transientKey=x"), ("DELETE", "/sub/api/v2/tokens/1"),
     ("GET", "/API/v2/tokens/1"), ("GET", "/api//v2/tokens/1"), ("GET", "/api/v2/token%73/1")],
)  # fmt: skip
async def test_vanillas_tokens_are_not_for_clients(
    proxying: StartProxy, forum: Vendor[Vanilla], clock: HeldClock, method: str, target: str
) -> None:
    """Neither made nor shown nor revoked."""
    async with proxying(forum.config, environ=forum.environ, clock=clock) as proxy:
        assert (await proxy.ask(method, target)).code == "path_denied"
    assert not forum.double.journal


# -- plain credentials


@pytest.mark.threat(49)
@pytest.mark.parametrize(
    ("place", "arrives"),
    [
        ({"header": "Authorization"}, {"authorization": "Bearer {t}"}),
        ({"header": "Authorization", "scheme": "token"}, {"authorization": "token {t}"}),
        ({"header": "Authorization", "scheme": None}, {"authorization": "{t}"}),
        ({"header": "PRIVATE-TOKEN"}, {"private-token": "{t}"}),
        ({"header": "X-Api-Key", "scheme": "Key"}, {"x-api-key": "Key {t}"}),
        ({"query": "access_token"}, {"query": "access_token={t}"}),
        ({"cookie": "session"}, {"cookie": "other=1; session={t}"}),
        (
            [{"header": "X-Api-Key"}, {"query": "key"}, {"cookie": "session"}, {"header": "Authorization"}],
            {
                "x-api-key": "{t}",
                "query": "key={t}",
                "cookie": "other=1; session={t}",
                "authorization": "Bearer {t}",
            },
        ),
    ],
    ids=["Bearer", "scheme", "raw", "PRIVATE-TOKEN", "X-Api-Key", "query", "cookie", "several"],
)
async def test_a_static_token_goes_where_its_places_say(
    proxying: StartProxy, keyed: Keyed, place: Any, arrives: Mapping[str, str]
) -> None:
    """Once in each, and the client's own value is gone from each, from Authorization and from beside a bearer."""
    own = {"Authorization": "Basic bWU6bWU=", "Cookie": "other=1"}
    for each in [place] if isinstance(place, dict) else place:
        match each:
            case {"header": name}:
                own[name] = "mine"
            case {"cookie": name}:
                own["Cookie"] += f"; {name}=mine"
    async with api() as upstream:
        config = keyed.config(upstream.url)
        config["credentials"] = {"default": keyed.credential(place=place, headers={"X-Version": "3"})}
        async with proxying(config, environ=keyed.environ) as proxy:
            assert (await proxy.ask("GET", "/?a=mine&key=mine&access_token=mine", own)).status == 200
        [seen] = upstream.seen
    wanted = {name: value.format(t=keyed.token) for name, value in arrives.items()}
    for name in ("authorization", "private-token", "x-api-key"):
        assert seen.all(name) == ([wanted[name]] if name in wanted else [])
    assert seen.all("cookie") == [wanted.get("cookie", "other=1")]
    assert seen.all("x-version") == ["3"]
    name, _, _ = wanted.get("query", "").partition("=")
    # Beside a bearer token in a header, one in the query is a second method (RFC 6750 section 2).
    taken = {name, "access_token"} if wanted.get("authorization", "").startswith("Bearer ") else {name}
    kept = "&".join(f"{each}=mine" for each in ("a", "key", "access_token") if each not in taken)
    assert seen.target == f"/?{kept}" + (f"&{wanted['query']}" if name else "")


@pytest.mark.threat(57)
@pytest.mark.parametrize(
    ("status", "challenge", "said"),
    [
        (401, "", [REJECTED]),
        (401, "Bearer", [REJECTED]),
        (401, 'Bearer error="insufficient_scope"', []),
        (403, "", []),
        (403, 'Bearer error="invalid_token"', [REJECTED]),
        (500, "", []),
    ],
)
async def test_a_static_token_that_is_refused_is_told_and_not_tried_again(
    proxying: StartProxy, keyed: Keyed, status: int, challenge: str, said: list[str]
) -> None:
    """The upstream's answer passes unchanged; a bare 403 says nothing about the token. So it is in its state."""

    async def refuse(_seen: Seen) -> web.StreamResponse:
        return web.Response(status=status, text="no", headers={"WWW-Authenticate": challenge} if challenge else {})

    async with api(refuse) as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        answer = await proxy.ask("GET")
        assert (answer.status, answer.body) == (status, b"no")
        assert answer.all("www-authenticate") == ([challenge] if challenge else [])
        assert answer.all("proxy-status") == said
        assert len(upstream.seen) == 1
        [report] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
        assert report["state"] == "fresh"
        assert ("an upstream said that the fixed token" in (report["last_error"] or "")) == bool(said)


async def test_a_login_of_several_steps_carries_each_token_into_the_next(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """The bearer of each step is the token of the one before; only the last one goes upstream."""
    tokens = [canaries.mint("token") for _ in range(3)]

    async def answer(seen: Seen) -> web.StreamResponse:
        step = ["/login", "/choose", "/elevate"].index(seen.target)
        return web.json_response({"result": {"jwt": tokens[step]}, "ttl": 60_000})

    async with api(answer) as vendor, api() as upstream:
        steps = [
            {"url": f"{vendor.url}/choose", "encoding": "json", "fields": {"tenant": 7, "t": "$access_token"}},
            {"url": f"{vendor.url}/elevate", "encoding": "form", "fields": {"why": "a b"}},
        ]
        login = {"url": f"{vendor.url}/login", "encoding": "json", "fields": {"pin": {"env": "PIN"}}}
        response = {"token": "/result/jwt", "lifetime": "/ttl", "lifetime_unit": "milliseconds"}
        credential = {"type": "login", "login": login, "then": steps, "response": response}
        config = {"upstream": upstream.url, "credential": credential}
        async with proxying(config, environ={"PIN": canaries.mint("key")}, clock=clock) as proxy:
            assert (await proxy.ask("GET")).status == 200
            clock.move(60)
            assert (await proxy.ask("GET")).status == 200
        bearers = [seen.all("authorization") for seen in vendor.seen]
        assert bearers == [[], [f"Bearer {tokens[0]}"], [f"Bearer {tokens[1]}"]] * 2
        assert vendor.seen[2].body == b"why=a+b"
        assert f'"{tokens[0]}"'.encode() in vendor.seen[1].body
        assert [seen.all("authorization") for seen in upstream.seen] == [[f"Bearer {tokens[2]}"]] * 2
