"""Compares what came with what the wire corpus says: pure, a list of sentences each, empty where all is well.

Law: a complaint never holds a credential, only what a case wrote itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from tests.support.messages import Fields, Message

#: Fields whose place among the others is the proxy's affair.
_LOOSE: Final = frozenset({"content-length", "transfer-encoding", "cookie", "connection", "expect", "upgrade"})
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def request_unlike(block: bytes, message: Message, own: Mapping[str, str]) -> list[str]:
    """A request at the upstream, compared with the corpus; `own` are the fields that the proxy alone writes."""
    complaints = [] if message.complete else ["a request is not whole"]
    complaints += [f"{name} is not ours, once" for name, value in own.items() if message.all(name) != [value]]
    if message.trailers:
        complaints.append("trailers reached the upstream")
    start = block.decode("latin-1").partition("\r\n")[0]
    if message.start != start:
        complaints.append(f"{message.start!r} instead of {start!r}")
    return complaints + _unlike(block, message, dropped=own.keys())


def answer_unlike(block: bytes, message: Message | None, trailers: Iterable[bytes]) -> list[str]:
    """An answer of the upstream as the client got it, compared with the corpus."""
    if message is None:
        return ["an answer is missing"]
    status = int(block[9:12])
    start = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"
    complaints = [] if message.start == start else [f"{message.start!r} instead of {start!r}"]
    if not message.complete:
        complaints.append("the answer is not whole")
    got = [f"{name}: {value}".encode("latin-1") for name, value in message.trailers]
    if got != list(trailers):
        complaints.append(f"trailers {got}")
    return complaints + _unlike(block, message, dropped=() if status == 101 else ("connection",))


def problem_unlike(message: Message | None, expected: str, method: str) -> list[str]:
    """An answer of ours: a problem document (RFC 9457) with Proxy-Status (RFC 9209) and nothing else.

    `expected` is status and code.
    """
    if message is None:
        return [f"no answer instead of {expected}"]
    status, _, code = expected.partition(" ")
    got = summary(message)
    if message.status != int(status) or (method != "HEAD" and got != expected):
        return [f"the answer is {got} instead of {expected}"]
    complaints = []
    if message.all("content-type") != ["application/problem+json"]:
        complaints.append("the answer is no problem document")
    proxy_status = message.all("proxy-status")
    if len(proxy_status) != 1 or not proxy_status[0].endswith(f'; details="{code}"'):
        complaints.append("the answer has no Proxy-Status of ours")
    if not message.complete:
        complaints.append("the answer is not whole")
    if message.status == 405 and not message.all("allow"):
        complaints.append("a 405 without Allow")
    return complaints


def answers_unlike(expected: Sequence[str], methods: Sequence[str], got: Sequence[Message]) -> list[str]:
    """The answers on one connection, by status and code; a 200 says which request it answers."""
    complaints: list[str] = []
    passed = finals = 0
    for number, wanted in enumerate(expected):
        if number >= len(got):
            return [*complaints, f"answer {number + 1} of {len(expected)} ({wanted}) is missing"]
        message = got[number]
        method = methods[finals] if finals < len(methods) else "GET"
        finals += message.status >= 200
        if " " in wanted:
            complaints += problem_unlike(message, wanted, method)
        elif message.status != int(wanted) or message.all("proxy-status"):
            complaints.append(f"answer {number + 1} is {summary(message)} instead of {wanted}")
        elif wanted == "200":
            if method != "HEAD" and message.body != b"%d" % passed:
                complaints.append(f"answer {number + 1} is that of another request")
            passed += 1
    return complaints


def summary(message: Message) -> str:
    """Status, and the code if it is an answer of ours."""
    try:
        return f"{message.status} {json.loads(message.body)['code']}"
    except (ValueError, TypeError, KeyError):
        return f"{message.status}"


def _unlike(block: bytes, message: Message, *, dropped: Iterable[str]) -> list[str]:
    """Fields and body; the first line is up to the caller."""
    head, _, body = block.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").removesuffix("\r\n").split("\r\n")[1:]
    wanted = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    complaints = []
    for what, choose in (("fields", _ordered), ("framing and the like", _loose)):
        came, want = choose(message.fields, set(dropped)), choose(wanted, set(dropped))
        if came != want:
            complaints.append(f"{what}: {came} instead of {want}")
    if message.body != body:
        complaints.append(f"the body {message.body[:80]!r} instead of {body[:80]!r}")
    return complaints


def _ordered(fields: Fields, dropped: set[str]) -> Fields:
    return [(name, value) for name, value in fields if name.lower() not in dropped | _LOOSE]


def _loose(fields: Fields, dropped: set[str]) -> Fields:
    """Values but those of cookies are lists of words, which have no case."""
    chosen = [(name.lower(), value) for name, value in fields if name.lower() in _LOOSE - dropped]
    return sorted((name, value if name == "cookie" else value.lower()) for name, value in chosen)
