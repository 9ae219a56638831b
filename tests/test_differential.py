"""The requests of the wire corpus through nginx and HAProxy: what they take or read otherwise stands in a list.

What we do is what the corpus says, which `test_wire_corpus.py` holds the proxy to. "Our reading may be stricter,
never different": what both sides take, both sides must read alike.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import corpus
from tests.support.corpus import NOTHING, UNFINISHED, RequestCase
from tests.support.messages import Message
from tests.support.rivals import RIVALS, rival, version
from tests.support.wire import Client, Recorder

CASES: Final[list[RequestCase]] = [case for group in corpus.requests() if not group.solo for case in group.cases]
#: What a rival does that we do not. ACCEPTS and REJECTS: more or fewer requests are answered 2xx.
ACCEPTS: Final = "accepts"
REJECTS: Final = "rejects"
#: The upstream gets something that is no HTTP/1.1 as RFC 9112 has it.
PASSES_ON: Final = "passes on"
#: The same, but not every time.
SOMETIMES: Final = "sometimes passes on"
#: The same requests reach the upstream, with a length for chunks or the other way round.
FRAMES: Final = "frames otherwise"
#: As many are answered, and the upstream sees other requests: a desync. None may stand in the list.
READS: Final = "reads otherwise"
#: The same happens, but the client is not told.
SILENT: Final = "says nothing"
#: It answers what we leave unanswered.
ANSWERS: Final = "answers"
#: What may stand in the list.
KINDS: Final = frozenset({ACCEPTS, REJECTS, PASSES_ON, SOMETIMES, FRAMES, SILENT, ANSWERS})

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5])[0-9]{2} ")


@dataclass(frozen=True)
class Reading:
    """What became of a case: whether each final answer was a 2xx, and the requests as the upstream read them."""

    answers: list[bool]
    requests: list[tuple[str, str, bytes]]
    passed_on: bool = False


def kind(ours: Reading, theirs: Reading) -> str | None:
    """The difference, None without one."""
    if theirs.passed_on:
        return PASSES_ON
    if sum(theirs.answers) != sum(ours.answers):
        return ACCEPTS if sum(theirs.answers) > sum(ours.answers) else REJECTS
    if [(start, body) for start, _, body in theirs.requests] != [(start, body) for start, _, body in ours.requests]:
        return READS
    if theirs.requests != ours.requests:
        return FRAMES
    if len(theirs.answers) != len(ours.answers):
        return SILENT if len(theirs.answers) < len(ours.answers) else ANSWERS
    return None


def expected(case: RequestCase, values: Mapping[str, bytes]) -> Reading:
    """What the corpus says of our proxy."""
    answers = [each.startswith("2") for each in case.answers if not each.startswith("1")]
    blocks = [case.spelled(each, values) for each in case.upstream if each not in (NOTHING, UNFINISHED)]
    return Reading(answers, [_written(block) for block in blocks])


def _written(block: bytes) -> tuple[str, str, bytes]:
    head, _, body = block.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    framing = [
        line.replace(" ", "").lower() for line in lines if re.match("(?i)content-length|transfer-encoding", line)
    ]
    return start, "".join(framing), body


def _seen(message: Message) -> tuple[str, str, bytes]:
    framing = [f"{name}:{value}" for name in ("content-length", "transfer-encoding") for value in message.all(name)]
    return message.start, "".join(framing), message.body


async def observed(case: RequestCase, values: Mapping[str, bytes], socket: Path, upstream: Recorder) -> Reading:
    """What became of the case at the rival that listens on `socket`.

    The client ends its side when it has as many answers as we would give, so that nobody waits for more of it; a
    rival that waits before that gives up by its own timeouts.
    """
    upstream.take()
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(Client, str(socket))
    finals = sum(not each.startswith("1") for each in case.answers)
    try:
        for number, piece in enumerate(case.send):
            if number:
                await client.until(lambda: client.ended is not None or client.received.endswith(b"\r\n\r\n"))
            await client.send(case.spelled(piece, values), in_bytes=False)
        await client.until(lambda: client.ended is not None or len(_STATUS.findall(client.received)) >= finals)
        client.transport.write_eof()
        await client.until(lambda: client.ended is not None)
    finally:
        client.transport.abort()
    malformed = [connection for connection in upstream.connections if connection.malformed]
    for connection in malformed:
        connection.malformed = ""
    return Reading(
        [code == b"2" for code in _STATUS.findall(bytes(client.received))],
        [_seen(seen.message) for seen in upstream.take() if seen.message.complete],
        passed_on=bool(malformed),
    )


def documented(name: str) -> dict[str, str]:
    """The differences of one rival that the list gives, by case."""
    found: dict[str, str] = {}
    for entry in LIST["differences"]:
        for group, cases in entry["cases"].items():
            for case, who in cases.items():
                if name in who:
                    found[f"{group}: {case}"] = who[name]
    return found


LIST: Final[dict[str, Any]] = corpus.read_yaml(corpus.FOLDER / "differences.yaml")


@pytest.mark.parametrize("name", RIVALS)
async def test_every_difference_to_other_proxies_stands_in_the_list(name: str, tmp_path: Path) -> None:
    """One that is not there fails, and so does one that is there and no longer exists."""
    there, listed = version(name), LIST["versions"][name]
    if there is None:
        pytest.skip(f"this machine has no {name}")
    if there != listed:
        pytest.skip(f"this machine has {name} {there}, and the list is of {listed}")
    found: dict[str, str] = {}
    async with Recorder() as upstream, Recorder() as other, rival(name, tmp_path, upstream.authority) as socket:
        values = {
            "canary": b"secret",
            "upstream": upstream.authority.encode(),
            "other": other.authority.encode(),
        }
        for case in CASES:
            difference = kind(expected(case, values), await observed(case, values, socket, upstream))
            if difference is not None:
                found[case.id] = difference
        assert other.connections == []
    wanted = documented(name)
    for at, difference in wanted.items():
        if difference == SOMETIMES and found.get(at) in (None, PASSES_ON):
            found[at] = SOMETIMES
    lines = [
        f"{at}: {found.get(at, 'no difference')}, the list says {wanted.get(at, 'no difference')}"
        for at in sorted(found.keys() | wanted.keys())
        if found.get(at) != wanted.get(at)
    ]
    assert not lines, "\n".join([f"{name}:", *lines])


def test_the_list_is_of_cases_that_exist_and_of_no_desync() -> None:
    """Each entry gives a reason, and what another proxy takes as we do it never reads otherwise."""
    cases = {case.id for case in CASES}
    for entry in LIST["differences"]:
        assert entry["why"].strip()
    for name in RIVALS:
        assert documented(name).keys() <= cases
        assert set(documented(name).values()) <= KINDS
