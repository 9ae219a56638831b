"""Any history of requests, failures, crashes and clocks that are set: what must hold of tokens always, does.

The world is in `tests/support/model.py`: processes that share a store, and a token endpoint that ends a family of
refresh tokens where one comes twice. In `tests/support/fleetmodel.py` they share a server. Invariants I1, I2, I3
and I5 of the refresh (threats 86 to 102) are checked after each step, and at the end that nobody is locked out. I4
is held by the binding (`tests/test_store_life.py`).
"""

import asyncio
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proxy.stores.base import Record
from proxy.stores.redisclient import COMMAND_SECONDS
from tests.support.fleetmodel import APART, FATES_OF_COMMANDS, PLACES, TIMING, TOKEN, FleetWorld, Member
from tests.support.model import BINDING, FATES, NAME, POINTS, ROUNDING, Process, World
from tests.support.rotating import LIFETIME
from tests.support.watched import ALONE, FAULTS

#: Long enough for every pause after a failure.
RECOVERY: Final = 400.0
#: Then every token is over: what nobody used is refreshed ahead once, and no more.
REST: Final = 2 * LIFETIME + 60
PROCESSES: Final = 3
which: Final = st.integers(0, PROCESSES - 1)
waits: Final = st.sampled_from([0.5, 30.0])
places: Final = st.sampled_from(PLACES)
LEASE: Final = TIMING.lease
pauses: Final = st.sampled_from([0.0, LEASE / 3 + 1, LEASE - 1, LEASE + 1, 2 * LEASE + 1])
fates_of_commands: Final = st.sampled_from([*FATES_OF_COMMANDS, *["fine"] * 3])


@dataclass
class Waiting:
    """Something that has to end by `due_at`."""

    process: Process
    task: asyncio.Task[Any]
    seconds: float
    due_at: float


