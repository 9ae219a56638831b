"""A token in an answer's body is noticed as it passes, wherever pieces end; no byte is changed (threat 62)."""

import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokenguard import TokenGuard
from tests.support.harness import StartProxy
from tests.support.routes import Keyed
from tests.support.upstreams import REQUEST, Upstream

TOKEN = b"token-0123456789"
QUOTED = b"token%2D0123456789"


def noticed(*pieces: bytes) -> int:
    """How often the alarm sounds for a body that comes in these pieces."""
    sounded: list[bool] = []
    guard = TokenGuard((TOKEN, QUOTED), lambda: sounded.append(True))
    for piece in pieces:
        guard.see(piece)
    return len(sounded)


@given(before=st.binary(max_size=40), after=st.binary(max_size=40), cuts=st.lists(st.integers(0, 100), max_size=8))
def test_a_token_is_noticed_wherever_pieces_end(before: bytes, after: bytes, cuts: list[int]) -> None:
    """Once, in whatever pieces it comes."""
    for echo in (TOKEN, QUOTED):
        body = before + echo + after
        ends = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
        assert noticed(*(body[begin:end] for begin, end in pairwise(ends))) == 1


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_what_is_no_token_is_not_noticed(pieces: list[bytes]) -> None:
    """Nor is one that lacks its last byte."""
    assert noticed(*pieces, TOKEN[:-1], b"!") == int(TOKEN in b"".join([*pieces, TOKEN[:-1], b"!"]))


@pytest.mark.threat(62)
@pytest.mark.parametrize("mode", ["off", "alarm"])
async def test_062_the_alarm_tells_of_a_token_in_a_body_and_passes_every_byte(
    proxying: StartProxy, mode: str
) -> None:
    """Whole, in chunks, behind other text; where it is compressed it does not, which is documented."""
    keyed = Keyed("no-canary-since-the-client-sees-it")
    token = keyed.token
    body = b'{"seen": "' + token.encode() + b'"}'
    half = len(body) // 2
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (half, body[:half], len(body) - half, body[half:]),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(packed := gzip.compress(body)), packed),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone",
    ]
    script = [step for answer in answers for step in (REQUEST, answer)]
    async with Upstream(script) as upstream:
        config = keyed.config(upstream.origin, token_guard=mode)
        async with proxying(config, environ=keyed.environ) as proxy:
            got = [(await proxy.ask("GET", "/x")).body for _ in answers]
            told = proxy.lines("token_in_body")
            metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    assert got == [body, body, packed, b"none"]
    assert len(told) == (2 if mode == "alarm" else 0)
    assert ('tokens_in_bodies_total{route="default"} 2' in metrics) is (mode == "alarm")
