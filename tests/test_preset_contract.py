"""Every preset against a far end of its own: obtain, inject, expire, get a newer one, repeat, reject.

The far ends are ours (`tests/support/presetdoubles.py`): this proves that presets agree with what is documented.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.config.presets import presets
from proxy.redact import Redactor
from tests.support.api import Api, Seen, api
from tests.support.harness import HeldClock, Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.presetdoubles import DOUBLES, LIFETIME, Double, Far

#: A table over lines that other tests measure.
pytestmark = pytest.mark.unmeasured
#: What a client might send of its own, in places where some API would take it.
THEIRS = "theirs-0123456789abcdef"
FOREIGN = [
    ("Authorization", f"Bearer {THEIRS}"),
    ("Authentication", f"Bearer {THEIRS}"),
    ("PRIVATE-TOKEN", THEIRS),
    ("X-Vault-Token", THEIRS),
]


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """A key for those that sign."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(params=sorted(DOUBLES))
def preset(request: pytest.FixtureRequest) -> str:
    """Each preset by its name."""
    return str(request.param)


class Stage:
    """One preset at work: the proxy, and both sides of its far end."""

    def __init__(self, double: Double, far: Far, proxy: Proxy, seen: Api) -> None:
        self.double = double
        self.far = far
        self.proxy = proxy
        self._api = seen

    async def get(self) -> tuple[int, dict[str, Any]]:
        """One request of a client; the status, and the answer."""
        answer = await self.proxy.ask("GET", "/thing?page=2", FOREIGN)
        return answer.status, answer.json()

    @property
    def things(self) -> list[Seen]:
        """The requests that reached the API."""
        return [seen for seen in self._api.seen if seen.target.startswith("/thing")]

    def places(self, seen: Seen) -> list[tuple[str, str, str]]:
        """Wherever the newest token stands in a request."""
        token = self.far.issued[-1]
        found = [("header", name, value.replace(token, "TOKEN")) for name, value in seen.headers if token in value]
        if token in seen.target:
            found.append(("target", "", seen.target.replace(token, "TOKEN")))
        if token.encode() in seen.body:
            found.append(("body", "", ""))
        return found


