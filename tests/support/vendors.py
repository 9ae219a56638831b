"""The vendors' doubles as fixtures: served on loopback, every secret of theirs a canary."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from proxy.demo import mainbrainer, teletracker
from proxy.demo.double import Double
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import Vanilla
from tests.support.harness import HeldClock
from tests.support.leaks import Canaries

D = TypeVar("D", bound=Double[Any])


@dataclass
class Vendor(Generic[D]):
    """A served double, the credential that a user would write for it, and the environment with its secrets."""

    double: D
    url: str
    credential: Mapping[str, Any]
    environ: Mapping[str, str]

    @property
    def config(self) -> dict[str, Any]:
        """The short form for this vendor."""
        return {"upstream": self.url, "credential": dict(self.credential)}


@pytest.fixture
def clock() -> HeldClock:
    """The one clock of proxy and double; it stands still unless the test moves it."""
    return HeldClock()


@pytest.fixture
async def tracker(canaries: Canaries, clock: HeldClock) -> AsyncIterator[Vendor[TeleTracker]]:
    """TeleTracker: login, rotating refresh tokens."""
    account = teletracker.Account("ann@example.com", canaries.mint("password"))
    double = TeleTracker(clock=clock, mint=lambda: canaries.mint("uuid"), account=account)
    async with serving(double) as url:
        yield Vendor(
            double,
            url,
            {
                "preset": "teletracker",
                "base_url": url,
                "username": {"env": "TRACKER_USER"},
                "password": {"env": "TRACKER_PASSWORD"},
            },
            {"TRACKER_USER": account.username, "TRACKER_PASSWORD": account.password},
        )


def _adopting(canaries: Canaries) -> Callable[[], str]:
    return lambda: canaries.mint("token")


@pytest.fixture
async def brainer(canaries: Canaries, clock: HeldClock) -> AsyncIterator[Vendor[MainBrainer]]:
    """MainBrainer: a JWT without `exp`, its lifetime in minutes, no refresh."""
    account = mainbrainer.Account("ann@example.com", canaries.mint("password"), canaries.mint("uuid"))
    double = MainBrainer(clock=clock, mint=_adopting(canaries), secret=canaries.mint("key"), account=account)
    async with serving(double) as url:
        yield Vendor(
            double,
            url,
            {
                "preset": "mainbrainer",
                "base_url": url,
                "username": {"env": "BRAINER_USER"},
                "password": {"env": "BRAINER_PASSWORD"},
                "private_token": {"env": "BRAINER_TOKEN"},
            },
            {
                "BRAINER_USER": account.username,
                "BRAINER_PASSWORD": account.password,
                "BRAINER_TOKEN": account.private_token,
            },
        )
    for token in double.issued:
        canaries.adopt(token, "jwt", fixed=token.rindex(".") + 1)


@pytest.fixture
async def forum(canaries: Canaries, clock: HeldClock) -> AsyncIterator[Vendor[Vanilla]]:
    """Vanilla: a personal access token, read from header or query."""
    double = Vanilla(clock=clock, mint=_adopting(canaries), secret=canaries.mint("key"))
    double.set(rate_limit=False)
    token = double.issue()
    canaries.adopt(token, "token")
    async with serving(double) as url:
        yield Vendor(double, url, {"preset": "vanilla", "token": {"env": "FORUM_TOKEN"}}, {"FORUM_TOKEN": token})
