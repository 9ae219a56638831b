"""Spans of OpenTelemetry for exchanges, where `tracing.otlp` asks for them; else nothing here is loaded.

Law: a span knows what the access log knows, masked in the same way: no header values, no query, no bodies. What
cannot be exported is lost, and costs no request. Source: W3C Trace Context; OpenTelemetry's conventions for HTTP.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy import __version__
from proxy.accesslog import PATH_LIMIT, Exchange
from proxy.binding import Binding
from proxy.injection import Outgoing
from proxy.listener.request import Request
from proxy.notes import Notes, Sent
from proxy.redact import Redactor
from proxy.witness import WitnessedNotes

#: A collector that is away holds up the end of the proxy by no more than this.
EXPORT_SECONDS: Final = 3.0
#: A shorter wait for a token is none: it was there.
LEAST_WAIT_SECONDS: Final = 0.001
_CONTEXT_LINES: Final = re.compile(rb"(?im)^trace(?:parent|state):[^\r\n]*\r\n")
_PARENT_LINE: Final = re.compile(rb"(?im)^traceparent:[^\r\n]*\r\n")
_NAMES: Final = (b"traceparent", b"tracestate")

Begin = Callable[[Request], tuple[Exchange, Notes]]
Attributes = dict[str, str | int | bool]


class Tracing:
    """Makes a span of each exchange that `begin` begins, with one of each wait for a token and of each attempt.

    The spans go to `exporter`, a part `ratio` of those whose client has not decided that; `wall` gives epoch
    seconds.
    """

    def __init__(
        self, exporter: SpanExporter, ratio: float, redactor: Redactor, wall: Callable[[], float], begin: Begin
    ) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": "bearer-proxy", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bearer_proxy", __version__)
        self._redactor = redactor
        self._wall = wall
        self._begin = begin
        self._open: dict[int, Trace] = {}

    def begin(self, request: Request) -> tuple[Exchange, Notes]:
        """The exchange of a request that begins, in the trace of its client or in a new one."""
        exchange, notes = self._begin(request)
        # Instants of `perf_counter` as nanoseconds of the epoch.
        offset = self._wall() - perf_counter()
        traced = Trace(request, self._tracer, lambda at: int((offset + at) * 1e9), exchange.started_at)
        self._open[exchange.number] = traced
        return exchange, WitnessedNotes(notes, traced)

    def __call__(self, exchange: Exchange) -> None:
        """An exchange ended."""
        traced = self._open.pop(exchange.number, None)
        if traced is not None:
            traced.end(exchange, self._shown)

    async def close(self) -> None:
        """Export what is left, as far as the collector takes it in time."""
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()

        def export() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(is_over.set)

        # Nobody waits for it at the end of the process, as they would for a thread of the loop's.
        threading.Thread(target=export, name="the last spans", daemon=True).start()
        await is_over.wait()

    def _shown(self, text: bytes | str) -> str:
        """As the access log shows it."""
        plain = text if isinstance(text, str) else text[:PATH_LIMIT].decode("latin-1")
        return self._redactor.line(plain)


def exporter(url: str) -> SpanExporter:
    """Sends spans to the collector at `url`, by OTLP over HTTP, and by no proxy of the environment."""
    session = requests.Session()
    session.trust_env = False
    return OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS, session=session)


class Trace:
    """The spans of one request. `nanos` gives the nanoseconds of the epoch of an instant of `perf_counter`."""

    __slots__ = (
        "_admitted_at",
        "_attempts",
        "_is_new",
        "_nanos",
        "_sent",
        "_span",
        "_tracer",
        "_upstream",
        "_withheld",
    )

    def __init__(self, request: Request, tracer: Tracer, nanos: Callable[[float], int], started_at: float) -> None:
        parent = _parent(request)
        self._tracer = tracer
        self._nanos = nanos
        self._is_new = not parent
        self._span = tracer.start_span(request.method, parent, kind=SpanKind.SERVER, start_time=nanos(started_at))
        self._attempts: list[Span] = []
        self._sent: list[Sent] = []
        self._admitted_at = started_at
        self._upstream = ""
        self._withheld = False

    def goes(self, binding: Binding) -> None:
        """The guard let it in, and this is its way."""
        self._admitted_at = perf_counter()
        self._upstream = binding.route.upstream.authority
        # A route that removes the field from requests does not want ours either.
        self._withheld = any(name in binding.bare.names for name in _NAMES)

    def sends(self, sent: Sent) -> None:
        """An attempt begins, which the upstream finds its own spans below."""
        within = set_span_in_context(self._span, Context())
        start = self._nanos(sent.began_at)
        span = self._tracer.start_span(sent.outgoing.method, within, kind=SpanKind.CLIENT, start_time=start)
        if not self._withheld:
            _continue(sent.outgoing, span, is_new=self._is_new)
        self._attempts.append(span)
        self._sent.append(sent)

    def refused(self) -> None:
        """The last attempt's token was refused."""
        self._attempts[-1].set_attribute("bearer_proxy.refused", value=True)

    def end(self, exchange: Exchange, shown: Callable[[bytes | str], str]) -> None:
        """It is over: end every span of it."""
        ended_at = exchange.started_at + exchange.seconds
        self._end_waits(exchange, ended_at)
        for number, (span, sent) in enumerate(zip(self._attempts, self._sent, strict=True)):
            given: Attributes = {"http.request.method": exchange.method, "server.address": self._upstream}
            given |= {"bearer_proxy.generation": sent.generation} if sent.generation else {}
            given |= {"http.request.resend_count": number} if number else {}
            # The last one lasts as long as its answer does.
            is_last = number == len(self._sent) - 1
            over_at = ended_at if is_last or not sent.answered_at else sent.answered_at
            _finish(span, given, sent.head.status if sent.head else 0, sent.error, self._nanos(over_at))
        if exchange.route:
            self._span.update_name(f"{exchange.method} {exchange.route}")
        given = {
            "http.request.method": exchange.method,
            "url.scheme": "http",
            "url.path": shown(exchange.path),
            "client.address": shown(exchange.client),
            "http.request.body.size": exchange.bytes_in,
            "http.response.body.size": exchange.bytes_out,
            "bearer_proxy.route": exchange.route,
            "bearer_proxy.credential": exchange.credential,
            "bearer_proxy.request_id": exchange.request_id,
            "bearer_proxy.retried": exchange.retried,
        }
        _finish(self._span, given, exchange.status, exchange.error, self._nanos(ended_at))

    def _end_waits(self, exchange: Exchange, ended_at: float) -> None:
        """Spans of the waits for a token: before the first attempt, and between both."""
        if exchange.token_wait < LEAST_WAIT_SECONDS:
            return
        # No attempt at all: the token did not come.
        firsts = [sent.began_at for sent in self._sent] or [ended_at]
        since = [self._admitted_at, *(sent.answered_at for sent in self._sent)]
        for began_at, over_at in zip(since, firsts, strict=False):
            if over_at - began_at < LEAST_WAIT_SECONDS:
                continue
            within = set_span_in_context(self._span, Context())
            span = self._tracer.start_span("token", within, start_time=self._nanos(began_at))
            error = "" if self._sent else exchange.error
            _finish(span, {"bearer_proxy.credential": exchange.credential}, 0, error, self._nanos(over_at))


def _parent(request: Request) -> Context:
    """The client's own trace; empty where there is none, or none that can be read.

    Its `tracestate` passes on as it is, and is no part of our spans: it is a header's value.
    """
    values = request.section.values.get(b"traceparent", [])
    if len(values) != 1:
        return Context()
    return TraceContextTextMapPropagator().extract({"traceparent": values[0].decode("latin-1")}, Context())


def _continue(outgoing: Outgoing, span: Span, *, is_new: bool) -> None:
    """Put the span into the request; what belongs to a trace that could not be read goes, as W3C has it."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span, Context()))
    lines = (_CONTEXT_LINES if is_new else _PARENT_LINE).sub(b"", outgoing.lines)
    outgoing.lines = lines + b"traceparent: %b\r\n" % carrier["traceparent"].encode("ascii")


def _finish(span: Span, given: Mapping[str, str | int | bool], status: int, error: str, end: int) -> None:
    """End it; what is empty is left out."""
    span.set_attributes({name: value for name, value in given.items() if value != ""})
    if status:
        span.set_attribute("http.response.status_code", status)
    if error:
        span.set_attribute("error.type", error)
    if error or status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end(end)
