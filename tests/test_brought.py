"""A refresh token of the configuration comes back with each start; one that was replaced is not redeemed again."""

import asyncio
import base64
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.credentials.brought import BroughtGrant
from proxy.errors import CredentialRejected, CredentialUnavailable, LoginRequired, StoreUnavailable
from proxy.grants.request import Granted
from proxy.redact import Borrowed, Secret
from proxy.stores.redeemed import Redeemed, Redemption
from proxy.stores.rejections import RejectedFolder
from tests.support.api import api
from tests.support.harness import HeldClock, StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.redisserver import needs_redis, serving
from tests.support.strict import Strict

BEGUN, SPENT = Redemption.BEGUN, Redemption.SPENT
HOUR: Final = 3600.0


# -- the grant


@dataclass
class Script:
    """The grant beneath: one outcome an attempt."""

    begins_anew: bool = False
    outcomes: list[Granted | BaseException] = field(default_factory=list)
    asked_with: list[Secret | None] = field(default_factory=list)
    #: What was noted when it was asked.
    noted: list[Redemption | None] = field(default_factory=list)
    redeemed: Redeemed | None = None

    def can_refresh(self, refresh_token: Secret | None, _token: Secret | None) -> bool:
        """By a refresh token."""
        return refresh_token is not None

    async def obtain(
        self, refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """The next outcome."""
        self.asked_with.append(refresh_token)
        self.noted.append(None if self.redeemed is None else await self.redeemed.state())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Granted):
            return outcome
        raise outcome


@dataclass
class Bench:
    """A folder, a clock, and the token of the configuration."""

    folder: Path
    clock: HeldClock
    canaries: Canaries
    brought: Secret

    def redeemed(self, token: Secret | None = None, name: str = "c") -> Redeemed:
        """What a process that starts now knows."""
        home = RejectedFolder(self.folder / "redeemed")
        return Redeemed(home, name, token or self.brought, wall=self.clock.wall)

    def process(self, *outcomes: Granted | BaseException, anew: bool = False) -> tuple[BroughtGrant, Script]:
        """One that starts now."""
        redeemed = self.redeemed()
        script = Script(anew, list(outcomes), redeemed=redeemed)
        return BroughtGrant("c", script, self.brought, redeemed, is_sole=not anew), script

    def granted(self, refresh_token: Secret | None) -> Granted:
        """A token."""
        return Granted(Secret(self.canaries.mint("token")), refresh_token, HOUR)

    def rotated(self) -> Granted:
        """With another refresh token."""
        return self.granted(Secret(self.canaries.mint("uuid")))


@pytest.fixture
def bench(tmp_path: Path, clock: HeldClock, canaries: Canaries, artefacts: Artefacts) -> Bench:
    """Nothing is noted."""
    artefacts.watch_tree(tmp_path)
    return Bench(tmp_path, clock, canaries, Secret(canaries.mint("uuid")))


def undecided(rotated: Secret | None = None) -> CredentialUnavailable:
    """Nobody knows whether it was redeemed."""
    failure = CredentialUnavailable("no answer")
    failure.undecided, failure.rotated = True, rotated
    return failure


@pytest.mark.threat(88)
async def test_088_what_was_replaced_is_not_redeemed_again(bench: Bench) -> None:
    """By nobody who starts later, whatever they know; another token is another matter."""
    grant, script = bench.process(got := bench.rotated(), bench.rotated())
    assert await grant.obtain(None) is got
    assert (script.asked_with, script.noted) == ([bench.brought], [BEGUN])
    await grant.obtain(got.refresh_token)
    assert script.asked_with == [bench.brought, got.refresh_token]
    heir, script = bench.process()
    for held in (None, bench.brought):
        with pytest.raises(LoginRequired, match=r"was redeemed before.*take back what was changed.*give it a new"):
            await heir.obtain(held)
    assert script.asked_with == []
    assert await bench.redeemed(Secret("another")).state() is None
    assert await bench.redeemed(name="d").state() is None


@pytest.mark.threat(88)
async def test_088_who_can_begin_anew_does_so_instead(bench: Bench) -> None:
    """A password beside it, say."""
    grant, _ = bench.process(bench.rotated(), anew=True)
    await grant.obtain(None)
    heir, script = bench.process(bench.rotated(), anew=True)
    await heir.obtain(None)
    assert script.asked_with == [None]


