"""A request's way to the upstream and back: once, and once more where its token was refused.

Law: an upstream answers a request at most twice, and the second time to a different token (invariant 6). The gates
hold refusals that no token cures in check (`lifecycle.Gate`).
"""

from contextlib import suppress
from time import perf_counter
from typing import Final

from proxy import inbound
from proxy.accesslog import Exchange
from proxy.binding import Binding
from proxy.clock import Clock
from proxy.credentials.credential import Rendered
from proxy.errors import ProxyError
from proxy.guard import Admission
from proxy.http1.answer import AnswerHead
from proxy.injection import Injection, Outgoing
from proxy.lifecycle import Gate, Token
from proxy.listener.answer import ClientAnswer
from proxy.listener.request import Request
from proxy.notes import Notes, Stay
from proxy.refusals import BODY_LIMIT, Refusal, is_plain_json
from proxy.upstream.attempt import SAFE, Attempt, send

NOTHING: Final = Injection()
#: RFC 9209: what we say on an upstream's own answer, in these two cases only.
NOT_REPLAYABLE: Final = b'Proxy-Status: bearer-proxy; details="refreshed, body not replayable"'
REJECTED: Final = b'Proxy-Status: bearer-proxy; details="credential rejected"'


class Passage:
    """What stays the same over both attempts of one request; `may_switch`: it asks for a WebSocket."""

    __slots__ = (
        "_rendered",
        "admission",
        "binding",
        "clock",
        "exchange",
        "may_switch",
        "notes",
        "out",
        "outgoing",
        "request",
    )

    def __init__(
        self,
        request: Request,
        out: ClientAnswer,
        exchange: Exchange,
        notes: Notes,
        *,
        admission: Admission,
        binding: Binding,
        outgoing: Outgoing,
        clock: Clock,
        may_switch: bool,
    ) -> None:
        self.request = request
        self.out = out
        self.exchange = exchange
        self.notes = notes
        self.admission = admission
        self.binding = binding
        self.outgoing = outgoing
        self.clock = clock
        self.may_switch = may_switch
        #: What the present attempt was sent with.
        self._rendered: Rendered | None = None

    async def send(self, rendered: Rendered | None, *, after: Attempt | None = None) -> Attempt:
        """One attempt, timed; `after` the one that was refused. Raises an `UpstreamError`."""
        began_at = perf_counter()
        method = self.outgoing.method
        self._rendered = rendered
        noted = self.notes.sends(self.outgoing, rendered)
        try:
            attempt = await send(
                self.binding.pool,
                method,
                self.outgoing.head(NOTHING if rendered is None else rendered.injection),
                self.request.body,
                first_byte=self.binding.timeouts.first_byte,
                # What cannot be repeated if a pooled connection turns out to be stale goes out on a new one.
                fresh=after is not None and method not in SAFE,
                may_resend=after is None or not after.was_resent,
                may_switch=self.may_switch,
                on_interim=self._interim,
            )
        except ProxyError as error:
            if noted is not None:
                noted.error = error.code
            raise
        finally:
            self.exchange.upstream_seconds += perf_counter() - began_at
        if noted is not None:
            noted.answered(attempt)
        return attempt

    def _interim(self, head: AnswerHead) -> None:
        """Pass an interim answer on; 100 only to a client that waits for it."""
        if head.status == 100 and not self.request.section.expects:
            return
        lines = inbound.kept_lines(head, self.admission, self.binding, self._rendered, self.exchange)
        with suppress(ConnectionError):  # it hung up: whoever waits for the answer will be told
            self.out.interim(head.status, lines)

    async def second_chance(self, attempt: Attempt, rendered: Rendered) -> tuple[Attempt, Rendered, list[bytes]]:
        """Judge the answer; where it refuses the token, send once more with a newer one. No loop.

        Gives the attempt whose answer the client gets, the token it was sent with, and field lines to add.
        """
        refusal = await self._judge(attempt)
        if refusal is None:
            return attempt, rendered, []
        self.exchange.refusals = 1
        self.notes.refused()
        if not rendered.credential.changes:
            stay: Stay = "fixed" if refusal.explicit else "fixed, perhaps good"
            self.notes.stays(stay, rendered.credential.source)
            return attempt, rendered, await self._told(rendered, refusal)
        gate = self._gate(refusal)
        # What the upstream did not wait for it does not want, and what the client has not sent yet may be needed.
        await attempt.stop_upload()
        # Who waits for a token holds no connection that others could use.
        attempt.release_if_over()
        newer = await self._newer(rendered, gate)
        if newer is None:
            return attempt, rendered, []
        if newer.value == rendered.token.value:
            # The vendor gave the same token again: sending it twice proves nothing.
            gate.not_cured(newer.generation, self.clock.now())
            self.notes.stays("same", rendered.credential.source)
            return attempt, rendered, []
        body = self.request.body
        if body is not None and not body.is_replayable:
            self.notes.stays("body", rendered.credential.source)
            return attempt, rendered, [NOT_REPLAYABLE]

        self.notes.repeats(attempt)
        attempt.end()
        if body is not None:
            body.rewind()
        self.exchange.retried = True
        self.exchange.generation = newer.generation
        again = rendered.credential.rendered(newer, rendered.places)
        second = await self.send(again, after=attempt)
        try:
            refused_again = await self._judge(second)
        except BaseException:
            second.end()
            raise
        if refused_again is None or refused_again.gate != refusal.gate:
            gate.cured()
        if refused_again is not None:
            self.exchange.refusals = 2
            self.notes.refused()
            self._gate(refused_again).not_cured(newer.generation, self.clock.now())
        return second, again, []

    async def _told(self, rendered: Rendered, refusal: Refusal) -> list[bytes]:
        """Who answers for a token that cannot change hears of this refusal; gives field lines for the client."""
        if not refusal.explicit:
            return []
        await rendered.credential.source.newer_than(rendered.token, wait=0.0, ask=False)
        return [REJECTED]

    def _gate(self, refusal: Refusal) -> Gate:
        """The gate of this kind of refusal, on this route."""
        return self.binding.gates.setdefault(refusal.gate, Gate())

    async def _newer(self, refused: Rendered, gate: Gate) -> Token | None:
        """A newer token, as far as the gate of this kind of refusal lets one ask for it."""
        is_open = gate.is_open(self.clock.now())
        began_at = perf_counter()
        newer = await refused.credential.source.newer_than(
            refused.token, wait=self.binding.timeouts.token, ask=is_open
        )
        self.exchange.token_wait += perf_counter() - began_at
        # A closed gate has seen that this generation does not cure the refusal: sending it again proves nothing.
        if newer is None or (not is_open and newer.generation <= gate.evidence):
            self.notes.stays("none" if is_open else "closed", refused.credential.source)
            return None
        return newer

    async def _judge(self, attempt: Attempt) -> Refusal | None:
        """Does this answer refuse the token? Its body is held only where a rule asks for it, and short JSON."""
        head, answer, rules = attempt.head, attempt.answer, self.binding.rules
        body = None
        if rules.needs_body(head.status) and is_plain_json(head.values):
            body = await answer.hold(BODY_LIMIT, self.binding.timeouts.idle)
        return rules.judge(head.status, head.values, body)