@pytest.fixture
def far(
    canaries: Canaries, clock: HeldClock, key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> Far:
    """The far end, not served yet."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Far(clock, canaries, tmp_path_factory.mktemp("far"), pem, key.public_key(), environ={"PRIVATE_KEY": pem})


@pytest.fixture
async def stage(preset: str, proxying: StartProxy, far: Far) -> AsyncIterator[Stage]:
    """The preset of this test, served."""
    given = DOUBLES[preset]
    async with _far_end(given, far) as seen:
        for variable in ("PASSWORD", "CLIENT_SECRET"):
            far.secret(variable)
        far.secret("CLIENT_ID", "key")
        for variable in ("PRIVATE_TOKEN", "ROLE", "SECRET_ID"):
            far.secret(variable, "uuid")
        config = {
            "upstream": far.url,
            "credential": {"preset": given.preset or preset, **given.keys(far)},
            "credentials": given.others(far),
        }
        async with proxying(config, environ=far.environ, clock=far.clock) as proxy:
            yield Stage(given, far, proxy, seen)
    assert far.complaints == []


@asynccontextmanager
async def _far_end(double: Double, far: Far) -> AsyncIterator[Api]:
    async def answer(seen: Seen) -> web.StreamResponse:
        given = double.answer(seen, far)
        if given is not None:
            return given
        if any(token in f"{seen.target} {seen.headers}" for token in far.live):
            return far.reply({"thing": 1})
        status, document, headers = double.refusal
        return far.reply(document, status, headers)

    async with api(answer) as served:
        far.url = served.url
        yield served


async def test_the_first_request_gets_a_token_and_carries_it_where_the_preset_says(stage: Stage) -> None:
    """Exactly there, and nowhere else; the client's own credentials are gone, the constants are there."""
    assert (await stage.get())[0] == 200
    [seen] = stage.things
    assert stage.places(seen) == stage.double.places
    placed = {name.lower() for _, name, _ in stage.double.places}
    ours = {"authorization", *placed}
    assert THEIRS not in str([(name, value) for name, value in seen.headers if name.lower() in ours])
    for name, value in stage.double.constants:
        assert seen.all(name) == [value]
    assert len(stage.far.issued) == 1


async def test_an_expired_token_is_never_sent(stage: Stage) -> None:
    """Past its lifetime the next request waits for a newer one, where one can be had."""
    assert (await stage.get())[0] == 200
    if not stage.double.renews:
        return
    stage.far.clock.move(LIFETIME * 2)
    stage.far.live = set()
    if stage.double.mirror is not None:
        stage.double.mirror(stage.far)
    assert (await stage.get())[0] == 200
    assert len(stage.far.issued) == 2
    assert stage.places(stage.things[-1]) == stage.double.places
    # The second one never had the old token: it was not refused.
    assert len(stage.things) == 2


async def test_a_refused_token_is_replaced_and_the_request_repeated(stage: Stage) -> None:
    """The client sees the second answer; a token that cannot be replaced leaves it the first one."""
    assert (await stage.get())[0] == 200
    stage.far.live = set()
    if stage.double.mirror is not None:
        stage.double.mirror(stage.far)
    status, _ = await stage.get()
    assert status == (200 if stage.double.renews else stage.double.refusal[0])
    if stage.double.renews:
        assert len(stage.far.issued) == 2
        assert len(stage.things) == 3
        assert stage.places(stage.things[-1]) == stage.double.places
    else:
        assert len(stage.things) == 2


async def test_where_no_newer_token_can_be_had_the_refusal_is_passed_on(stage: Stage) -> None:
    """The upstream's own answer, unchanged."""
    assert (await stage.get())[0] == 200
    stage.far.live, stage.far.rejecting = set(), True
    status, document = await stage.get()
    assert (status, document) == stage.double.refusal[:2]


async def test_without_a_token_nothing_reaches_the_upstream(stage: Stage) -> None:
    """The endpoint says no from the beginning: the client learns which way, the upstream nothing."""
    stage.far.rejecting = True
    status, document = await stage.get()
    if not stage.double.rejected[1] or not stage.double.renews:
        # These have a token of their own making: it is for the upstream to say no.
        assert len(stage.things) <= 2
        return
    assert (status, document["code"]) == stage.double.rejected
    assert stage.things == []


async def test_the_token_endpoint_is_not_reachable_through_the_proxy(stage: Stage) -> None:
    """What the preset denies is refused before anything is asked for."""
    assert stage.double.denied
    for method, path in stage.double.denied:
        answer = await stage.proxy.ask(method, path)
        assert (answer.status, answer.json()["code"]) == (403, "path_denied"), path
    assert stage.things == []


def test_every_preset_has_a_far_end() -> None:
    """A new preset comes with one."""
    assert {double.preset or name for name, double in DOUBLES.items()} == set(presets())


@pytest.mark.parametrize("preset", presets().values(), ids=presets())
def test_what_a_preset_knows_of_tokens_masks_them(preset: Any) -> None:
    """Each pattern masks what its own hint begins, in a text that no registered secret stands in."""
    samples = {
        "gh": "ghs_16C7e42F292c6912E7710c838347Ae178B4a",
        "glpat-": "glpat-aaaaBBBBcccc1111",
        "ya29.": "ya29.aaaaBBBBcccc1111",
        "hv": "hvs.aaaaBBBBcccc1111",
        "va.": "va.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.gNjbcA.fgc0U5h",
        'token"': '"access_token": "aaaaBBBBcccc11", "token": "aaaaBBBBcccc11", "accessToken": "aaaaBBBBcccc11"',
    }
    for pattern in preset.redact:
        sample = next(text for hint, text in samples.items() if hint in pattern.hints)
        masked = Redactor([pattern]).text(f"it was {sample}, as they say")
        assert "***" in masked
        assert masked != f"it was {sample}, as they say"