class TokenLife(RuleBasedStateMachine):
    """Processes of one credential."""

    lasting = True

    @initialize(begins_anew=st.booleans())
    def begin(self, *, begins_anew: bool) -> None:
        """An empty store."""
        self.folder = tempfile.TemporaryDirectory()
        self.world = self.made(begins_anew=begins_anew or not self.lasting)
        self.processes = [self.world.process() for _ in range(PROCESSES if self.lasting else 1)]
        self.waiting: list[Waiting] = []
        if not begins_anew and self.lasting:
            self.login()

    def made(self, *, begins_anew: bool) -> World:
        """The world."""
        return World(Path(self.folder.name) / "tokens", lasting=self.lasting, begins_anew=begins_anew)

    def process(self, number: int) -> Process:
        """One of them."""
        return self.processes[number % len(self.processes)]

    @property
    def is_quiet(self) -> bool:
        """Can the store be used, and stands nobody still in the middle of a refresh?"""
        return not self.world.ledger.faults and not any(each.parked for each in self.processes)

    def start(self, process: Process, coroutine: Any, seconds: float) -> asyncio.Task[Any]:
        """Begin something that must end in so many seconds, and go on until everything waits."""
        task = process.start(coroutine)
        self.waiting.append(Waiting(process, task, seconds, self.world.clock.now() + seconds))
        self.world.loop.let_pass()
        return task

    def replace(self, process: Process) -> None:
        """It is killed, and another one takes its place."""
        process.kill()
        self.processes[self.processes.index(process)] = self.world.process()

    # -- what clients, upstreams and people do

    @rule(number=which, wait=waits)
    def ask(self, number: int, wait: float) -> None:
        """A request."""
        process = self.process(number)
        self.start(process, process.served(process.source.token(wait)), wait)

    @rule(number=which, wait=waits)
    def refuse(self, number: int, wait: float) -> None:
        """The upstream refuses the token that was served last."""
        process = self.process(number)
        token = process.last
        if token is not None:
            process.refused = max(process.refused, token.generation)
            asking = process.source.newer_than(token, wait=wait, ask=True)
            self.start(process, process.served(asking, after=token.generation), wait)

    @rule(number=which)
    def force(self, number: int) -> None:
        """A person wants a new token."""
        process = self.process(number)
        self.start(process, process.renewed(30.0), 30.0)

    @rule()
    def hang_up(self) -> None:
        """The client that has waited longest goes away."""
        for each in self.waiting[:1]:
            each.task.cancel()

    @precondition(lambda self: self.lasting)
    @rule()
    def login(self) -> None:
        """A person logs in beside the processes, as the command does."""
        # That takes a person a second at least, in which somebody may take the turn, and stand still in it.
        self.pass_time(1.0)
        if self.is_quiet:
            self.world.run(self.world.logged_in())

    @precondition(lambda self: self.lasting)
    @rule()
    def logout(self) -> None:
        """A person logs out beside the processes."""
        if self.is_quiet:
            self.world.run(self.world.logged_out())

    # -- what goes wrong

    @precondition(lambda self: self.lasting)
    @rule(age=st.integers(1, 5))
    def restore(self, age: int) -> None:
        """Somebody puts an old copy of the file back: nobody can read there what was redeemed since.

        Then the vendor's refusal has to be told.
        """
        copies, endpoint = self.world.ledger.copies, self.world.endpoint
        if self.is_quiet and copies:
            endpoint.put_back |= endpoint.spent
            record, copy = copies[max(0, len(copies) - 1 - age)]
            for each in self.processes:
                each.meets(record)
            self.world.ledger.put_back(record, copy)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 29.0, 61.0, 600.0, LIFETIME - 30, LIFETIME, REST, 864000.0]))
    def pass_time(self, seconds: float) -> None:
        """Timers ring meanwhile."""
        self.world.loop.let_pass(seconds)

    @rule(seconds=st.sampled_from([-31536000.0, -LIFETIME, -5.0, 5.0, LIFETIME, 31536000.0]))
    def set_wall_clock(self, seconds: float) -> None:
        """Forward or back."""
        self.world.clock.epoch += seconds
        self.world.wall_was_set = True

    @rule(fate=st.sampled_from([*FATES, *["fine"] * 4]))
    def change_endpoint(self, fate: str) -> None:
        """What the token endpoint does from now on."""
        self.world.endpoint.fate = fate

    @rule(faults=st.sampled_from([*FAULTS, frozenset()]))
    def change_store(self, faults: frozenset[str]) -> None:
        """What fails of the store from now on."""
        self.world.ledger.faults = faults

    @rule(number=which, faults=st.sampled_from([*ALONE, frozenset()]))
    def change_store_for_one(self, number: int, faults: frozenset[str]) -> None:
        """The same for one process alone."""
        self.process(number).store.alone = faults

    @precondition(lambda self: self.lasting)
    @rule()
    def lose_store(self) -> None:
        """Somebody removes the folder: that is no logout, and takes nobody's turn away."""
        if self.is_quiet:
            (self.world.folder / f"{NAME}.token").unlink(missing_ok=True)
            self.world.ledger.durable = None

    @rule(number=which, point=st.sampled_from(POINTS))
    def arm(self, number: int, point: str) -> None:
        """The next time that it comes there, it stops."""
        self.process(number).armed = point

    @rule(number=which)
    def go_on(self, number: int) -> None:
        """It stands still no more."""
        self.process(number).resume()
        self.world.loop.let_pass()

    @rule(number=which)
    def crash(self, number: int) -> None:
        """It is gone where it stands, and another one takes its place."""
        self.replace(self.process(number))

    @rule(number=which, other=which, point=st.sampled_from(POINTS))
    def stop_in_refresh(self, number: int, other: int, point: str) -> None:
        """It stands still at a point of a refresh, while another one, or another request, needs a token."""
        process = self.process(number)
        process.resume()
        self.pass_time(REST)
        process.armed = point
        self.ask(number, 30.0)
        self.ask(other, 30.0)

    @rule(number=which, heir=which, point=st.sampled_from(POINTS))
    def crash_in_refresh(self, number: int, heir: int, point: str) -> None:
        """The same, and it is gone there."""
        self.stop_in_refresh(number, number, point)
        self.replace(self.process(number))
        self.ask(heir, 30.0)

    @rule(number=which, fate=st.sampled_from(FATES), faults=st.sampled_from(FAULTS))
    def fail_in_refresh(self, number: int, fate: str, faults: frozenset[str]) -> None:
        """It comes to nothing, and all is well when it is tried again."""
        world = self.world
        self.process(number).resume()
        self.pass_time(REST)
        world.endpoint.fate, world.ledger.faults = fate, faults
        self.ask(number, 30.0)
        world.endpoint.fate, world.ledger.faults = "fine", frozenset()
        self.pass_time(2.5)
        self.ask(number, 30.0)

    @rule(number=which, wait=waits)
    def restart(self, number: int, wait: float) -> None:
        """It ends as it should, and begins again."""
        process = self.process(number)
        task = self.start(process, process.source.close(wait), 2 * wait)
        self.pass_time(2 * wait + ROUNDING)
        self.world.ledger.expect("the end takes too long", holds=task.done())
        process.resume()
        self.replace(process)

    # -- what must hold

    @invariant()
    def nothing_is_broken(self) -> None:
        """What the world saw."""
        assert self.world.ledger.broken == []

    @invariant()
    def nobody_waits_longer_than_told(self) -> None:
        """I5."""
        for each in self.waiting:
            due_at = max(each.due_at, each.process.went_on_at + each.seconds)
            is_late = self.world.clock.now() > due_at + ROUNDING and not each.process.is_still
            assert each.task.done() or not is_late
        self.waiting = [each for each in self.waiting if not each.task.done()]

    @invariant()
    def generations_grow(self) -> None:
        """Also where nobody asks."""
        for each in self.processes:
            assert each.number >= each.generation
            each.generation = each.number

    @invariant()
    def the_store_opens_and_holds_what_it_is_said_to(self) -> None:
        """I2: what is used, or what somebody else wrote since."""
        if self.lasting:
            found = self.world.run(self.world.store().load(NAME, BINDING))
            assert (found if isinstance(found, Record) else None) == self.world.ledger.durable
        for each in self.processes:
            assert each.held is None or each.held in self.world.ledger.kept

    def teardown(self) -> None:
        """When everything is well again nobody is locked out."""
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.ledger.broken:
                self.recover()
                self.nothing_is_broken()
        finally:
            for each in self.processes:
                each.kill()
            self.world.close()
            self.folder.cleanup()

    def mend(self) -> None:
        """Nothing fails, and nobody stands still."""
        self.world.endpoint.fate, self.world.ledger.faults = "fine", frozenset()
        for each in self.processes:
            each.store.alone = frozenset()
            each.resume()

    def recover(self) -> None:
        """A login that lives serves everybody, and so does a grant that can begin anew."""
        world = self.world
        self.mend()
        self.pass_time(RECOVERY)
        self.nobody_waits_longer_than_told()
        for number, process in enumerate(self.processes):
            is_served = self.lives_on(process) or world.begins_anew
            self.force(number)
            self.ask(number, 30.0)
            assert process.outcome == "served" or not is_served

    def lives_on(self, process: Process) -> bool:
        """Is there a login that it can go on with?"""
        kept = self.world.ledger.durable
        return (
            kept is not None
            and kept.refresh_token is not None
            and self.world.endpoint.lives(kept.refresh_token.reveal())
            and not process.takes_for_older(kept)
        )


