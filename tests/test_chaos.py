"""Connections that are slow, cut, refused or silent at any moment: answers are right, listed, or visibly cut short.

Between the proxy and its upstream, its token endpoint or its store stands a relay that does one of eight things
from one of six moments of an exchange on. `make test-slow` takes each of the eight
at a moment drawn from a seed, `make nightly` all.
"""

import asyncio
import base64
import os
import random
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.demo.teletracker import TeleTracker
from tests.support.chaos import KINDS, PHASES, Kind, Phase, Toxic
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.longer import TIMES
from tests.support.redisserver import needs_redis
from tests.support.spoilt import Place, Setup, Storage
from tests.support.vendors import Vendor

#: Chosen so that the few have the two moments that matter most: a POST acted on and not answered, half an answer.
SEED: Final = 1576


def drawn(place: Place, kind: Kind, phase: Phase) -> Toxic:
    """The toxic, and how much of it: the same each time."""
    draw = random.Random(f"{SEED} {place} {kind} {phase}")  # noqa: S311  no secrets
    seconds: dict[Kind, tuple[float | None, ...]] = {
        "latency": (0.05, 0.7),
        "slow close": (0.2, 0.7),
        "timeout": (0.2, None),
    }
    # Answers of the vendor and of the store are short.
    sizes = range(5, 50) if kind == "slicer" else (0, 1, 20, 1000 if place == "upstream" else 50)
    # A refresh is seven commands, and the last but one tells the store what was got.
    is_command = place == "store" and phase in {"request head", "request body", "answer head"}
    return Toxic(
        kind,
        phase,
        seconds=draw.choice(seconds.get(kind, (None,))),
        rate=200_000 if phase.startswith("request") else 20_000,
        size=draw.choice(sizes),
        spared=draw.randrange(6) if is_command else 0,
        most=draw.choice((2, None)),
    )


def few(place: Place) -> list[tuple[Kind, Phase]]:
    """Each kind, at moments of which all occur."""
    draw = random.Random(f"{SEED} {place}")  # noqa: S311  no secrets
    moments = [*PHASES, *draw.sample(PHASES, len(KINDS) - len(PHASES))]
    draw.shuffle(moments)
    return list(zip(KINDS, moments, strict=True))


MARKS: Final[dict[Place, tuple[pytest.MarkDecorator, ...]]] = {
    "upstream": (),
    "token endpoint": (),
    "store": (needs_redis,),
}


def cases(*, every: bool) -> list[Any]:
    """The parameters: all combinations, or a few of them, for each place."""
    found = []
    for place, marks in MARKS.items():
        pairs = [(kind, phase) for kind in KINDS for phase in PHASES] if every else few(place)
        found += [pytest.param(place, *pair, id="-".join((place, *pair)), marks=marks) for pair in pairs]
    return found


@pytest.fixture
def storage(tmp_path: Path, canaries: Canaries, artefacts: Artefacts) -> Storage:
    """With a new key."""
    key = base64.b64encode(os.urandom(32)).decode()
    canaries.adopt(key, "key")
    return Storage(tmp_path / "redis", key, artefacts)


@pytest.fixture
def setup(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock, storage: Storage) -> Setup:
    """With secrets that are canaries."""
    return Setup(proxying, tracker, clock, storage)


async def survives(setup: Setup, place: Place, toxic: Toxic) -> None:
    """Warm up, spoil, take that away; then look at what the far ends saw."""
    double = setup.tracker.double
    async with setup.bench(place) as bench:
        await asyncio.gather(bench.serves(), bench.serves())
        await bench.relay.arm(toxic)
        for _ in range(2):
            bench.later()
            await bench.burst()
        # What is refused before it is connected the relay does not see.
        assert bench.relay.struck > 0 or ((toxic.kind, toxic.phase) == ("down", "connect") and bench.failures)
        await bench.relay.heal()
        if bench.server is not None:
            async with setup.another(bench, bench.server) as other:
                await other.serves()
        await bench.serves()
        assert double.refresh_reuses == 0
        assert bench.upstream.tokens <= {f"Bearer {token}" for token in double.issued}
        assert bench.proxy.lines("internal_error") == []


@pytest.mark.slow
@pytest.mark.parametrize(("place", "kind", "phase"), cases(every=TIMES > 1))
async def test_a_connection_that_fails_gives_a_right_answer_a_listed_code_or_a_visible_cut(
    setup: Setup, place: Place, kind: Kind, phase: Phase
) -> None:
    """In time, no POST twice, no refresh token twice; and without it the proxy serves again."""
    await survives(setup, place, drawn(place, kind, phase))
