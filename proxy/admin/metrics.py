"""Counts what happens, for Prometheus.

Law: labels come from fixed sets only (names of routes and credentials, classes of statuses, codes of ours), never
from what a client or an upstream sent (threat 81). `observe` runs once a request and looks every counter up once.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.accesslog import Exchange
from proxy.credentials.credential import Report
from proxy.errors import Rejected

#: What `text` gives: the text format that every version of Prometheus reads.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: From a local cache hit to the longest poll; seconds.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: By the first digit of a status; 0: the client was gone before there was one.
_STATUS_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_DENIALS: Final = frozenset({Rejected.code, *(kind.code for kind in Rejected.__subclasses__())})


@dataclass(frozen=True, slots=True)
class _Children:
    """The counters of one kind of exchange, looked up once."""

    requests: Counter
    seconds: Histogram


class Metrics:
    """The metrics of one instance, in a registry of its own.

    `reports` gives the state of every credential, `now` the instant in seconds on a clock that counts suspend; both
    are asked when somebody scrapes. It is the `Events` that token sources report to.
    """

    def __init__(self, reports: Callable[[], Iterable[Report]], now: Callable[[], float]) -> None:
        # A second series a counter with the time it was made is of no use here.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own gap
        self._now = now
        self._obtained_at: dict[str, float] = {}
        self._children: dict[tuple[str, int, str], _Children] = {}
        self._registry = registry = CollectorRegistry(auto_describe=True)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"bearer_proxy_{name}", help_text, labels, registry=registry)

        self._requests = counter(
            "requests", "Finished requests; error is empty for answers of the upstream.", "route", "status", "error"
        )
        self._seconds = Histogram(
            "bearer_proxy_request_duration_seconds",
            "From the head of a request to the last byte of its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._refusals = counter("refusals", "Answers of the upstream that refused the token.", "route")
        self._retries = counter(
            "retries", "Requests sent again with a newer token: cured, or futile.", "route", "outcome"
        )
        self._denials = counter("guard_denials", "Requests that guard, policy or a limit refused.", "code")
        self._echoes = counter("echoes_dropped", "Answer headers dropped because they carried the token.", "route")
        self._token_requests = counter("token_requests", "Token requests sent.", "credential")
        self._tokens = counter("tokens_obtained", "Token requests that gave a token.", "credential")
        self._token_failures = counter("token_failures", "Token requests that failed.", "credential", "cause")
        Info("bearer_proxy_build", "What runs here.", registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        registry.register(_CredentialStates(reports, self.token_age))

    def text(self) -> bytes:
        """Every metric in the Prometheus text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def observe(self, exchange: Exchange) -> None:
        """Count a finished exchange."""
        key = (exchange.route, exchange.status // 100, exchange.error)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._children_of(*key)
        children.requests.inc()
        children.seconds.observe(exchange.seconds)
        if exchange.refusals:
            self._refusals.labels(exchange.route).inc(exchange.refusals)
        if exchange.retried:
            cured = exchange.refusals < 2 and not exchange.error
            self._retries.labels(exchange.route, "cured" if cured else "futile").inc()
        if exchange.echoes:
            self._echoes.labels(exchange.route).inc(exchange.echoes)
        if exchange.error in _DENIALS:
            self._denials.labels(exchange.error).inc()

    def _children_of(self, route: str, status_class: int, error: str) -> _Children:
        return _Children(
            self._requests.labels(route, _STATUS_CLASSES[status_class], error), self._seconds.labels(route)
        )

    # -- the events of token sources

    def token_requested(self, credential: str) -> None:
        """A token request is about to be sent."""
        self._token_requests.labels(credential).inc()

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        self._tokens.labels(credential).inc()
        self._obtained_at[credential] = self._now()

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        self._token_failures.labels(credential, code).inc()

    def token_age(self, credential: str) -> float | None:
        """Seconds since the newest token of a credential was obtained; None where none was."""
        obtained_at = self._obtained_at.get(credential)
        return None if obtained_at is None else self._now() - obtained_at


class _CredentialStates(Collector):
    """Gauges that are true at the instant of the scrape."""

    def __init__(self, reports: Callable[[], Iterable[Report]], age: Callable[[str], float | None]) -> None:
        self._reports = reports
        self._age = age

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names alone, so that the registry refuses a second metric of the same name."""
        return _families(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values now."""
        rows = [
            (
                report.name,
                {
                    "usable": float(report.state != "invalid"),
                    "generation": float(report.generation),
                    "expires_seconds": report.expires_in,
                    "age_seconds": self._age(report.name),
                },
            )
            for report in self._reports()
        ]
        yield from _families(rows)


_GAUGES: Final = {
    "usable": "1 where there is a token that has not expired.",
    "generation": "How many tokens were had so far.",
    "expires_seconds": "Seconds until the token expires; negative afterwards, absent where nobody knows.",
    "age_seconds": "Seconds since the token was obtained; absent where none was.",
}


def _families(rows: Iterable[tuple[str, dict[str, float | None]]]) -> list[GaugeMetricFamily]:
    families = {
        name: GaugeMetricFamily(f"bearer_proxy_token_{name}", text, labels=("credential",))
        for name, text in _GAUGES.items()
    }
    for credential, values in rows:
        for name, value in values.items():
            if value is not None:
                families[name].add_metric((credential,), value)
    return list(families.values())
