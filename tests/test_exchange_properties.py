"""Round trips of arbitrary exchanges through one proxy over real sockets: what one end sends, the other end reads.

Both far ends read with h11, which shares nothing with the proxy; the raw field lines are compared beside that. The
strategies stand in `tests/support/exchanges.py`. Properties are derandomized: each run tries the same examples.
"""

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.exchanges import (
    Answer,
    Body,
    Exchange,
    Field,
    Request,
    answers,
    conversations,
    requests,
    segmentations,
    stripped,
    targets,
)
from tests.support.farends import DEADLINE, Message, Upstream, converse
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed

FRAMING = (b"content-length", b"transfer-encoding")


class Rig:
    """One proxy between the two far ends for all examples of a property: its pool lives on from one to the next."""

    def __init__(self, runner: asyncio.Runner, upstream: Upstream, proxy_url: str, token: str) -> None:
        self._runner = runner
        self._upstream = upstream
        self._address = ("127.0.0.1", urlsplit(proxy_url).port or 0)
        self.host = b"127.0.0.1:%d" % upstream.port
        self.credential: Field = (b"Authorization", b"Bearer " + token.encode())

    def pass_through(
        self, conversation: Sequence[Exchange], up: Sequence[int], down: Sequence[int]
    ) -> tuple[list[Message], list[Message | None]]:
        """What the upstream read, and what the client read; `up`, `down`: how the bytes are cut on their way."""
        self._upstream.answers.clear()
        self._upstream.answers.extend(exchange.answer for exchange in conversation)
        self._upstream.sizes = down
        self._upstream.seen.clear()
        self._upstream.failures.clear()
        read = self._runner.run(self._within(conversation, up))
        assert not self._upstream.failures
        return list(self._upstream.seen), read

    async def _within(self, conversation: Sequence[Exchange], up: Sequence[int]) -> list[Message | None]:
        async with asyncio.timeout(DEADLINE):
            return await converse(self._address, conversation, up)


@pytest.fixture
def rig(proxying: StartProxy, canaries: Canaries) -> Iterator[Rig]:
    """A static token, one upstream, one proxy."""
    keyed = Keyed(canaries.mint("token"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack, upstream = AsyncExitStack(), Upstream()

        async def begin() -> str:
            upstream.start()
            stack.push_async_callback(upstream.stop)
            config = keyed.config(f"http://127.0.0.1:{upstream.port}")
            proxy = await stack.enter_async_context(proxying(config, environ=keyed.environ))
            return str(proxy.url)

        yield Rig(runner, upstream, runner.run(begin()), keyed.token)
        runner.run(stack.aclose())


def check_request(sent: Request, read: Message, host: bytes, credential: Field) -> None:
    """Invariant 7 on the way up: end-to-end fields in case and order, framing, body; the credential is last."""
    assert read.start == b"%b %b HTTP/1.1" % (sent.method, sent.target)
    assert read.fields[-1] == credential
    assert read.all(b"authorization") == [credential[1]]
    assert read.all(b"host") == [host]
    # Cookie fields may become one (RFC 6265 section 5.4), wherever it stands; an empty one says nothing.
    cookies = [value for name, value in sent.crossing if name.lower() == b"cookie" and value]
    assert b"; ".join(read.all(b"cookie")) == b"; ".join(cookies)
    crossed = read.without(b"authorization", b"host", b"cookie", *FRAMING)
    assert crossed == tuple(field for field in sent.crossing if field[0].lower() != b"cookie")
    assert (
        framing(read)
        == {
            "none": [],
            "length": [(b"content-length", b"%d" % len(sent.body.content))],
            "chunked": [(b"transfer-encoding", b"chunked")],
        }[sent.body.framing]
    )
    assert read.body == sent.body.content
    assert read.trailers == ()


def check_answer(sent: Answer, read: Message, *, to: Request) -> None:
    """Invariant 7 on the way down: status, fields, framing, body, trailers and interim answers."""
    is_old = to.version == b"1.0"
    assert int(read.start.split(b" ")[1]) == sent.status
    assert read.without(b"connection", *FRAMING) == sent.crossing
    assert read.body == sent.body.content
    if sent.length is not None:
        assert framing(read) == [(b"content-length", b"%d" % sent.length)]
    elif sent.body.framing == "chunked":
        assert framing(read) == ([] if is_old else [(b"transfer-encoding", b"chunked")])
    assert read.trailers == (() if is_old else sent.body.trailers)
    interim = [(int(start.split(b" ")[1]), fields) for start, fields in read.interim]
    assert interim == ([] if is_old else [(status, stripped(lines)) for status, lines in sent.interim])


def framing(message: Message) -> list[Field]:
    """Its framing fields, names in lower case."""
    return [(name.lower(), value) for name, value in message.fields if name.lower() in FRAMING]


def check(rig: Rig, conversation: Sequence[Exchange], up: Sequence[int], down: Sequence[int]) -> None:
    """All of it arrives: each request once, in order, and each answer at its request."""
    seen, read = rig.pass_through(conversation, up, down)
    assert len(seen) == len(conversation)
    for exchange, request, answer in zip(conversation, seen, read, strict=True):
        check_request(exchange.request, request, rig.host, rig.credential)
        assert answer is not None
        check_answer(exchange.answer, answer, to=exchange.request)


def property_of(share: float) -> settings:
    """How hard to look: for this share of the profile's examples.

    The rig is meant to last for all examples, and no example for the next run.
    """
    return settings(
        derandomize=True,
        database=None,
        max_examples=round(share * settings().max_examples),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


GET = Request(b"GET", b"/", b"1.1", ((b"Host", b" localhost"),), (), Body())
FINE = Answer(200, b"1.1", (), ((b"Content-Length", b" 4"),), (), Body("length", b"fine", b"fine"), 4, closes=False)
NOTHING = dataclasses.replace(FINE, body=Body())


@given(requests(last=True), segmentations)
@property_of(1.5)
def test_invariant_7_a_request_arrives_as_it_was_sent(rig: Rig, sent: Request, sizes: list[int]) -> None:
    """Method, target, field lines, body; hop-by-hop fields, trailers and the client's credentials stay behind."""
    check(rig, [Exchange(sent, NOTHING if sent.method == b"HEAD" else FINE)], sizes, [])


@given(answers(b"GET"), segmentations)
@property_of(1.5)
def test_invariant_7_an_answer_arrives_as_it_was_sent(rig: Rig, sent: Answer, sizes: list[int]) -> None:
    """Interim answers, status, field lines, framing, body and trailers; hop-by-hop fields stay behind."""
    check(rig, [Exchange(GET, sent)], [], sizes)


@pytest.mark.threat(29)
@given(targets)
@property_of(1)
def test_029_a_target_arrives_byte_for_byte(rig: Rig, target: bytes) -> None:
    """Everything that a target may hold, none of it decoded, merged or written again."""
    check(rig, [Exchange(dataclasses.replace(GET, target=target), FINE)], [], [])


@given(conversations(), segmentations, segmentations)
@property_of(0.8)
def test_046_a_pipelined_conversation_arrives_as_it_was_sent(
    rig: Rig, conversation: list[Exchange], up: list[int], down: list[int]
) -> None:
    """Several requests at once: each answer is that to its own request, wherever the segments end."""
    check(rig, conversation, up, down)
