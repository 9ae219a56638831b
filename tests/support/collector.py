"""A collector of spans: takes OTLP over HTTP, keeps what it got, as bytes and as spans by their names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from proxy.demo.serving import serving
from tests.support.leaks import Artefacts


@dataclass(frozen=True)
class Got:
    """One span; identifiers in hexadecimal, instants in seconds of the epoch."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    state: str
    began_at: float
    over_at: float
    failed: bool
    attributes: dict[str, object]


@dataclass
class Collector:
    """Where it takes spans, what it got, and what that said of the service."""

    artefacts: Artefacts
    url: str = ""
    spans: list[Got] = field(default_factory=list)
    resource: dict[str, object] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.Response:
        """One export."""
        data = await request.read()
        self.artefacts.add("spans", data)
        found = ExportTraceServiceRequest.FromString(data)
        for part in found.resource_spans:
            self.resource = {each.key: _value(each.value) for each in part.resource.attributes}
            self.spans += (
                Got(
                    each.name,
                    each.kind,
                    each.trace_id.hex(),
                    each.span_id.hex(),
                    each.parent_span_id.hex(),
                    each.trace_state,
                    each.start_time_unix_nano / 1e9,
                    each.end_time_unix_nano / 1e9,
                    each.status.code == each.status.STATUS_CODE_ERROR,
                    {one.key: _value(one.value) for one in each.attributes},
                )
                for scope in part.scope_spans
                for each in scope.spans
            )
        return web.Response(content_type="application/x-protobuf")


def _value(given: AnyValue) -> object:
    return getattr(given, given.WhichOneof("value") or "string_value")


@asynccontextmanager
async def collecting(artefacts: Artefacts) -> AsyncIterator[Collector]:
    """A collector on loopback."""
    made = Collector(artefacts)
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    async with serving(app) as made.url:
        yield made
