"""What every store promises, whoever shares it: one conversation for all of them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import StoreBusy
from proxy.redact import Secret
from proxy.stores.base import Missing, Record, Store
from tests.support.leaks import Artefacts, Canaries
from tests.support.places import NEWER, OLDER, FolderPlace, MemoryPlace, Place, ServerPlace
from tests.support.redisserver import needs_redis, serving

BINDING, OTHER = b"b" * 32, b"o" * 32
SHARED = ["file", pytest.param("redis", marks=needs_redis)]


@pytest.fixture
def record(canaries: Canaries) -> Record:
    """A record of canaries."""
    return Record(4, Secret(canaries.mint()), 1.8e9, 1.8e9 + 3600, Secret(canaries.mint("uuid")), 1.9e9)


@pytest.fixture(params=["memory", *SHARED])
async def place(request: pytest.FixtureRequest, tmp_path: Path, artefacts: Artefacts) -> AsyncIterator[Place]:
    """Where tokens rest; nothing there may show a canary."""
    artefacts.watch_tree(tmp_path)
    if request.param == "redis":
        with serving(tmp_path) as server:
            made = ServerPlace(server)
            yield made
            await made.close()
            artefacts.add("redis", server.everything())
    else:
        yield MemoryPlace() if request.param == "memory" else FolderPlace(tmp_path / "deep" / "tokens")


#: One that other processes can share.
shared = pytest.mark.parametrize("place", SHARED, indirect=True)


async def held(store: Store, name: str = "c") -> bool:
    """Does somebody hold the turn?"""
    try:
        async with asyncio.timeout(0.05), store.turn(name):
            return False
    except TimeoutError:
        return True


async def take(store: Store, name: str = "c") -> None:
    """Have the turn, as soon as it is to be had."""
    async with asyncio.timeout(30), store.turn(name):
        await store.confirm(name)


async def test_what_a_store_is(place: Place) -> None:
    """Only what outlives the process will do for a login; a server's turn may be somebody else's."""
    store = place.open()
    assert (store.lasting, store.needs_turn) == (place.kind != "memory", place.kind == "redis")


async def test_what_was_saved_last_comes_back_everywhere(place: Place, record: Record) -> None:
    """By name and binding; before that there is nothing, and for others nothing that opens."""
    one, two = place.open(), place.open()
    assert await two.load("c", BINDING) is Missing.NOTHING
    await one.save("c", BINDING, record)
    assert await two.load("c", BINDING) == record
    assert await two.load("c", OTHER) is Missing.UNREADABLE
    assert await two.load("d", BINDING) is Missing.NOTHING
    newer = replace(record, generation=5)
    await two.save("c", OTHER, newer)
    assert await one.load("c", BINDING) is Missing.UNREADABLE
    assert await one.load("c", OTHER) == newer


async def test_what_was_removed_is_gone_for_all(place: Place, record: Record) -> None:
    """Whatever it is bound to, and all see that somebody did it; it does no harm twice, or where nothing is."""
    one, two = place.open(), place.open()
    await one.forget("c")
    assert await two.load("c", BINDING) is Missing.LOGGED_OUT
    await one.save("c", BINDING, record)
    assert await two.load("c", BINDING) == record
    await two.forget("c")
    await two.forget("c")
    assert [await one.load("c", each) for each in (BINDING, OTHER)] == [Missing.LOGGED_OUT] * 2
    assert await one.load("d", BINDING) is Missing.NOTHING
    await one.save("c", BINDING, record)
    assert await two.load("c", BINDING) == record


@pytest.mark.threat(88)
async def test_088_a_turn_has_one_holder_among_all(place: Place) -> None:
    """By name; it goes to the next one when the first lets go, by an exception too."""
    one, two = place.open(), place.open()
    async with one.turn("c"):
        assert await held(one)
        assert await held(two)
        await take(two, "d")
    await take(two)
    with pytest.raises(ZeroDivisionError):
        async with one.turn("c"):
            raise ZeroDivisionError
    await take(two)


async def test_who_waits_for_a_turn_in_vain_leaves_nothing_behind(place: Place) -> None:
    """Cancelled while it waits, and cancelled while it holds."""
    one, two = place.open(), place.open()
    entered = asyncio.Event()

    async def hold() -> None:
        async with two.turn("c"):
            entered.set()
            await asyncio.Event().wait()

    async with one.turn("c"):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    await take(one)
    holding = asyncio.create_task(hold())
    await entered.wait()
    assert await held(one)
    holding.cancel()
    await asyncio.wait({holding})
    await take(one)


async def test_turns_in_a_crowd_never_overlap(place: Place, record: Record) -> None:
    """Three stores, twice each."""
    inside = 0

    async def enter(store: Store) -> None:
        nonlocal inside
        async with store.turn("c"):
            inside += 1
            assert inside == 1
            await store.save("c", BINDING, record)
            inside -= 1

    stores = [place.open() for _ in range(3)]
    await asyncio.gather(*(enter(store) for store in stores for _ in range(2)))


@pytest.mark.threat(93)
@shared
async def test_093_a_turn_that_is_not_given_back_is_an_error_of_its_own(place: Place) -> None:
    """503 of its own, each time; the holder is not disturbed."""
    patient, hurried = place.open(), place.open(patience=0.05)
    async with patient.turn("c"):
        for _ in range(2):
            with pytest.raises(StoreBusy, match="does not let go") as caught:
                async with hurried.turn("c"):
                    pass
        assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
        await patient.confirm("c")
        assert await held(patient)


@pytest.mark.threat(133)
@shared
async def test_133_a_new_key_reads_what_the_old_one_sealed(
    place: Place, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """And seals it anew with the next token; what the old one alone opens is told from what is damaged, once."""
    await place.open(OLDER).save("c", BINDING, record)
    rotating, new = place.open(NEWER, OLDER), place.open(NEWER)
    assert await rotating.load("c", BINDING) == record
    assert [await new.load("c", BINDING) for _ in range(3)] == [Missing.OTHER_KEY] * 3
    assert [each.message for each in caplog.records] == ["stored_token_unusable"]
    await rotating.save("c", BINDING, record)
    assert await new.load("c", BINDING) == record
