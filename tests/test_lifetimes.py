"""How often a token is asked for: lifetimes of a second, margins beyond them, vendors that give the same one again.

The source, its timer, the reading of replies and the pauses are the product's; time passes when the test says so.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from proxy.credentials.asking import Asking
from proxy.credentials.source import TokenSource
from proxy.errors import CredentialError
from proxy.grants.login import ResponseRules, Step
from proxy.grants.request import Granted, TokenReply, TokenRequest
from proxy.redact import Secret
from proxy.stores.memory import MemoryStore
from tests.support.granting import Heard
from tests.support.harness import HeldClock
from tests.support.heldloop import HeldLoop
from tests.support.keeping import QuickLatch

#: A table over lines that other tests measure.
pytestmark = pytest.mark.unmeasured
STEP: Final = Step("https://id.example.com/token")
RULES: Final = ResponseRules(token="/access_token", lifetime="/expires_in")


@dataclass
class Vendor:
    """A token endpoint; `document` makes each reply, of the seconds since the beginning."""

    clock: HeldClock
    document: Callable[[float], dict[str, Any]]
    began_at: float = 0.0
    asked_at: list[float] = field(default_factory=list)

    async def send(self, _request: TokenRequest) -> TokenReply:
        """One reply, at once."""
        now = self.clock.now() - self.began_at
        assert len(self.asked_at) < 1000, "a storm"
        self.asked_at.append(now)
        return TokenReply(200, (), json.dumps({"access_token": "t", **self.document(now)}).encode())

    async def close(self) -> None:
        """Nothing is open."""


class Busy:
    """A source that is asked without pause."""

    def __init__(self, document: Callable[[float], dict[str, Any]], margin: float) -> None:
        self.clock = HeldClock()
        self.loop = HeldLoop(self.clock)
        self.vendor = Vendor(self.clock, document, self.clock.now())
        self.outcomes: Counter[str] = Counter()
        heard = Heard()
        self._asking = Asking(name="c", endpoint=self.vendor, clock=self.clock, register=heard.register)
        self.source = TokenSource(
            "c",
            self,
            fingerprint=lambda: b"the same secret",
            margin=margin,
            clock=self.clock,
            latch=QuickLatch(),
            store=MemoryStore(),
            binding=b"",
            fits=lambda _value: True,
            random=lambda: 0.5,
            register=heard.register,
            events=heard,
        )

    async def obtain(
        self, _refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """The grant: one question."""
        return await self._asking.ask(STEP, RULES, "token request")

    @property
    def begins_anew(self) -> bool:
        """It always does."""
        return True

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token."""
        return refresh_token is not None

    def run(self, seconds: float, requests: int) -> None:
        """So many requests, evenly in this time."""
        for _ in range(requests):
            asking = self.loop.create_task(self._request())
            self.loop.let_pass(seconds / requests)
            assert asking.done()
        self.source.ahead.stop()
        self.loop.close()

    async def _request(self) -> None:
        try:
            token = await self.source.token(30.0)
        except CredentialError as error:
            self.outcomes[error.code] += 1
        else:
            assert token.expires_at is None or token.expires_at > self.clock.now()
            self.outcomes["served"] += 1


@pytest.mark.parametrize("lifetime", [1, 5, 30, 60, 3600])
@pytest.mark.parametrize("margin", [0.0, 60.0, 86400.0])
def test_097_a_token_is_asked_for_once_in_nine_tenths_of_its_lifetime(lifetime: int, margin: float) -> None:
    """Whatever the margin is, and however many requests there are; none of them waits or fails."""
    busy = Busy(lambda _now: {"expires_in": lifetime}, margin)
    busy.run(10.0 * lifetime, 1000)
    assert busy.outcomes == {"served": 1000}
    assert 10 <= len(busy.vendor.asked_at) <= math.ceil(10 / 0.9)


@pytest.mark.parametrize("stated", [0, -1, "0", "-1", "soon"])
def test_097_a_lifetime_that_is_none_is_backed_off(stated: object) -> None:
    """It is a failure like others, with pauses that grow: ten minutes of requests cost a dozen token requests."""
    busy = Busy(lambda _now: {"expires_in": stated}, 60.0)
    busy.run(600.0, 6000)
    assert busy.outcomes == {"credential_unavailable": 6000}
    assert len(busy.vendor.asked_at) <= 12


@pytest.mark.parametrize("document", [{}, {"expires_in": None}])
def test_097_a_token_without_a_lifetime_is_asked_for_once(document: dict[str, Any]) -> None:
    """Until it is refused."""
    busy = Busy(lambda _now: document, 60.0)
    busy.run(864000.0, 1000)
    assert (busy.outcomes, len(busy.vendor.asked_at)) == ({"served": 1000}, 1)


def again(lifetime: int, ahead: float) -> Callable[[float], dict[str, Any]]:
    """The same token until `ahead` seconds before its end, with the whole seconds that are left to it."""
    ends_at = -math.inf

    def document(now: float) -> dict[str, Any]:
        nonlocal ends_at
        if now >= ends_at - ahead:
            ends_at = now + lifetime
        return {"access_token": f"t{ends_at}", "expires_in": math.floor(ends_at - now)}

    return document


@pytest.mark.parametrize("margin", [60.0, 3600.0])
def test_097_a_token_that_is_given_again_until_shortly_before_its_end_costs_no_more(margin: float) -> None:
    """As metadata services do, five minutes ahead."""
    busy = Busy(again(3600, 300.0), margin)
    busy.run(10 * 3600.0, 36000)
    assert busy.outcomes == {"served": 36000}
    assert len(busy.vendor.asked_at) <= 2 * math.ceil(10 / 0.9)


@pytest.mark.parametrize("lifetime", [5, 60, 3600])
def test_097_a_token_that_is_given_again_to_its_very_end_makes_no_request_ask_each_time(lifetime: int) -> None:
    """Nine tenths of what is left pass before each question, and "0 seconds" is a failure with its pause."""
    busy = Busy(again(lifetime, 0.0), 60.0)
    busy.run(10.0 * lifetime, 10000)
    assert len(busy.vendor.asked_at) <= 6 * 10
    assert set(busy.outcomes) <= {"served", "credential_unavailable"}
