"""Plays cases of the wire corpus through a running proxy, and collects complaints about what came of them."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.complaints import (
    answer_unlike,
    answers_unlike,
    problem_unlike,
    request_unlike,
    summary,
)
from tests.support.corpus import AS_IT_SAYS, BROKEN, CLOSED, KEPT, NOTHING, UNFINISHED, AnswerCase, RequestCase
from tests.support.messages import Malformed, Message
from tests.support.wire import EOF, Client, Recorder, Reply, Seen, connected

PROBE: Final = b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(slots=True)
class Rig:
    """A proxy at `port`, the upstream behind it and another that must see nothing.

    `values` are those of the texts, `own` the fields that the proxy alone writes, as the upstream must see them.
    `transcript` is all that clients got.
    """

    port: int
    upstream: Recorder
    other: Recorder
    values: Mapping[str, bytes]
    own: Mapping[str, str]
    in_bytes: bool
    transcript: bytearray = field(default_factory=bytearray)
    _complaints: list[str] = field(default_factory=list)

    async def request(self, case: RequestCase) -> list[str]:
        """Send what the case sends; what is wrong with the outcome."""
        return await self._play(self._request(case))

    async def answer(self, case: AnswerCase) -> list[str]:
        """Let the upstream answer as the case has it; what is wrong with the outcome."""
        return await self._play(self._answer(case))

    async def _play(self, playing: Awaitable[None]) -> list[str]:
        self._complaints = []
        self.upstream.take()
        try:
            await playing
        except TimeoutError:
            self._complaints.append("something did not come, or did not end")
        except Malformed as error:
            self._complaints.append(f"the client got {error}")
        return self._complaints

    # -- what clients send

    async def _request(self, case: RequestCase) -> None:
        async with connected(self.port) as client:
            try:
                got = await self._conversation(client, case)
                self._complaints += answers_unlike(case.answers, case.methods, got)
                if await self._goes_on(client, got[-1] if got else None, case.connection):
                    await self._probe(client)
            finally:
                self.transcript += client.received
        async with connected(self.port) as another:
            await self._probe(another)
        await self._reached(case)

    async def _conversation(self, client: Client, case: RequestCase) -> list[Message]:
        """Send the pieces, take as many answers as there should be."""
        pieces = [case.spelled(piece, self.values) for piece in case.send]
        methods = iter(case.methods)
        got: list[Message] = []
        method = next(methods, "GET")
        for number in range(max(len(pieces), len(case.answers))):
            if number < len(pieces):
                await client.send(pieces[number], in_bytes=self.in_bytes)
            if case.hangs_up and number == len(pieces) - 1:
                client.transport.write_eof()
            if number < len(case.answers):
                message = await client.answer(method)
                if message is None:
                    break
                got.append(message)
                method = next(methods, "GET") if message.status >= 200 else method
        return got

    async def _goes_on(self, client: Client, last: Message | None, expected: str) -> bool:
        """Is the connection as it should be, and does it live?"""
        says_close = last is not None and last.has_option("close")
        if expected == AS_IT_SAYS:
            expected = CLOSED if says_close else KEPT
        if expected == KEPT:
            if says_close:
                self._complaints.append("the answer says that the connection ends")
            return not says_close
        if last is not None and not says_close:
            self._complaints.append("the answer does not say that the connection ends")
            return False
        await client.until(lambda: client.ended is not None)
        if client.ended != EOF:
            self._complaints.append(f"the connection ended by {client.ended}")
        if client.rest:
            self._complaints.append(f"behind the last answer came {client.rest[:60]!r}")
        return False

    async def _probe(self, client: Client) -> None:
        """A good request: does it get its own answer?"""
        await client.send(PROBE, in_bytes=False)
        message = await client.answer()
        requests = self.upstream.requests
        if message is None:
            self._complaints.append("the next request gets no answer")
        elif not requests or requests[-1].message.start != "GET /probe HTTP/1.1":
            self._complaints.append(f"the next request is answered {summary(message)} and did not arrive")
        elif message.body != b"%d" % requests.pop().serial or client.rest:
            self._complaints.append(f"the next request gets another answer: {summary(message)}")

    async def _reached(self, case: RequestCase) -> None:
        """Check what reached the upstream, and that nothing reached the other one."""
        for connection in self.upstream.connections:
            if connection.malformed:
                self._complaints.append(f"the upstream got {connection.malformed}")
                connection.malformed = ""
        if self.other.connections:
            self._complaints.append("another upstream was called")
        requests = self.upstream.take()
        blocks = () if case.upstream == (NOTHING,) else case.upstream
        if blocks[-1:] == (UNFINISHED,):
            blocks = blocks[:-1]
            await self._unfinished(requests[len(blocks) :])
            del requests[len(blocks) :]
        if len(requests) != len(blocks):
            self._complaints.append(f"{len(requests)} requests reached the upstream instead of {len(blocks)}")
        for block, seen in zip(blocks, requests, strict=False):
            self._complaints += request_unlike(case.spelled(block, self.values), seen.message, self.own)

    async def _unfinished(self, requests: Sequence[Seen]) -> None:
        """At most one, not whole, and its connection ends."""
        if len(requests) > 1:
            self._complaints.append("more than one request reached the upstream")
        for seen in requests:
            if seen.message.complete:
                self._complaints.append("a whole request reached the upstream")
            else:
                await seen.connection.over()

    # -- what upstreams answer

    async def _answer(self, case: AnswerCase) -> None:
        self.upstream.reply = Reply(case.spelled(case.answer, self.values), case.early, case.then)
        request = case.spelled(case.request, self.values)
        async with connected(self.port) as client:
            try:
                await client.send(request, in_bytes=self.in_bytes)
                last = await self._delivered(client, case, request.partition(b" ")[0].decode())
            finally:
                self.transcript += client.received
                self.upstream.reply = None
            requests = self.upstream.take()
            if len(requests) != 1:
                self._complaints.append(f"{len(requests)} requests reached the upstream")
                return
            seen = requests[0]
            await seen.connection.until(lambda: seen.answered or seen.connection.ended)
            if case.later:
                await seen.connection.send(case.spelled(case.later, self.values), in_bytes=False)
            goes_on = False
            if case.tunnel:
                await self._tunnel(client, seen, case)
            elif case.client != (BROKEN,):
                goes_on = await self._goes_on(client, last, case.connection)
            if goes_on:
                await self._after(client, seen, case)
        if not goes_on:
            async with connected(self.port) as another:
                await self._after(another, seen, case)

    async def _delivered(self, client: Client, case: AnswerCase, method: str) -> Message | None:
        """Take what the client gets, and compare; the last message."""
        message: Message | None = None
        if case.client == (BROKEN,):
            message = await _final(client, method)
            if message is not None and message.status == 502:
                self._complaints += problem_unlike(message, "502 upstream_protocol", method)
            elif message is not None and message.complete:
                self._complaints.append(f"the broken answer looks complete: {summary(message)}")
        elif not case.client[0].startswith("HTTP/"):
            message = await _final(client, method)
            self._complaints += problem_unlike(message, case.client[0], method)
        else:
            for number, block in enumerate(case.client, 1):
                message = await client.answer(method)
                trailers = case.trailers if number == len(case.client) else ()
                self._complaints += answer_unlike(
                    case.spelled(block, self.values),
                    message,
                    [case.spelled(trailer, self.values) for trailer in trailers],
                )
        return message

    async def _after(self, client: Client, seen: Seen, case: AnswerCase) -> None:
        """The next request: does it get its own answer, and on which connection to the upstream?"""
        before = len(self.upstream.connections)
        await self._probe(client)
        pooled = len(self.upstream.connections) == before
        if pooled is not case.pooled:
            self._complaints.append(f"the upstream's connection is {'' if pooled else 'not '}used again")
        if not case.pooled:
            await seen.connection.over()

    async def _tunnel(self, client: Client, seen: Seen, case: AnswerCase) -> None:
        """Bytes pass both ways untouched, those right behind the heads too; the client's end is the upstream's."""
        says, replies = (case.spelled(text, self.values) for text in case.tunnel)
        early = case.spelled(case.request, self.values).partition(b"\r\n\r\n")[2]
        greeting = case.spelled(case.answer, self.values).partition(b"\r\n\r\n")[2]
        connection = seen.connection
        await client.send(says, in_bytes=self.in_bytes)
        await connection.until(lambda: connection.received.endswith(b"\r\n\r\n" + early + says))
        await connection.send(replies, in_bytes=self.in_bytes)
        await client.until(lambda: client.rest == greeting + replies)
        client.transport.abort()
        await connection.over()
        connection.transport.close()


async def _final(client: Client, method: str) -> Message | None:
    """The next answer that is no interim one."""
    while (message := await client.answer(method)) is not None and message.status < 200:
        pass
    return message
