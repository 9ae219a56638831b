"""The wire corpus through a real proxy: each case whole, and once more one byte a segment."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.support import corpus
from tests.support.corpus import Group
from tests.support.harness import StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.playing import Rig
from tests.support.routes import Keyed
from tests.support.wire import Recorder
from tests.support.wiretext import spell

REQUESTS: Final = corpus.requests()
ANSWERS: Final = corpus.answers()
#: The two places of the credential, and what the corpus expects of limits and rules.
PLACES: Final = [{"header": "Authorization", "scheme": "Bearer"}, {"header": "X-Api-Key", "scheme": None}]
LIMITS: Final = {"header_bytes": "8KiB", "body_bytes": "64KiB"}
DENY: Final = [{"paths": ["/denied/*"]}]

in_bytes_or_whole = pytest.mark.parametrize("in_bytes", [False, True], ids=["whole", "byte by byte"])


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that must not show."""
    return Keyed(canaries.mint("token"))


@asynccontextmanager
async def rigged(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries, artefacts: Artefacts, *, in_bytes: bool, closing: bool
) -> AsyncIterator[Rig]:
    """A proxy in front of an upstream; with `closing` that one takes one good request a connection."""
    async with Recorder(in_bytes=in_bytes, closing=closing) as upstream, Recorder() as other:
        config = keyed.config(upstream.url, top={"limits": LIMITS, "admin": {"listen": None}}, deny=DENY)
        config["credentials"]["default"]["place"] = PLACES
        async with proxying(config, environ=keyed.environ) as proxy:
            rig = Rig(
                urlsplit(proxy.url).port or 0,
                upstream,
                other,
                values={
                    "canary": canaries.mint("token").encode(),
                    "token": keyed.token.encode(),
                    "upstream": upstream.authority.encode(),
                    "other": other.authority.encode(),
                },
                own={
                    "host": upstream.authority,
                    "authorization": f"Bearer {keyed.token}",
                    "x-api-key": keyed.token,
                },
                in_bytes=in_bytes,
            )
            artefacts.watch("what clients got", lambda: bytes(rig.transcript))
            yield rig


def assert_as_written(group: Group, wrong: Mapping[str, Sequence[str]]) -> None:
    """Fail with every complaint about every case of the group."""
    if wrong:
        lines = [f"  {group.name}: {case}: {complaint}" for case, each in wrong.items() for complaint in each]
        pytest.fail("\n".join([group.why.strip(), *lines]), pytrace=False)


@in_bytes_or_whole
@pytest.mark.parametrize("group", [pytest.param(group, id=group.name) for group in REQUESTS])
async def test_wire_requests(
    group: Group,
    proxying: StartProxy,
    keyed: Keyed,
    canaries: Canaries,
    artefacts: Artefacts,
    *,
    in_bytes: bool,
) -> None:
    """Answers, the state of the connection, and what reached the upstream are as the corpus says, case by case."""
    async with rigged(proxying, keyed, canaries, artefacts, in_bytes=in_bytes, closing=False) as rig:
        wrong = {case.name: complaints for case in group.cases if (complaints := await rig.request(case))}
    assert_as_written(group, wrong)


@in_bytes_or_whole
@pytest.mark.parametrize("group", [pytest.param(group, id=group.name) for group in ANSWERS])
async def test_wire_answers(
    group: Group,
    proxying: StartProxy,
    keyed: Keyed,
    canaries: Canaries,
    artefacts: Artefacts,
    *,
    in_bytes: bool,
) -> None:
    """What the client gets, and whether the upstream's connection is used again, is as the corpus says."""
    async with rigged(proxying, keyed, canaries, artefacts, in_bytes=in_bytes, closing=True) as rig:
        wrong = {case.name: complaints for case in group.cases if (complaints := await rig.answer(case))}
    assert_as_written(group, wrong)
