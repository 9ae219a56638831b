"""Credentials that stand on the tokens of others, in a running proxy: lent, renewed once, told apart."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiohttp import web

from tests.support.api import Api, Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries


class TwoStages:
    """A vendor whose first token gets the second one, and an API that takes the second."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self.first: list[str] = []
        self.second: list[str] = []
        self.exchanges: list[str] = []
        self.takes_first: Callable[[str], bool] = lambda token: token == self.first[-1]
        self.takes_second: Callable[[str], bool] = lambda token: token == self.second[-1]

    async def __call__(self, seen: Seen) -> web.StreamResponse:
        """The two token endpoints and the API."""
        if seen.target == "/first":
            self.first.append(self._canaries.mint("token"))
            return web.json_response({"access_token": self.first[-1], "expires_in": 600})
        bearer = "".join(seen.all("Authorization")).removeprefix("Bearer ")
        if seen.target == "/second":
            given = json.loads(seen.body)["jwt"]
            self.exchanges.append(given)
            if not self.takes_first(given):
                words = {"error": "invalid_grant", "error_description": "this jwt is not known"}
                return web.json_response(words, status=400)
            self.second.append(self._canaries.mint("token"))
            return web.json_response({"access_token": self.second[-1], "expires_in": 3600})
        return web.Response(status=200 if bearer and self.takes_second(bearer) else 401)


@pytest.fixture
def vendor(canaries: Canaries) -> TwoStages:
    """The vendor, not served yet."""
    return TwoStages(canaries)


def config(served: Api, **more: Any) -> dict[str, Any]:
    """`second` stands on `first`."""
    first = {"type": "login", "login": {"url": f"{served.url}/first"}, "response": {"lifetime": "/expires_in"}}
    second = {
        "type": "login",
        "login": {"url": f"{served.url}/second", "encoding": "json", "fields": {"jwt": {"credential": "first"}}},
        "response": {"lifetime": "/expires_in"},
    }
    return {
        "routes": [{"prefix": "/", "upstream": served.url, "credential": "second"}],
        "credentials": {"second": second, "first": first, **more},
    }


async def test_the_lenders_token_is_got_first_and_sent_where_it_is_wanted(
    proxying: StartProxy, vendor: TwoStages
) -> None:
    """One token request each; the lender's token reaches its borrower's endpoint only."""
    async with api(vendor) as served, proxying(config(served)) as proxy:
        assert (await proxy.ask("GET", "/x")).status == 200
        assert vendor.exchanges == vendor.first
        assert [seen.target for seen in served.seen] == ["/first", "/second", "/x"]
        assert vendor.first[0] not in str(served.seen[-1].headers)


async def test_a_lender_that_still_has_a_token_is_not_asked_again(
    proxying: StartProxy, vendor: TwoStages, clock: HeldClock
) -> None:
    """Each has a life of its own: the first one ends sooner here."""
    async with api(vendor) as served, proxying(config(served), clock=clock) as proxy:
        assert (await proxy.ask("GET", "/x")).status == 200
        vendor.takes_second = lambda token: token == vendor.second[-1] and len(vendor.second) > 1
        assert (await proxy.ask("GET", "/x")).status == 200
        assert (len(vendor.first), len(vendor.second)) == (1, 2)
        clock.move(4000)
        assert (await proxy.ask("GET", "/x")).status == 200
        assert (len(vendor.first), len(vendor.second)) == (2, 3)


async def test_a_revoked_first_token_is_renewed_once_before_the_rejection_counts(
    proxying: StartProxy, vendor: TwoStages
) -> None:
    """The vendor forgot the first token: the next one serves, and the client notices nothing."""
    async with api(vendor) as served, proxying(config(served)) as proxy:
        vendor.takes_first = lambda _token: len(vendor.first) > 1
        assert (await proxy.ask("GET", "/x")).status == 200
        assert vendor.exchanges == vendor.first
        assert len(vendor.first) == 2


async def test_a_rejection_that_no_newer_token_cures_is_tried_again_later(
    proxying: StartProxy, vendor: TwoStages, clock: HeldClock
) -> None:
    """502 now, without hammering; it is no password, so nothing is held against it for ever."""
    async with api(vendor) as served, proxying(config(served), clock=clock) as proxy:
        vendor.takes_first = lambda _token: False
        answers = [await proxy.ask("GET", "/x") for _ in range(3)]
        assert {(answer.status, answer.json()["code"]) for answer in answers} == {(502, "credential_rejected")}
        assert len(vendor.exchanges) == 2
        [event] = proxy.lines("token_refresh_failed")
        assert event["oauth_error_description"] == "this jwt is not known"
        vendor.takes_first = lambda _token: True
        clock.move(3600)
        assert (await proxy.ask("GET", "/x")).status == 200


