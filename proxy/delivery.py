"""Passes an upstream's answer on to the client: what is there at once, and then bytes as they come."""

from collections.abc import Sequence
from typing import Final

from proxy.body import Watcher
from proxy.headers import answer_lines
from proxy.http1.answer import CHUNKED, UNTIL_CLOSE
from proxy.http1.bodies import LAST_CHUNK, chunk
from proxy.listener.answer import ClientAnswer, block
from proxy.upstream.answer import Answer
from proxy.upstream.attempt import Attempt

_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


async def deliver(
    attempt: Attempt,
    lines: bytes,
    out: ClientAnswer,
    *,
    idle: float,
    echoes: Sequence[bytes],
    watchers: tuple[Watcher, ...],
) -> None:
    """Write the head with these field lines, the body as it comes, and the body's own end.

    `idle`: seconds that either side may take between bytes; `echoes`: what no trailer may hold; `watchers`
    see the body. Raises an `UpstreamError` where the answer breaks.
    """
    answer, head = attempt.answer, attempt.head
    first, is_whole = answer.read_nowait(), answer.complete
    for watcher in watchers:
        watcher.see(first)
    in_chunks = answer.framing in (CHUNKED, UNTIL_CLOSE)
    if not in_chunks:
        if head.length is not None and head.status != 204:
            lines = b"%bContent-Length: %d\r\n" % (lines, head.length)
        out.begin(head.status, lines, first)
    elif out.takes_chunks:
        pieces = [*chunk(first)] if first else []
        if is_whole:
            pieces.append(_last(answer, echoes))
        out.begin(head.status, lines + _CHUNKED_LINE, b"".join(pieces))
    else:
        out.begin(head.status, lines, first, until_close=True)
    if not is_whole:
        await _pass_on(answer, out, idle, echoes if in_chunks and out.takes_chunks else None, watchers)


async def _pass_on(
    answer: Answer, out: ClientAnswer, idle: float, echoes: Sequence[bytes] | None, watchers: tuple[Watcher, ...]
) -> None:
    """The rest of the body; in chunks where `echoes` are told."""
    while piece := await answer.read(idle):
        for watcher in watchers:
            watcher.see(piece)
        await out.write((piece,) if echoes is None else chunk(piece), idle)
    if echoes is not None:
        await out.write((_last(answer, echoes),), idle)


def _last(answer: Answer, echoes: Sequence[bytes]) -> bytes:
    """The last chunk, and the trailers that the upstream sent with it."""
    trailers = answer.trailers
    if trailers is None or not trailers.fields:
        return LAST_CHUNK
    lines, _ = answer_lines(trailers.fields, trailers.options, echoes=echoes)
    return b"0\r\n%b\r\n" % block(lines)
