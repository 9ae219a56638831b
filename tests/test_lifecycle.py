"""The life of a token: the four decisions, margins, back-off, and the gate, with the time as a parameter."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CredentialRejected, CredentialUnavailable
from proxy.lifecycle import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    GATE_LAST,
    RETRY_AFTER_LAST,
    Failure,
    Gate,
    Life,
    Token,
    back_off,
    decide,
    stale_at,
    state,
    told,
)
from proxy.redact import Secret

#: Obtained at 1000 for an hour: stale from 4540, invalid from 4600.
HOUR = Token(Secret("access"), 7, 1000.0, 4600.0)
ENDLESS = dataclasses.replace(HOUR, expires_at=None)
LATER = Failure(CredentialUnavailable(), 1, 5000.0)
NEVER = Failure(CredentialRejected(), 1, None)


@pytest.mark.parametrize(
    ("token", "failure", "now", "after", "uses", "refreshes"),
    [
        # 1. Use it.
        (HOUR, None, 1000.0, 0, True, False),
        (HOUR, None, 4539.9, 6, True, False),
        (HOUR, LATER, 2000.0, 0, True, False),
        (ENDLESS, None, 1e12, 0, True, False),
        (HOUR, LATER, 4599.9, 0, True, False),
        (HOUR, NEVER, 4599.9, 0, True, False),
        # 2. Use it, and refresh in the background.
        (HOUR, None, 4540.0, 0, True, True),
        (HOUR, dataclasses.replace(LATER, retry_at=4550.0), 4550.0, 0, True, True),
        # 3. Wait for a refresh.
        (None, None, 0.0, 0, False, True),
        (HOUR, None, 4600.0, 0, False, True),
        (HOUR, None, 2000.0, 7, False, True),
        (ENDLESS, None, 2000.0, 7, False, True),
        (None, LATER, 5000.0, 0, False, True),
        (HOUR, LATER, 5000.0, 0, False, True),
        # 4. Fail at once with the last error.
        (None, LATER, 4999.9, 0, False, False),
        (None, NEVER, 1e12, 0, False, False),
        (HOUR, LATER, 4600.0, 0, False, False),
        (HOUR, NEVER, 2000.0, 7, False, False),
    ],
)
def test_the_four_decisions(
    *, token: Token | None, failure: Failure | None, now: float, after: int, uses: bool, refreshes: bool
) -> None:
    """Generation, expiry and the last failure decide; an expired token is never used."""
    life = Life(60.0, token, failure)
    assert decide(life, now, after) == (token if uses else None, refreshes)


@pytest.mark.threat(97)
@pytest.mark.parametrize(
    ("lifetime", "due_in"),
    [(1.0, 0.9), (5.0, 4.5), (30.0, 27.0), (60.0, 54.0), (600.0, 540.0), (3600.0, 3540.0), (0.0, 0.0)],
)
def test_097_the_margin_is_never_more_than_a_tenth_of_the_lifetime(lifetime: float, due_in: float) -> None:
    """A token of 30 s is not refreshed by every request."""
    token = Token(Secret("access"), 1, 100.0, 100.0 + lifetime)
    assert stale_at(token, 60.0) == pytest.approx(100.0 + due_in)


@pytest.mark.threat(97)
@pytest.mark.parametrize("lifetime", [1, 5, 30, 60])
def test_097_a_busy_credential_is_refreshed_once_a_lifetime(lifetime: int) -> None:
    """Ten requests a second for two minutes: one token request each time that the tenth begins, and no more."""
    token, requests = None, 0
    for tenth in range(1200):
        now = tenth / 10
        use, refresh = decide(Life(60.0, token), now)
        if refresh:
            requests += 1
            token = Token(Secret("access"), requests, now, now + lifetime)
        assert use is not None or refresh
    assert requests <= 120 / (lifetime * 0.9) + 1


def test_a_token_without_an_expiry_is_never_due() -> None:
    """Nobody knows when it ends: it is used until it is refused."""
    assert stale_at(ENDLESS, 60.0) is None
    assert state(Life(60.0, ENDLESS), 1e12) == "fresh"


@pytest.mark.threat(95, 96)
@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (-1e9, "fresh"),
        (1000.0, "fresh"),
        (4540.0, "stale"),
        (4599.9, "stale"),
        (4600.0, "invalid"),
        (1e9, "invalid"),
    ],
)
def test_095_state_is_derived_from_token_and_clock(now: float, expected: str) -> None:
    """A jump of the clock, or a night of suspend (96), changes the state at once and nothing is stored."""
    assert state(Life(60.0, HOUR), now) == expected
    assert state(Life(60.0), now) == "invalid"


@pytest.mark.threat(108)
@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.none() | st.floats(allow_nan=True))
def test_108_back_off_stays_within_its_bounds(count: int, random: float, retry_after: float | None) -> None:
    """Between one second and five minutes, or what the server asks for, up to an hour."""
    pause = back_off(count, random, retry_after)
    assert BACKOFF_FIRST <= pause <= RETRY_AFTER_LAST
    if retry_after is None or not retry_after > 0:
        assert pause <= BACKOFF_LAST
    elif retry_after <= RETRY_AFTER_LAST:
        assert pause >= retry_after


@pytest.mark.threat(108)
def test_108_back_off_doubles_its_bound_and_is_spread_over_all_of_it() -> None:
    """Full jitter: many proxies that failed together do not return together."""
    assert [back_off(count, 0.999999) for count in (1, 2, 3, 8, 9, 10**6)] == pytest.approx(
        [2, 4, 8, 256, 300, 300], abs=0.01
    )
    assert {back_off(count, 0.0) for count in range(20)} == {BACKOFF_FIRST}


@pytest.mark.parametrize(
    ("failure", "now", "left"), [(LATER, 4990.0, 10.0), (LATER, 5000.0, 1.0), (NEVER, 4990.0, None)]
)
def test_a_failure_is_told_with_the_seconds_that_are_left(failure: Failure, now: float, left: float | None) -> None:
    """Each request gets an error of its own; who may not ask again is not told when."""
    error = told(failure, now)
    assert type(error) is type(failure.error)
    assert error is not failure.error
    assert error.retry_after == left


@pytest.mark.threat(98)
def test_098_refusals_of_one_generation_are_one_piece_of_evidence() -> None:
    """A thousand requests that were refused together close the gate once, for one second."""
    gate = Gate()
    for _ in range(1000):
        gate.not_cured(2, 50.0)
    assert (gate.pause, gate.closed_until, gate.evidence) == (1.0, 51.0, 2)
    gate.not_cured(1, 50.5)
    assert gate.closed_until == 51.0


@pytest.mark.threat(98)
def test_098_each_newer_generation_that_does_not_cure_doubles_the_pause() -> None:
    """1, 2, 4 … 300 seconds."""
    gate, pauses, now = Gate(), [], 0.0
    for generation in range(2, 14):
        assert gate.is_open(now)
        gate.not_cured(generation, now)
        assert not gate.is_open(gate.closed_until - 0.001)
        pauses.append(gate.closed_until - now)
        now = gate.closed_until
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, GATE_LAST, GATE_LAST, GATE_LAST]


@pytest.mark.threat(99)
def test_099_only_a_cured_retry_opens_the_gate() -> None:
    """And the next refusal that is not cured begins at one second again; old evidence stays known."""
    gate = Gate()
    for generation, now in ((2, 0.0), (3, 1.0), (4, 3.0)):
        gate.not_cured(generation, now)
    assert not gate.is_open(6.9)
    gate.cured()
    assert gate.is_open(3.0)
    gate.not_cured(4, 3.0)
    assert gate.is_open(3.0)
    gate.not_cured(5, 3.0)
    assert (gate.is_open(3.9), gate.is_open(4.0)) == (False, True)


@pytest.mark.threat(99)
def test_099_a_forbidden_path_costs_eleven_token_requests_in_ten_minutes() -> None:
    """12,000 refusals, twenty a second, whatever the token."""
    gate, generation, requests = Gate(), 1, 0
    for refusal in range(12_000):
        now = refusal / 20
        if gate.is_open(now):
            requests += 1
            generation += 1
            gate.not_cured(generation, now)
    assert 2 <= requests <= 11
