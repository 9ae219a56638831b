"""Where spans go, as it is written in a configuration."""

import importlib.util
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from proxy.config.fields import Section


def _collector(value: str) -> str:
    try:
        parts = urlsplit(value)
        _port = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable():
        raise ValueError("write the collector's URL, such as http://127.0.0.1:4318")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("write scheme, host, port and path alone; OTEL_EXPORTER_OTLP_HEADERS may hold a key")
    if importlib.util.find_spec("opentelemetry") is None:
        raise ValueError("spans need an extra: pip install 'bearer-proxy[otel]'")
    return value


def _ratio(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("write a number from 0 to 1")
    return float(value)


class TracingConfig(Section):
    """Spans of OpenTelemetry."""

    otlp: Annotated[str, AfterValidator(_collector)] | None = None
    """The URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; null: no spans."""
    ratio: Annotated[
        float, PlainValidator(_ratio), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})
    ] = 1.0
    """Which part of the requests has spans, where the client's traceparent does not say."""