class TokenLifeInMemory(TokenLife):
    """One process, and a store that is gone with it."""

    lasting = False


class TokenLifeByServer(TokenLife):
    """Members of a fleet, and one server for their tokens."""

    has_ended = False
    world: FleetWorld
    processes: list[Member]  # type: ignore[assignment]  # those of a `FleetWorld`

    def process(self, number: int) -> Member:
        """One of them."""
        return self.processes[number]

    def made(self, *, begins_anew: bool) -> FleetWorld:
        """With a server in the place of a folder."""
        return FleetWorld(begins_anew=begins_anew)

    @property
    def is_quiet(self) -> bool:
        """Is there a server? Whoever stands still has no turn any more, or is waited for."""
        return self.world.fate == "fine"

    @rule(fate=fates_of_commands)
    def change_store(self, fate: str) -> None:
        """What happens to everybody's commands from now on."""
        self.world.fate = fate
        for each in self.processes:
            each.line.change(fate)

    @rule(number=which, fate=fates_of_commands)
    def change_store_for_one(self, number: int, fate: str) -> None:
        """What happens to those of one member, while the others reach the server."""
        self.process(number).line.change(fate)

    @rule()
    def lose_store(self) -> None:
        """The server begins anew with nothing."""
        self.world.empty()

    @rule(seconds=st.sampled_from([5.0, LIFETIME, 31536000.0]))
    def set_wall_clock(self, seconds: float) -> None:
        """Forward: where numbers were forgotten, a login by a clock that is behind looks like an old one."""
        super().set_wall_clock(seconds)

    @rule(number=which, seconds=st.sampled_from([-31536000.0, -LIFETIME, -5.0, 5.0, LIFETIME, 31536000.0]))
    def set_wall_clock_of_one(self, number: int, seconds: float) -> None:
        """Forward or back: what is shared goes by the server's."""
        self.process(number).seen.ahead += seconds

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 29.0, 31.0, 61.0, 600.0, LIFETIME - 30, LIFETIME, REST]))
    def pass_time(self, seconds: float) -> None:
        """Timers ring meanwhile."""
        self.world.loop.let_pass(seconds)

    @rule(number=which, point=places, freezes=st.booleans())
    def arm(self, number: int, point: str, *, freezes: bool) -> None:
        """The next time that it comes there it stops, all of it or what does this alone."""
        process = self.process(number)
        process.armed, process.freezes = point, freezes

    @rule(number=which, other=which, point=places, pause=pauses, freezes=st.booleans())
    def stop_in_refresh(self, number: int, other: int, point: str, pause: float, *, freezes: bool) -> None:
        """It stands still at a point of a refresh, for some time, while another one needs a token."""
        self.process(number).resume()
        self.ask(number, 30.0)
        self.ask(other, 30.0)
        self.arm(number, point, freezes=freezes)
        self.refuse(number, 30.0)
        self.refuse(other, 30.0)
        self.pass_time(pause)

    @rule(points=st.tuples(places, places), pauses=st.tuples(pauses, pauses))
    def stop_two_in_refresh(self, points: tuple[str, str], pauses: tuple[float, float]) -> None:
        """One stands still, and when its turn has passed to another one, that does too; then both go on."""
        for number in range(2):
            self.process(number).resume()
            self.ask(number, 30.0)
        for number, (point, pause) in enumerate(zip(points, pauses, strict=True)):
            self.arm(number, point, freezes=True)
            self.refuse(number, 30.0)
            self.pass_time(pause)
        self.go_on(0)
        self.go_on(1)

    @rule(number=which, heir=which, point=places)
    def crash_in_refresh(self, number: int, heir: int, point: str) -> None:
        """The same, and it is gone there."""
        self.stop_in_refresh(number, number, point, 0.0, freezes=True)
        self.replace(self.process(number))
        self.ask(heir, 30.0)

    @rule(number=which, other=which, point=places, fate=fates_of_commands, empties=st.booleans())
    def fail_in_refresh(self, number: int, other: int, point: str, fate: str, *, empties: bool) -> None:
        """The server goes away in the middle of it, and comes back, with or without what it had."""
        self.stop_in_refresh(number, number, point, 0.0, freezes=True)
        self.change_store(fate)
        self.go_on(number)
        self.pass_time(3.0)
        if empties:
            self.world.empty()
        self.change_store("fine")
        self.ask(other, 30.0)

    @rule(number=which, wait=waits)
    def restart(self, number: int, wait: float) -> None:
        """It ends as it should, and begins again."""
        process = self.process(number)
        process.resume()
        seconds = 2 * wait + 4 * COMMAND_SECONDS
        task = self.start(process, process.end(wait), seconds)
        self.pass_time(seconds + ROUNDING)
        self.world.ledger.expect("the end takes too long", holds=task.done())
        self.replace(process)

    @invariant()
    def what_is_said_to_be_durable_is(self) -> None:
        """Or was: servers forget."""
        for each in self.processes:
            assert each.source.report().persisted is not True or each.held in self.world.written

    @rule()
    def logout(self) -> None:
        """A person logs out beside the members, some of which may have been told of that, and others not."""
        super().logout()
        self.has_ended = True

    def lives_on(self, process: Process) -> bool:
        """Also the one that it remembers, where the server has forgotten it, and nobody has ended it."""
        token = process.source._life.token
        refresh_token = None if token is None else token.refresh_token
        if self.has_ended or refresh_token is None or self.world.server.execute("HGET", TOKEN, "tag") is not None:
            return super().lives_on(process)
        return self.world.endpoint.lives(refresh_token.reveal())

    def mend(self) -> None:
        """The server too."""
        super().mend()
        self.change_store("fine")


