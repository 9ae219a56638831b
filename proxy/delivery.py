"""Passes an upstream's answer on to the client."""

from collections.abc import Sequence
from typing import Final

from proxy.headers import answer_lines
from proxy.http1.answer import CHUNKED, UNTIL_CLOSE, AnswerHead
from proxy.http1.bodies import LAST_CHUNK, chunk
from proxy.listener.answer import ClientAnswer, block
from proxy.upstream.answer import Answer

_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


async def deliver(
    answer: Answer, head: AnswerHead, lines: bytes, out: ClientAnswer, *, idle: float, echoes: Sequence[bytes]
) -> None:
    """Write the head with these field lines, then bytes as they come, then the body's own end.

    `idle`: seconds that either side may take between bytes; `echoes`: what no trailer may hold. Raises an
    `UpstreamError` where the answer breaks.
    """
    first = answer.read_nowait()
    if answer.framing not in (CHUNKED, UNTIL_CLOSE):
        if head.length is not None and head.status != 204:
            lines = b"%bContent-Length: %d\r\n" % (lines, head.length)
        out.begin(head.status, lines, first)
        await _pass_on(answer, out, idle)
    elif out.takes_chunks:
        pieces = chunk(first) if first else ()
        last = _last(answer, echoes) if answer.complete else b""
        out.begin(head.status, lines + _CHUNKED_LINE, b"".join((*pieces, last)))
        if last:
            return
        while piece := await answer.read(idle):
            await out.write(chunk(piece), idle)
        await out.write((_last(answer, echoes),), idle)
    else:
        out.begin(head.status, lines, first, until_close=True)
        await _pass_on(answer, out, idle)


async def _pass_on(answer: Answer, out: ClientAnswer, idle: float) -> None:
    if answer.complete:
        return
    while piece := await answer.read(idle):
        await out.write((piece,), idle)


def _last(answer: Answer, echoes: Sequence[bytes]) -> bytes:
    """The last chunk, and the trailers that the upstream sent with it."""
    trailers = answer.trailers
    if trailers is None or not trailers.fields:
        return LAST_CHUNK
    lines, _ = answer_lines(trailers.fields, trailers.options, echoes=echoes)
    return b"0\r\n%b\r\n" % block(lines)
