"""One credential's token source, with a grant that the test answers by hand and a clock that it holds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.credentials.ahead import LOOK_AGAIN_SECONDS
from proxy.credentials.source import TokenSource
from proxy.errors import CredentialRejected, CredentialUnavailable, LoginRequired
from proxy.grants.request import Granted
from proxy.lifecycle import Token
from proxy.redact import Secret
from proxy.stores.latch import Latch
from proxy.stores.memory import MemoryStore
from tests.support.granting import Heard, Script
from tests.support.harness import HeldClock
from tests.support.leaks import Canaries
from tests.support.waiting import until

WAIT = 30.0


@dataclass
class Bench:
    """A source and everything around it."""

    source: TokenSource
    script: Script
    heard: Heard
    clock: HeldClock
    canaries: Canaries

    def grant(self, lifetime: float | None = 3600.0, *, refresh: bool = True) -> Granted:
        """Let the next attempt succeed with a new token."""
        refresh_token = Secret(self.canaries.mint("uuid")) if refresh else None
        granted = Granted(Secret(self.canaries.mint("token")), refresh_token, lifetime, 29 * 86400.0)
        self.script.outcomes.put_nowait(granted)
        return granted

    def fail(self, error: BaseException) -> None:
        """Let the next attempt fail."""
        self.script.outcomes.put_nowait(error)

    async def token(self) -> Token:
        """What a request gets."""
        return await self.source.token(WAIT)


@pytest.fixture
async def bench(tmp_path: Path, canaries: Canaries, clock: HeldClock) -> AsyncIterator[Bench]:
    """A source called `c`; only tokens without the letters FORBIDDEN can be sent."""
    script, heard = Script(), Heard()
    source = TokenSource(
        "c",
        script,
        fingerprint=lambda: b"the same secret",
        margin=60.0,
        clock=clock,
        latch=Latch(tmp_path),
        store=MemoryStore(),
        binding=b"",
        fits=lambda value: "FORBIDDEN" not in value,
        random=lambda: 0.5,
        register=heard.register,
        events=heard,
    )
    yield Bench(source, script, heard, clock, canaries)
    await source.close(0.0)


@pytest.mark.threat(76)
async def test_a_token_is_registered_before_anybody_gets_it(bench: Bench) -> None:
    """Access and refresh token, in one go."""
    granted = bench.grant()
    token = await bench.token()
    assert token.value is granted.token
    assert bench.heard.registered == [granted.token, granted.refresh_token]
    assert bench.heard.events == ["c requested", "c obtained"]
    assert (await bench.token()) is token


async def test_the_refresh_token_of_the_last_grant_is_redeemed(bench: Bench) -> None:
    """And only that one."""
    first = bench.grant()
    await bench.token()
    bench.clock.move(3600)
    bench.grant()
    await bench.token()
    assert bench.script.asked_with == [None, first.refresh_token]


async def test_nobody_waits_longer_than_told_and_the_flight_goes_on(bench: Bench) -> None:
    """503 for the impatient; the token that comes later is there for the next one."""
    with pytest.raises(CredentialUnavailable, match="has not answered yet") as caught:
        await bench.source.token(0.01)
    assert caught.value.retry_after == 1.0
    bench.grant()
    assert (await bench.token()).generation == 1
    assert len(bench.script.asked_with) == 1


async def test_a_refused_token_has_none_newer_while_the_endpoint_is_down(bench: Bench) -> None:
    """The upstream's own answer then goes to the client; in the pause nobody asks again."""
    bench.grant()
    token = await bench.token()
    bench.fail(CredentialUnavailable("down"))
    assert await bench.source.newer_than(token, wait=WAIT, ask=True) is None
    assert await bench.source.newer_than(token, wait=WAIT, ask=True) is None
    assert len(bench.script.asked_with) == 2
    # It is still good for others.
    assert await bench.token() is token


async def test_a_refused_token_has_none_newer_if_the_answer_does_not_come(bench: Bench) -> None:
    """The wait is bounded for it, too."""
    bench.grant()
    token = await bench.token()
    assert await bench.source.newer_than(token, wait=0.01, ask=True) is None


async def test_without_leave_to_ask_only_a_token_that_is_there_is_given(bench: Bench) -> None:
    """A closed gate."""
    bench.grant()
    first = await bench.token()
    assert await bench.source.newer_than(first, wait=WAIT, ask=False) is None
    bench.grant()
    second = await bench.source.newer_than(first, wait=WAIT, ask=True)
    assert second is not None
    assert await bench.source.newer_than(first, wait=WAIT, ask=False) is second
    assert len(bench.script.asked_with) == 2