@pytest.mark.parametrize(
    "machine", [TokenLifeInMemory, TokenLife, TokenLifeByServer], ids=["memory", "file", "redis"]
)
@pytest.mark.unmeasured
def test_tokens_live_as_they_must_through_any_history(
    machine: type[TokenLife], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refresh token twice, nothing expired, nothing that a crash would lose, nobody locked out."""
    # Processes die here, machines do not.
    monkeypatch.setattr(os, "fsync", lambda _number: None)
    hard = settings(
        stateful_step_count=30,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        database=None,
    )
    run_state_machine_as_test(machine, settings=hard)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("jump", [-31536000.0, -LIFETIME, LIFETIME, 31536000.0])
def test_095_a_wall_clock_that_is_set_in_a_refresh_costs_one_token_request_more_at_most(
    tmp_path: Path, point: str, jump: float
) -> None:
    """At each point of it; for who is in it none, and whoever begins then may not believe what is stored."""
    world = World(tmp_path / "tokens", lasting=True, begins_anew=True)
    processes = [Process(world)]

    def ask(process: Process, times: int = 1) -> None:
        for _ in range(times):
            process.start(process.served(process.source.token(30.0)))
            world.loop.let_pass(1.0)
            process.resume()
            world.loop.let_pass(1.0)

    ask(processes[0])
    world.loop.let_pass(REST)
    before = world.endpoint.issued
    processes[0].armed = point
    processes[0].start(processes[0].served(processes[0].source.token(30.0)))
    world.loop.let_pass(1.0)
    assert processes[0].parked
    world.clock.epoch += jump
    world.wall_was_set = True
    processes[0].resume()
    ask(processes[0], 10)
    assert world.endpoint.issued == before + 1
    processes.append(Process(world))
    for _ in range(10):
        for each in processes:
            ask(each)
    assert world.endpoint.issued <= before + 2
    assert [each.outcome for each in processes] == ["served", "served"]
    assert world.ledger.broken == []
    for each in processes:
        each.kill()
    world.close()


@pytest.mark.parametrize("begins_anew", [True, False], ids=["begins anew", "needs a person"])
def test_094_two_that_stand_still_anywhere_in_a_refresh_redeem_nothing_twice_in_silence(
    *, begins_anew: bool
) -> None:
    """The one for longer than its lease, the other where it has the turn: every two places."""
    for points in itertools.product(APART, repeat=2):
        machine = TokenLifeByServer()
        machine.begin(begins_anew=begins_anew)
        try:
            machine.stop_two_in_refresh(points, (LEASE + 1.0, 0.0))
        finally:
            machine.teardown()
        assert machine.world.ledger.broken == [], points


def test_088_a_slow_token_endpoint_costs_nobody_the_turn() -> None:
    """It is renewed for as long as the request takes; here nobody stands still."""
    machine = TokenLifeByServer()
    machine.begin(begins_anew=False)
    try:
        machine.stop_in_refresh(0, 1, "asked", 2 * LEASE + 1, freezes=False)
        machine.nobody_waits_longer_than_told()
        machine.nothing_is_broken()
    finally:
        machine.teardown()


def test_102_a_logout_is_not_undone_by_a_member_that_stood_still() -> None:
    """It may not note what it wanted to redeem, and ends what it holds."""
    machine = TokenLifeByServer()
    machine.begin(begins_anew=False)
    try:
        machine.arm(0, "confirmed", freezes=True)
        machine.force(0)
        machine.logout()
        machine.go_on(0)
        for _ in range(2):
            machine.pass_time(REST)
            machine.force(0)
        machine.nothing_is_broken()
        assert machine.world.ledger.durable is None
        assert machine.process(0).outcome == "login_required"
    finally:
        machine.teardown()


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
def test_094_what_may_have_been_taken_over_and_was_lost_is_not_stored_as_if_nobody_had_had_it(
    *, ends: bool
) -> None:
    """The answer to a write did not come, somebody redeemed what it wrote, and then the server lost all."""
    machine = TokenLifeByServer()
    machine.begin(begins_anew=True)
    try:
        # Who does not know the server's time writes nothing.
        machine.world.run(machine.process(0).opened.ask_time())
        machine.change_store_for_one(0, "mute")
        machine.force(0)
        machine.pass_time(11.0)
        machine.force(1)
        assert machine.process(1).redeemed == {"refresh-00000001"}
        machine.lose_store()
        if ends:
            machine.change_store_for_one(0, "fine")
            machine.restart(0, 0.5)
    finally:
        machine.teardown()
    assert machine.world.ledger.broken == []
