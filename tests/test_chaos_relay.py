"""The relay of the chaos tests: its toxics do what they say from their moment on, and nothing else happens."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.chaos import INSIDE, KINDS, PHASES, Kind, Phase, Relay, Toxic, relaying
from tests.support.upstreams import DEADLINE, REQUEST, Got, Upstream
from tests.support.waiting import until

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BODY = bytes(range(256)) * 4
ASK = b"POST / HTTP/1.1\r\n\r\n" + BODY
#: How many bytes of the answer pass before each of its phases.
BEFORE: dict[Phase, int] = {"answer head": 0, "answer body": len(HEAD) + INSIDE}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Answers each request of a connection, and keeps it."""
    async with asyncio.timeout(DEADLINE), Upstream([REQUEST, Got(len(BODY)), HEAD + BODY] * 3) as made:
        yield made


@pytest.fixture
async def relay(upstream: Upstream) -> AsyncIterator[Relay]:
    """Before that upstream."""
    async with relaying(upstream.port) as made:
        yield made


async def asked(relay: Relay, most: int = len(HEAD + BODY)) -> bytes:
    """What comes of an answer on a connection of its own, up to `most` bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        writer.write(ASK)
        return await reader.readexactly(most)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


async def test_without_a_toxic_every_byte_passes(relay: Relay, upstream: Upstream) -> None:
    """Both ways."""
    assert await asked(relay) == HEAD + BODY
    assert upstream.peers[0].received == ASK


@pytest.mark.parametrize("kind", ["latency", "bandwidth", "slicer", "slow close"])
@pytest.mark.parametrize("phase", PHASES)
async def test_what_is_only_slow_loses_nothing(relay: Relay, kind: Kind, phase: Phase) -> None:
    """And it is noticed that it was there."""
    await relay.arm(Toxic(kind, phase, seconds=0.01, rate=100_000, size=100))
    assert await asked(relay) == HEAD + BODY
    assert relay.struck == 1


@pytest.mark.parametrize(("kind", "seconds", "rate"), [("latency", 0.1, 0), ("bandwidth", None, 10_000)])
async def test_slowness_takes_its_time(relay: Relay, kind: Kind, seconds: float | None, rate: int) -> None:
    """About a tenth of a second each, and surely not nothing."""
    await relay.arm(Toxic(kind, "answer body", seconds=seconds, rate=rate))
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await asked(relay)
    assert loop.time() - began_at > 0.05


@pytest.mark.parametrize("size", [0, 1, 100])
@pytest.mark.parametrize("phase", ["answer head", "answer body"])
async def test_a_limit_ends_the_answer_behind_so_many_bytes(relay: Relay, phase: Phase, size: int) -> None:
    """To the byte."""
    await relay.arm(Toxic("limit", phase, size=size))
    assert await asked(relay) == (HEAD + BODY)[: BEFORE[phase] + size]


@pytest.mark.parametrize("phase", ["request head", "request body"])
async def test_a_limit_ends_the_request_behind_so_many_bytes(
    relay: Relay, upstream: Upstream, phase: Phase
) -> None:
    """The target sees the beginning, and the end of the connection."""
    await relay.arm(Toxic("limit", phase, size=5))
    assert await asked(relay) == b""
    peer = await upstream.peer()
    await peer.ended.wait()
    assert len(peer.received) == INSIDE + 5 + (ASK.index(BODY) if phase == "request body" else 0)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_reset_is_one(relay: Relay, phase: Phase) -> None:
    """No end that looks proper."""
    await relay.arm(Toxic("reset", phase, size=1))
    with pytest.raises(ConnectionResetError):
        await asked(relay)


async def test_what_is_down_refuses_until_it_is_healed(relay: Relay) -> None:
    """A connection that is there ends first."""
    await relay.arm(Toxic("down", "answer body"))
    assert await asked(relay) == (HEAD + BODY)[: BEFORE["answer body"]]
    with pytest.raises(ConnectionRefusedError):
        await asked(relay)
    await relay.heal()
    assert await asked(relay) == HEAD + BODY


@pytest.mark.parametrize("phase", PHASES)
async def test_a_timeout_swallows_until_it_is_healed(relay: Relay, upstream: Upstream, phase: Phase) -> None:
    """Nothing ends by itself."""
    await relay.arm(Toxic("timeout", phase))
    asking = asyncio.create_task(asked(relay))
    await until(lambda: relay.struck)
    assert not asking.done()
    await relay.heal()
    assert await asking == (HEAD + BODY)[: BEFORE.get(phase, 0)]
    assert await asked(relay) == HEAD + BODY
    assert len(upstream.peers) == (1 if phase == "connect" else 2)


async def test_no_more_are_spoiled_than_it_says(relay: Relay) -> None:
    """Nor earlier."""
    await relay.arm(Toxic("limit", "answer head", spared=1, most=2))
    answers = [await asked(relay) for _ in range(4)]
    assert answers == [HEAD + BODY, b"", b"", HEAD + BODY]


async def test_exchanges_are_told_apart_on_one_connection(relay: Relay) -> None:
    """The toxic is for the next one, and the one before is whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(ASK)
    assert await reader.readexactly(len(HEAD + BODY)) == HEAD + BODY
    await relay.arm(Toxic("limit", "answer body", size=3))
    writer.write(ASK)
    assert await reader.read() == (HEAD + BODY)[: BEFORE["answer body"] + 3]
    writer.close()


def test_there_are_eight_kinds_and_six_phases() -> None:
    """All combinations are tried."""
    assert (len(KINDS), len(PHASES)) == (8, 6)
