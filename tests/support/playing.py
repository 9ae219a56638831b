"""Plays cases of the wire corpus through a running proxy, and says what came otherwise than it should.

Law: complaints never hold a credential, only what a case wrote itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from tests.support.corpus import AS_IT_SAYS, BROKEN, CLOSED, KEPT, NOTHING, UNFINISHED, AnswerCase, RequestCase
from tests.support.messages import Fields, Malformed, Message
from tests.support.wire import EOF, Client, Recorder, Reply, Seen, connected

PROBE: Final = b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Fields whose place among the others is the proxy's affair.
_LOOSE: Final = frozenset({"content-length", "transfer-encoding", "cookie", "connection", "expect", "upgrade"})
#: What every request has at the upstream, by what the proxy says of its own.
_OURS: Final = frozenset({"host", "authorization", "x-api-key"})
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Rig:
    """A proxy at `port`, the upstream behind it and another that must see nothing.

    `values` are those of the texts, `own` the fields of `_OURS` as the upstream must see them. `transcript` is all
    that clients got.
    """

    port: int
    upstream: Recorder
    other: Recorder
    values: Mapping[str, bytes]
    own: Mapping[str, str]
    in_bytes: bool
    transcript: bytearray = field(default_factory=bytearray)

    async def request(self, case: RequestCase) -> list[str]:
        """Send what the case sends; what is wrong with the outcome."""
        complaints: list[str] = []
        self.upstream.take()
        try:
            await self._request(case, complaints)
        except TimeoutError:
            complaints.append("something did not come, or did not end")
        except Malformed as error:
            complaints.append(f"the client got {error}")
        return complaints

    async def answer(self, case: AnswerCase) -> list[str]:
        """Let the upstream answer as the case has it; what is wrong with the outcome."""
        complaints: list[str] = []
        self.upstream.take()
        try:
            await self._answer(case, complaints)
        except TimeoutError:
            complaints.append("something did not come, or did not end")
        except Malformed as error:
            complaints.append(f"the client got {error}")
        return complaints

    async def _request(self, case: RequestCase, complaints: list[str]) -> None:
        async with connected(self.port) as client:
            try:
                got = await self._conversation(client, case)
                complaints += _unlike_statuses(case, got)
                last = got[-1] if got else None
                if await self._goes_on(client, last, case.connection, complaints):
                    complaints += await self._probe(client)
            finally:
                self.transcript += client.received
        async with connected(self.port) as another:
            complaints += await self._probe(another)
        await self._reached(case, complaints)

    async def _conversation(self, client: Client, case: RequestCase) -> list[Message]:
        """Send the pieces, take as many answers as there should be."""
        pieces = [case.spelled(piece, self.values) for piece in case.send]
        got: list[Message] = []
        finals = 0
        for number in range(max(len(pieces), len(case.answers) + 1)):
            if number < len(pieces):
                await client.send(pieces[number], in_bytes=self.in_bytes)
                if number == len(pieces) - 1 and case.hangs_up:
                    client.transport.write_eof()
            if number < len(case.answers):
                method = case.methods[finals] if finals < len(case.methods) else "GET"
                message = await client.answer(method)
                if message is None:
                    break
                got.append(message)
                finals += message.status >= 200
        return got

    async def _goes_on(self, client: Client, last: Message | None, expected: str, complaints: list[str]) -> bool:
        """Is the connection as it should be, and does it live?"""
        says_close = last is not None and last.has_option("close")
        if expected == AS_IT_SAYS:
            expected = CLOSED if says_close else KEPT
        if expected == KEPT:
            if says_close:
                complaints.append("the answer says that the connection ends")
            return not says_close
        if last is not None and not says_close:
            complaints.append("the answer does not say that the connection ends")
            return False
        await client.until(lambda: client.ended is not None)
        if client.ended != EOF:
            complaints.append(f"the connection ended by {client.ended}")
        if client.rest:
            complaints.append(f"behind the last answer came {client.rest[:60]!r}")
        return False

    async def _probe(self, client: Client) -> list[str]:
        """A good request: does it get its own answer?"""
        await client.send(PROBE, in_bytes=False)
        message = await client.answer()
        self.transcript += client.received
        if message is None:
            return ["the next request gets no answer"]
        seen = self.upstream.requests[-1] if self.upstream.requests else None
        if seen is None or seen.message.start != "GET /probe HTTP/1.1":
            return [f"the next request is answered {message.status} and did not arrive"]
        self.upstream.requests.pop()
        if message.body != b"%d" % seen.serial or client.rest:
            return [f"the next request gets another answer: {message.status} {message.body[:60]!r}"]
        return []

    async def _reached(self, case: RequestCase, complaints: list[str]) -> None:
        """Check what reached the upstream, and that nothing reached the other one."""
        for connection in self.upstream.connections:
            if connection.malformed:
                complaints.append(f"the upstream got {connection.malformed}")
                connection.malformed = ""
        if self.other.connections:
            complaints.append("another upstream was called")
        requests = self.upstream.take()
        blocks = () if case.upstream == (NOTHING,) else case.upstream
        if blocks[-1:] == (UNFINISHED,):
            blocks = blocks[:-1]
            complaints += await _unlike_unfinished(requests[len(blocks) :])
            del requests[len(blocks) :]
        if len(requests) != len(blocks):
            complaints.append(f"{len(requests)} requests reached the upstream instead of {len(blocks)}")
        for block, seen in zip(blocks, requests, strict=False):
            complaints += self._unlike_request(case.spelled(block, self.values), seen.message)

    def _unlike_request(self, block: bytes, message: Message) -> list[str]:
        complaints = [] if message.complete else ["a request is not whole"]
        complaints += [
            f"{name} is not ours, once" for name, value in self.own.items() if message.all(name) != [value]
        ]
        if message.trailers:
            complaints.append("trailers reached the upstream")
        return complaints + _unlike(block, message, message.start, dropped=_OURS)

    async def _answer(self, case: AnswerCase, complaints: list[str]) -> None:
        said = Reply(case.spelled(case.answer, self.values), case.early, case.then)
        self.upstream.reply = said
        request = case.spelled(case.request, self.values)
        async with connected(self.port) as client:
            await client.send(request, in_bytes=self.in_bytes)
            method = request.decode("latin-1").partition(" ")[0]
            try:
                last = await self._delivered(client, case, method, complaints)
            finally:
                self.transcript += client.received
                self.upstream.reply = None
            requests = self.upstream.take()
            if len(requests) != 1:
                complaints.append(f"{len(requests)} requests reached the upstream")
                return
            [seen] = requests
            if case.tunnel:
                await _tunnel(client, seen, case, self.values)
            await seen.connection.until(lambda: seen.answered or seen.connection.ended)
            if case.later:
                await seen.connection.send(case.spelled(case.later, self.values), in_bytes=False)
            goes_on = not case.tunnel and case.client != (BROKEN,)
            goes_on = goes_on and await self._goes_on(client, last, case.connection, complaints)
            if goes_on:
                complaints += await self._after(client, seen, case)
        if not goes_on:
            async with connected(self.port) as another:
                complaints += await self._after(another, seen, case)

    async def _after(self, client: Client, seen: Seen, case: AnswerCase) -> list[str]:
        """The next request: does it get its own answer, and on which connection to the upstream?"""
        before = len(self.upstream.connections)
        complaints = await self._probe(client)
        pooled = len(self.upstream.connections) == before
        if pooled is not case.pooled:
            complaints.append(f"the upstream's connection is {'' if pooled else 'not '}used again")
        if not case.pooled:
            await seen.connection.until(lambda: seen.connection.ended is not None)
        return complaints

    async def _delivered(
        self, client: Client, case: AnswerCase, method: str, complaints: list[str]
    ) -> Message | None:
        """Take what the client gets, and compare; the last message."""
        if case.client == (BROKEN,):
            message = await _final(client, method)
            if message is not None and message.status == 502:
                complaints += _unlike_problem(message, 502, "upstream_protocol", method)
            elif message is not None and message.complete:
                complaints.append(f"the broken answer looks complete: {message.status} {message.body[:60]!r}")
            return message
        if not case.client[0].startswith("HTTP/"):
            message = await _final(client, method)
            status, _, code = case.client[0].partition(" ")
            complaints += _unlike_problem(message, int(status), code, method)
            return message
        blocks = case.client
        message = None
        for number, block in enumerate(blocks):
            message = await client.answer(method)
            if message is None:
                complaints.append("an answer is missing")
                break
            expected = case.spelled(block, self.values)
            status = int(expected[9:12])
            start = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"
            if message.start != start:
                complaints.append(f"{message.start!r} instead of {start!r}")
            dropped = frozenset() if status == 101 else frozenset({"connection"})
            complaints += _unlike(
                expected, message, expected.decode("latin-1").partition("\r\n")[0], dropped=dropped
            )
            trailers = [f"{name}: {value}" for name, value in message.trailers]
            wanted = [case.spelled(each, self.values).decode("latin-1") for each in case.trailers]
            if number == len(blocks) - 1 and trailers != wanted:
                complaints.append(f"trailers {trailers}")
            if not message.complete:
                complaints.append("the answer is not whole")
        return message


async def _final(client: Client, method: str) -> Message | None:
    """The next answer that is no interim one."""
    while (message := await client.answer(method)) is not None and message.status < 200:
        pass
    return message


def _unlike_statuses(case: RequestCase, got: Sequence[Message]) -> list[str]:
    complaints = []
    passed = 0
    for number, expected in enumerate(case.answers):
        if number >= len(got):
            return [*complaints, f"answer {number + 1} of {len(case.answers)} ({expected}) is missing"]
        message = got[number]
        status, _, code = expected.partition(" ")
        if code:
            method = case.methods[number] if number < len(case.methods) else "GET"
            complaints += _unlike_problem(message, int(status), code, method)
        elif message.status != int(status) or message.all("proxy-status"):
            complaints.append(f"answer {number + 1} is {_summary(message)} instead of {expected}")
        elif status == "200":
            if message.body not in (b"%d" % passed, b"" if "HEAD" in case.methods else None):
                complaints.append(f"answer {number + 1} is that of another request")
            passed += 1
    return complaints


def _summary(message: Message) -> str:
    """Status and code."""
    try:
        return f"{message.status} {json.loads(message.body)['code']}"
    except (ValueError, TypeError, KeyError):
        return f"{message.status}"


def _unlike_problem(message: Message | None, status: int, code: str, method: str) -> list[str]:
    """A problem document (RFC 9457) with Proxy-Status (RFC 9209) and nothing else."""
    if message is None:
        return [f"no answer instead of {status} {code}"]
    proxy_status = message.all("proxy-status")
    if message.status != status or (method != "HEAD" and _summary(message) != f"{status} {code}"):
        return [f"the answer is {_summary(message)} instead of {status} {code}"]
    complaints = []
    if message.all("content-type") != ["application/problem+json"]:
        complaints.append("the answer is no problem document")
    if len(proxy_status) != 1 or not proxy_status[0].endswith(f'; details="{code}"'):
        complaints.append("the answer has no Proxy-Status of ours")
    if not message.complete:
        complaints.append("the answer is not whole")
    if status == 405 and not message.all("allow"):
        complaints.append("a 405 without Allow")
    return complaints


async def _unlike_unfinished(requests: Sequence[Seen]) -> list[str]:
    complaints = [] if len(requests) <= 1 else ["more than one request reached the upstream"]
    for seen in requests:
        if seen.message.complete:
            complaints.append("a whole request reached the upstream")
        await seen.connection.until(lambda ended=seen.connection: ended.ended is not None)
    return complaints


def _unlike(block: bytes, message: Message, start: str, *, dropped: frozenset[str]) -> list[str]:
    """Compare with a message as the corpus writes it."""
    head, _, body = block.partition(b"\r\n\r\n")
    expected, *lines = head.decode("latin-1").removesuffix("\r\n").split("\r\n")
    wanted = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    complaints = [] if start == expected else [f"{start!r} instead of {expected!r}"]
    for what, choose in (("fields", _ordered), ("framing and the like", _loose)):
        came, want = choose(message.fields, dropped), choose(wanted, dropped)
        if came != want:
            complaints.append(f"{what}: {came} instead of {want}")
    if message.body != body:
        complaints.append(f"the body {message.body[:80]!r} instead of {body[:80]!r}")
    return complaints


def _ordered(fields: Fields, dropped: frozenset[str]) -> Fields:
    return [(name, value) for name, value in fields if name.lower() not in dropped | _LOOSE]


def _loose(fields: Fields, dropped: frozenset[str]) -> Fields:
    chosen = [(name.lower(), value) for name, value in fields if name.lower() in _LOOSE - dropped]
    return sorted((name, value if name == "cookie" else value.lower()) for name, value in chosen)


async def _tunnel(client: Client, seen: Seen, case: AnswerCase, values: Mapping[str, bytes]) -> None:
    """Bytes pass both ways untouched; the client's end is the upstream's."""
    says, replies = (case.spelled(text, values) for text in case.tunnel)
    connection = seen.connection
    await client.send(says, in_bytes=True)
    await connection.until(lambda: bytes(connection.received[connection.taken :]) == says)
    await connection.send(replies, in_bytes=True)
    await client.until(lambda: client.rest == replies)
    client.transport.abort()
    await connection.until(lambda: connection.ended is not None)