@pytest.mark.threat(90)
async def test_090_it_is_noted_before_it_is_redeemed_and_a_crash_leaves_that(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows then whether it was taken: it is tried all the same, and that is told."""
    grant, script = bench.process(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await grant.obtain(None)
    assert await bench.redeemed().state() is BEGUN
    heir, script = bench.process(bench.rotated())
    with caplog.at_level(logging.WARNING):
        await heir.obtain(None)
    told = [each.__dict__["fields"] for each in caplog.records if each.msg == "token_rotation_lost"]
    assert told == [{"credential": "c", "anew": False}]
    assert script.asked_with == [bench.brought]
    assert await bench.redeemed().state() is SPENT


@pytest.mark.threat(90)
async def test_090_who_can_begin_anew_does_not_try_what_may_be_spent(bench: Bench) -> None:
    """As with a refresh token that is stored; unless its secret was rejected."""
    await bench.redeemed().note(BEGUN)
    heir, script = bench.process(bench.rotated(), bench.rotated(), anew=True)
    await heir.obtain(None)
    await heir.obtain(None, None, "rejected before")
    assert script.asked_with == [None, bench.brought]


@pytest.mark.parametrize(
    ("outcome", "remains"),
    [
        (CredentialUnavailable("429"), None),
        (CredentialRejected("400"), None),
        (undecided(), BEGUN),
        (undecided(Secret("another")), SPENT),
    ],
    ids=["decided", "refused", "undecided", "undecided, with a new one"],
)
@pytest.mark.threat(90)
async def test_090_what_remains_noted_is_what_is_known(
    bench: Bench, outcome: CredentialUnavailable, remains: Redemption | None
) -> None:
    """A request that surely redeemed nothing leaves no note."""
    grant, _ = bench.process(outcome)
    with pytest.raises(type(outcome)):
        await grant.obtain(None)
    assert await bench.redeemed().state() is remains


async def test_a_note_of_somebody_elses_stays(bench: Bench) -> None:
    """This attempt was refused; nobody knows of the one before."""
    await bench.redeemed().note(BEGUN)
    grant, _ = bench.process(CredentialUnavailable("429"))
    with pytest.raises(CredentialUnavailable):
        await grant.obtain(None)
    assert await bench.redeemed().state() is BEGUN


@pytest.mark.parametrize("rotates", [False, True])
async def test_with_a_server_that_does_not_rotate_it_stays_good(bench: Bench, *, rotates: bool) -> None:
    """Until it does."""
    grant, script = bench.process(bench.granted(bench.brought), bench.granted(None))
    for held in (None, bench.brought):
        await grant.obtain(held)
        assert await bench.redeemed().state() is None
    script.outcomes = [bench.rotated() if rotates else bench.granted(None)]
    await grant.obtain(bench.brought)
    assert await bench.redeemed().state() is (SPENT if rotates else None)
    assert script.asked_with == [bench.brought] * 3


@pytest.mark.threat(88)
async def test_088_what_somebody_notes_meanwhile_counts(bench: Bench) -> None:
    """This process stood still between its look and its note, and lost its turn."""
    redeemed, home = bench.redeemed(), RejectedFolder(bench.folder / "elsewhere")
    await Redeemed(home, "c", bench.brought, wall=bench.clock.wall).note(SPENT)
    note = redeemed.note

    async def late(state: Redemption) -> None:
        await note(state)
        [file] = (bench.folder / "elsewhere").iterdir()
        file.rename(bench.folder / "redeemed" / file.name)

    redeemed.note = late  # type: ignore[method-assign]  # somebody else has the turn meanwhile
    script = Script()
    with pytest.raises(LoginRequired):
        await BroughtGrant("c", script, bench.brought, redeemed, is_sole=True).obtain(None)
    assert script.asked_with == []


@pytest.mark.parametrize("anew", [True, False])
async def test_where_nothing_can_be_noted_nothing_is_redeemed(bench: Bench, *, anew: bool) -> None:
    """Whoever begins anew does."""
    (bench.folder / "redeemed").touch()
    grant, script = bench.process(bench.rotated(), anew=anew)
    script.redeemed = None
    if anew:
        await grant.obtain(None)
        assert script.asked_with == [None]
        return
    with pytest.raises(StoreUnavailable):
        await grant.obtain(None)
    assert script.asked_with == []


async def test_a_disk_that_is_full_for_all_is_no_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a refresh token that is stored (threat 91)."""
    full = StoreUnavailable("full")
    full.for_all = True

    async def note(_state: Redemption) -> None:
        raise full

    redeemed = bench.redeemed()
    monkeypatch.setattr(redeemed, "note", note)
    script = Script(outcomes=[got := bench.rotated()])
    assert await BroughtGrant("c", script, bench.brought, redeemed, is_sole=True).obtain(None) is got


@pytest.mark.threat(107)
async def test_107_what_rests_is_that_of_the_latch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow digest, at most sixteen of a name."""
    monkeypatch.setattr("proxy.stores.latch._SCRYPT_N", 2)
    for number in range(18):
        await bench.redeemed(Secret(f"token {number}")).note(SPENT)
    files = list((bench.folder / "redeemed").iterdir())
    assert len(files) == 16
    assert {json.loads(each.read_text())["reason"] for each in files} == {"spent"}
    assert await bench.redeemed(Secret("token 1")).state() is None
    assert await bench.redeemed(Secret("token 17")).state() is SPENT
    await bench.redeemed(Secret("token 17")).forget()
    assert await bench.redeemed(Secret("token 17")).state() is None


@pytest.mark.threat(88, 90)
async def test_090_a_refresh_token_that_is_borrowed_is_known_by_its_value(bench: Bench) -> None:
    """What a lender gives later is another token, and its own is spent still when it comes back."""
    borrowed = Borrowed("lender")
    borrowed.lend(bench.brought)
    redeemed = bench.redeemed(borrowed)
    for token in (bench.brought, Secret(bench.canaries.mint("uuid"))):
        borrowed.lend(token)
        assert await redeemed.state() is None
        await redeemed.note(SPENT)
        assert await redeemed.state() is await bench.redeemed(token).state() is SPENT
    borrowed.lend(bench.brought)
    assert await redeemed.state() is SPENT
    await redeemed.forget()
    assert await redeemed.state() is None
    borrowed.lend(token)
    assert await redeemed.state() is SPENT


# -- a proxy


@pytest.fixture(params=["file", pytest.param("redis", marks=needs_redis)])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, artefacts: Artefacts, clock: HeldClock, monkeypatch: Any
) -> Iterator[dict[str, Any]]:
    """A store that lasts."""
    key = {"key": {"env": "STORE_KEY"}}
    if request.param == "file":
        yield {"kind": "file", "path": str(tmp_path / "tokens"), **key}
        return
    monkeypatch.setattr("proxy.stores.servertime.in_seconds", lambda _time: clock.wall())
    folder = tmp_path / "redis"
    folder.mkdir()
    with serving(folder) as server:
        yield {"kind": "redis", "url": server.url, **key}
        artefacts.add("redis", server.everything())


@dataclass
class World:
    """A vendor that ends a login whose refresh token comes twice, and proxies that begin with the same one."""

    proxying: StartProxy
    clock: HeldClock
    vendor: Strict
    url: str
    store: dict[str, Any]
    environ: dict[str, str]

    def proxy(self, environ: dict[str, str] | None = None, **changed: Any) -> Any:
        """One more; something of the credential is `changed`."""
        credential = {
            "type": "oauth2",
            "grant": "refresh_token",
            "client_id": "tool",
            "client_secret": {"env": "CLIENT_SECRET"},
            "client_auth": "post",
            "token_url": f"{self.url}/token",
            "refresh_token": {"env": "REFRESH"},
            **changed,
        }
        given = {"upstream": self.url, "credential": credential, "store": self.store}
        return self.proxying(given, environ={**self.environ, **(environ or {})}, clock=self.clock)

    async def expire(self) -> None:
        """The token that is there is over."""
        self.vendor.expire()
        self.clock.move(HOUR + 1)


@pytest.fixture
async def world(proxying: StartProxy, clock: HeldClock, canaries: Canaries, kept: dict[str, Any]) -> Any:
    """None has begun."""
    vendor = Strict(canaries)
    environ = {
        "REFRESH": vendor.begin(),
        "CLIENT_SECRET": canaries.mint("password"),
        "NEW_SECRET": canaries.mint("password"),
        "STORE_KEY": base64.b64encode(canaries.mint("token")[:32].encode()).decode(),
    }
    async with api(vendor.answer) as server:
        yield World(proxying, clock, vendor, server.url, kept, environ)


CHANGES: Final[dict[str, dict[str, Any]]] = {
    "scope": {"scope": ["x"]},
    "origins": {"origins": ["https://other.example.com"]},
    "secret": {"client_secret": {"env": "NEW_SECRET"}},
}


@pytest.mark.threat(88)
@pytest.mark.parametrize("change", CHANGES)
async def test_088_a_change_of_the_credential_does_not_redeem_the_spent_one(world: World, change: str) -> None:
    """The instance that runs goes on, and so does the next one when the change is taken back."""
    async with world.proxy() as running:
        assert (await running.ask("GET", "/")).status == 200
        await world.expire()
        assert (await running.ask("GET", "/")).status == 200
        await world.expire()
        async with world.proxy(**CHANGES[change]) as changed:
            answer = await changed.ask("GET", "/")
            assert (answer.status, answer.code) == (503, "login_required")
            assert "take back what was changed" in answer.json()["detail"]
        assert (await running.ask("GET", "/")).status == 200
    await world.expire()
    async with world.proxy() as later:
        assert (await later.ask("GET", "/")).status == 200
    # A new one mends it as well.
    fresh = {"REFRESH": world.vendor.begin()}
    async with world.proxy(fresh, **CHANGES[change]) as changed:
        assert (await changed.ask("GET", "/")).status == 200
    assert world.vendor.reuses == 0


@pytest.mark.threat(88, 90)
async def test_090_what_came_with_a_token_of_no_use_and_before_any_other_is_told_to_be_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first redemption of all: there is no record to keep it in, and the spent one is not tried again."""
    issue = world.vendor.issue
    monkeypatch.setattr(world.vendor, "issue", lambda: f"{issue()}\x01x")
    async with world.proxy() as one:
        assert (await one.ask("GET", "/")).status == 503
        assert [line["anew"] for line in one.lines("token_rotation_lost")] == [False]
    monkeypatch.setattr(world.vendor, "issue", issue)
    async with world.proxy() as other:
        assert (await other.ask("GET", "/")).code == "login_required"
    assert (world.vendor.seen, world.vendor.reuses) == (["refresh"], 0)


@pytest.mark.threat(132)
@pytest.mark.parametrize("kept", ["file"], indirect=True)
async def test_132_a_record_that_was_damaged_does_not_redeem_the_spent_one(world: World) -> None:
    """When it is whole again, all is well."""
    async with world.proxy() as first:
        assert (await first.ask("GET", "/")).status == 200
    file = Path(world.store["path"], "default.token")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    async with world.proxy() as second:
        assert (await second.ask("GET", "/")).code == "login_required"
        file.write_bytes(whole)
        world.clock.move(3.0)
        assert (await second.ask("GET", "/")).status == 200
    assert world.vendor.reuses == 0


@pytest.mark.threat(89)
@pytest.mark.parametrize("kept", ["file"], indirect=True)
async def test_089_a_refusal_that_ends_with_what_another_has_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was redeemed twice, as no lease can rule out (threat 94): that is not silent."""
    folder = Path(world.store["path"])
    async with world.proxy() as one:
        assert (await one.ask("GET", "/")).status == 200
    kept = (folder / "default.token").read_bytes()
    (folder / "default.token").unlink()
    shutil.rmtree(folder / "redeemed")
    redeem = world.vendor._redeem

    def meanwhile(refresh_token: str) -> bool:
        file = folder / "default.token"
        file.touch(mode=0o600)
        file.write_bytes(kept)
        return redeem(refresh_token)

    monkeypatch.setattr(world.vendor, "_redeem", meanwhile)
    async with world.proxy() as two:
        assert (await two.ask("GET", "/")).status == 200
        assert [line["level"] for line in two.lines("refresh_token_refused")] == ["warning"]
        assert two.lines("token_adopted")
    assert world.vendor.reuses == 1