@pytest.mark.threat(50)
async def test_050_a_token_that_cannot_be_sent_in_its_place_is_no_token(bench: Bench) -> None:
    """The answer is treated as invalid, and nothing of it is shown."""
    bench.script.outcomes.put_nowait(Granted(Secret("FORBIDDEN" + bench.canaries.mint("token"))))
    with pytest.raises(CredentialUnavailable, match="cannot be sent in its place"):
        await bench.token()
    assert bench.heard.events == ["c requested", "c credential_unavailable"]


async def test_a_defect_of_a_grant_is_a_failure_like_any_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and backed off; no request hangs on it."""
    bench.fail(ZeroDivisionError())
    with caplog.at_level(logging.ERROR), pytest.raises(CredentialUnavailable, match="'c' failed"):
        await bench.token()
    assert "a defect in the token request" in caplog.text


@pytest.mark.threat(108)
async def test_108_retries_are_spaced_by_a_growing_pause_and_retry_after_is_a_lower_bound(bench: Bench) -> None:
    """Random 0.5: half way between one second and the doubled bound."""
    pauses = []
    for after in (None, None, None, 1000.0):
        bench.fail(CredentialUnavailable("down", retry_after=after))
        with pytest.raises(CredentialUnavailable) as caught:
            await bench.token()
        pauses.append(caught.value.retry_after)
        bench.clock.move(caught.value.retry_after or 0.0)
    assert pauses == [1.5, 2.5, 4.5, 1000.0]
    assert len(bench.script.asked_with) == 4


async def crowd(bench: Bench, outcome: Granted | BaseException) -> list[Token | BaseException]:
    """What 500 requests get that come at once; all of them wait before anybody is answered."""
    asked = len(bench.script.asked_with)
    asking = [asyncio.create_task(bench.token()) for _ in range(500)]
    await until(lambda: len(bench.script.asked_with) > asked)
    bench.script.outcomes.put_nowait(outcome)
    return await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize("with_token", [True, False])
async def test_108_after_the_pause_one_request_asks_for_all(bench: Bench, *, with_token: bool) -> None:
    """Half open: 500 at once cost one token request, share its failure, and wait for the next pause."""
    if with_token:
        bench.grant()
        await bench.token()
        bench.clock.move(3600.0)
    asked = len(bench.script.asked_with)
    for says in ("down", "still down", "down for long"):
        bench.clock.move(400.0)
        failures = await crowd(bench, CredentialUnavailable(says))
        asked += 1
        assert {(type(each), str(each)) for each in failures} == {(CredentialUnavailable, says)}
        # Behind it nobody waits: the pause has begun anew.
        with pytest.raises(CredentialUnavailable, match=says):
            await bench.token()
        assert len(bench.script.asked_with) == asked
    bench.clock.move(400.0)
    granted = Granted(Secret(bench.canaries.mint("token")), None, 3600.0)
    tokens = await crowd(bench, granted)
    assert {each.value.reveal() if isinstance(each, Token) else each for each in tokens} == {granted.token.reveal()}
    assert len(bench.script.asked_with) == asked + 1


async def test_login_required_is_not_tried_again_by_itself(bench: Bench) -> None:
    """Only a person can mend it, and may: the forced refresh asks once more."""
    bench.fail(LoginRequired("log in"))
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await bench.token()
        bench.clock.move(10_000)
    assert len(bench.script.asked_with) == 1
    problem = bench.source.problem
    assert isinstance(problem, LoginRequired)
    bench.grant()
    await bench.source.refresh(WAIT)
    assert bench.source.problem is None
    assert (await bench.token()).generation == 1


async def test_a_forced_refresh_that_fails_says_why(bench: Bench) -> None:
    """The token that there is stays."""
    bench.grant()
    token = await bench.token()
    bench.fail(CredentialRejected("no"))
    with pytest.raises(CredentialRejected):
        await bench.source.refresh(WAIT)
    assert await bench.token() is token
    assert bench.source.problem is None
    assert bench.source.report().last_error == "no"


async def test_the_timer_refreshes_ahead_while_the_credential_is_used(bench: Bench) -> None:
    """Looked at every minute at most, since a timer may stand still while the machine sleeps."""
    bench.grant(lifetime=3600.0)
    await bench.token()
    due = bench.source.ahead.next_look
    assert due is not None
    assert round(due) == LOOK_AGAIN_SECONDS
    bench.source.ahead.look()
    assert len(bench.script.asked_with) == 1
    bench.clock.move(3600 - 60)
    bench.grant()
    bench.source.ahead.look()
    await until(lambda: bench.source.report().generation == 2)


async def test_the_timer_lets_an_unused_credential_rest(bench: Bench) -> None:
    """Not used within its last lifetime: the next request will ask."""
    bench.grant(lifetime=100.0)
    await bench.token()
    bench.clock.move(101.0)
    bench.source.ahead.look()
    assert len(bench.script.asked_with) == 1


async def test_the_timer_waits_for_the_end_of_a_pause_after_a_failure(bench: Bench) -> None:
    """A token request that failed ahead is tried again when its pause is over, without any request."""
    bench.grant(lifetime=1000.0)
    await bench.token()
    bench.clock.move(945.0)
    bench.fail(CredentialUnavailable("down"))
    bench.source.ahead.look()
    await until(lambda: bench.source.report().last_error == "down")
    bench.source.ahead.look()
    assert len(bench.script.asked_with) == 2
    bench.clock.move(1.5)
    bench.grant()
    bench.source.ahead.look()
    await until(lambda: bench.source.report().generation == 2)
    assert bench.source.report().last_error is None


async def test_a_token_without_a_known_end_needs_no_timer(bench: Bench) -> None:
    """It is used until it is refused."""
    bench.grant(lifetime=None)
    token = await bench.token()
    assert token.expires_at is None
    assert bench.source.ahead.next_look is None
    bench.source.ahead.look()
    bench.clock.move(10**9)
    assert await bench.token() is token


@pytest.mark.threat(111)
async def test_111_the_end_waits_for_a_flight_as_long_as_told(bench: Bench) -> None:
    """Then it is cut off; nobody is left waiting."""
    waiting = asyncio.create_task(bench.source.token(WAIT))
    await until(lambda: bench.script.asked_with)
    await bench.source.close(0.01)
    with pytest.raises(CredentialUnavailable, match="shutting down"):
        await waiting


@pytest.mark.threat(111)
async def test_111_a_flight_that_ends_in_time_is_kept_by_the_end(bench: Bench) -> None:
    """Its refresh token has replaced the old one, whether or not somebody still waits for it."""
    waiting = asyncio.create_task(bench.source.token(WAIT))
    await until(lambda: bench.script.asked_with)
    ending = asyncio.create_task(bench.source.close(WAIT))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not ending.done()
    granted = bench.grant()
    await ending
    assert (await waiting).value is granted.token
    assert bench.heard.events == ["c requested", "c obtained"]


async def test_a_report_tells_times_and_no_values(bench: Bench) -> None:
    """What `token` and the admin listener show."""
    granted = bench.grant(lifetime=3600.0)
    await bench.token()
    bench.clock.move(600.0)
    report = bench.source.report()
    assert (report.name, report.state, report.generation) == ("c", "fresh", 1)
    assert report.expires_in == 3000.0
    assert report.refresh_expires_in == 29 * 86400.0 - 600.0
    assert granted.token.reveal() not in repr(report)


async def test_a_token_that_is_over_when_it_comes_is_a_failure_and_backed_off(bench: Bench) -> None:
    """A wrong unit of the lifetime must not make every request log in."""
    for _ in range(3):
        waiting = asyncio.create_task(bench.token())
        await until(lambda: bench.script.asked_with)
        bench.clock.move(0.5)
        bench.grant(lifetime=0.25)
        with pytest.raises(CredentialUnavailable, match="was over when it came"):
            await waiting
    assert len(bench.script.asked_with) == 1


@pytest.mark.parametrize(("renewed", "left"), [(True, 29 * 86400.0 - 100.0), (False, None)])
async def test_the_end_of_a_login_holds_over_refreshes_that_say_nothing_of_it(
    bench: Bench,
    left: float | None,
    *,
    renewed: bool,
) -> None:
    """A login anew begins anew; a refresh belongs to the login before."""
    bench.grant()
    await bench.token()
    bench.clock.move(100.0)
    bench.script.outcomes.put_nowait(Granted(Secret(bench.canaries.mint("token")), None, 3600.0, renewed=renewed))
    await bench.source.refresh(WAIT)
    assert bench.source.report().refresh_expires_in == left