async def test_a_lender_that_has_no_token_is_what_the_client_is_told(
    proxying: StartProxy, vendor: TwoStages
) -> None:
    """Nothing is sent to the borrower's endpoint with an empty value."""

    async def broken(seen: Seen) -> web.StreamResponse:
        return web.Response(status=503) if seen.target == "/first" else await vendor(seen)

    async with api(broken) as served, proxying(config(served)) as proxy:
        answer = await proxy.ask("GET", "/x")
        assert (answer.status, answer.json()["code"]) == (503, "credential_unavailable")
        assert "'first'" in answer.json()["detail"]
        assert vendor.exchanges == []


async def test_what_keeps_a_lender_from_a_token_is_not_held_against_its_borrower(
    proxying: StartProxy, vendor: TwoStages, clock: HeldClock
) -> None:
    """Its password was wrong and is mended: nobody has to mend the borrower as well."""
    wrong = True

    async def guarded(seen: Seen) -> web.StreamResponse:
        return web.Response(status=401) if seen.target == "/first" and wrong else await vendor(seen)

    async with api(guarded) as served, proxying(config(served), clock=clock) as proxy:
        answer = await proxy.ask("GET", "/x")
        assert (answer.status, answer.json()["code"]) == (502, "credential_rejected")
        assert "'first'" in answer.json()["detail"]
        wrong = False
        assert (await proxy.admin("POST", "/api/credentials/first/refresh")).status == 200
        clock.move(2)
        assert (await proxy.ask("GET", "/x")).status == 200
        assert vendor.exchanges == vendor.first


async def test_a_lent_token_that_does_not_fit_its_place_is_not_sent(proxying: StartProxy) -> None:
    """In a cookie a semicolon would begin another one."""

    async def odd(seen: Seen) -> web.StreamResponse:
        return (
            web.json_response({"access_token": "token-0123456789;admin=1"})
            if seen.method == "POST"
            else web.Response()
        )

    async with api(odd) as served:
        given = config(served, also={"type": "static", "token": {"credential": "first"}, "place": {"cookie": "s"}})
        given["routes"] = [{"prefix": "/", "upstream": served.url, "credential": "also"}]
        del given["credentials"]["second"]
        async with proxying(given) as proxy:
            answer = await proxy.ask("GET", "/x")
            assert (answer.status, answer.json()["code"]) == (503, "credential_unavailable")
            assert [seen.method for seen in served.seen] == ["POST"]


async def test_a_static_credential_that_borrows_is_the_lenders_token_in_another_place(
    proxying: StartProxy, vendor: TwoStages, clock: HeldClock
) -> None:
    """One life, two places, each reported under its own name."""
    also = {"type": "static", "token": {"credential": "second"}, "place": {"header": "X-Also"}}
    async with api(vendor) as served:
        given = config(served, also=also)
        given["routes"].append({"prefix": "/also", "upstream": served.url, "credential": "also"})
        async with proxying(given, clock=clock) as proxy:
            assert (await proxy.ask("GET", "/x")).status == 200
            await proxy.ask("GET", "/also/y")
            assert served.seen[-1].all("X-Also") == [vendor.second[-1]]
            assert served.seen[-1].all("Authorization") == []
            assert len(vendor.second) >= 1
            names = {each["name"]: each["generation"] for each in await reports(proxy)}
            assert names.keys() == {"first", "second", "also"}
            assert names["also"] == names["second"]
            answer = await proxy.admin("POST", "/api/credentials/also/refresh")
            assert answer.status == 200
            assert {each["name"]: each["generation"] for each in await reports(proxy)}["second"] > names["second"]


async def reports(proxy: Proxy) -> list[Mapping[str, Any]]:
    """The states of all credentials."""
    found: list[Mapping[str, Any]] = (await proxy.admin("GET", "/api/credentials")).json()["credentials"]
    return found


async def test_107_a_wrong_password_beside_a_constant_of_another_credential_is_one_failed_login(
    proxying: StartProxy, canaries: Canaries, clock: HeldClock
) -> None:
    """What a static credential lends never changes, so nothing speaks for trying it again."""
    logins = []

    async def vendor(seen: Seen) -> web.StreamResponse:
        logins.append(json.loads(seen.body)["gate"])
        return web.json_response({"error": "invalid"}, status=401)

    environ = {"GATE": canaries.mint(), "PASSWORD": canaries.mint("password")}
    async with api(vendor) as served:
        fields = {"user": "ann", "password": {"env": "PASSWORD"}, "gate": {"credential": "gate"}}
        login = {"url": f"{served.url}/login", "encoding": "json", "fields": fields}
        credentials = {
            "gate": {"type": "static", "token": {"env": "GATE"}},
            "main": {"type": "login", "login": login, "response": {"lifetime": "/expires_in"}},
        }
        routes = [{"prefix": "/", "upstream": served.url, "credential": "main"}]
        for _ in range(3):
            async with proxying(
                {"routes": routes, "credentials": credentials}, environ=environ, clock=clock
            ) as proxy:
                for _ in range(3):
                    assert (await proxy.ask("GET", "/x")).code == "credential_rejected"
                    clock.move(3600)
    assert logins == [environ["GATE"]]
