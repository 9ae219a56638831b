"""Counts what happens, for Prometheus.

Law: labels come from fixed sets only (names of routes and credentials, classes of statuses, codes of ours), never
from what a client or an upstream sent (threat 81). `observe` runs once a request: it adds to one row of numbers,
and what they mean is worked out when somebody scrapes.
"""

import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxy import __version__
from proxy.accesslog import Exchange
from proxy.admin.exposition import Family, Sample, exposition, histogram
from proxy.compiled import is_compiled
from proxy.credentials.credential import Report
from proxy.errors import Rejected

#: From a local cache hit to the longest poll; seconds.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: By the first digit of a status; 0: the client was gone before there was one.
_STATUS_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_DENIALS: Final = frozenset({Rejected.code, *(kind.code for kind in Rejected.__subclasses__())})

#: What is counted by the name of its counter: an explanation, and the names of its labels.
_COUNTERS: Final = {
    "refusals": ("Answers of the upstream that refused the token.", ("route",)),
    "retries": ("Requests sent again with a newer token: cured, or futile.", ("route", "outcome")),
    "guard_denials": ("Requests that guard, policy or a limit refused.", ("code",)),
    "echoes_dropped": ("Answer headers dropped because they carried the token.", ("route",)),
    "tokens_in_bodies": ("Answers in whose bodies the token stood (token_guard).", ("route",)),
    "token_requests": ("Token requests sent.", ("credential",)),
    "tokens_obtained": ("Token requests that gave a token.", ("credential",)),
    "token_failures": ("Token requests that failed.", ("credential", "cause")),
}
_GAUGES: Final = {
    "usable": "1 where there is a token that has not expired.",
    "generation": "How many tokens were had so far.",
    "expires_seconds": "Seconds until the token expires; negative afterwards, absent where nobody knows.",
    "age_seconds": "Seconds since the token was obtained; absent where none was.",
    "persisted": "1 where a restart would find the token; absent where no store outlives the process.",
}


class Metrics:
    """The metrics of one instance.

    `reports` gives the state of every credential, `now` the instant in seconds on a clock that counts suspend, and
    `more` further metrics; all are asked when somebody scrapes. It is the `Events` that token sources report to.
    """

    def __init__(
        self,
        reports: Callable[[], Iterable[Report]],
        now: Callable[[], float],
        more: Callable[[], Iterable[Family]] = tuple,
    ) -> None:
        self._reports = reports
        self._now = now
        self._more = more
        self._obtained_at: dict[str, float] = {}
        #: By route, class of status, and error: how many exchanges took up to each of `_BOUNDS` seconds, how many
        #: longer, and last the sum of their seconds.
        self._rows: dict[tuple[str, int, str], list[float]] = {}
        #: By the name of a counter and the values of its labels.
        self._counts: Counter[tuple[str, ...]] = Counter()

    def observe(self, exchange: Exchange) -> None:
        """Count a finished exchange."""
        key = (exchange.route, exchange.status // 100, exchange.error)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0] * (len(_BOUNDS) + 2)
        row[bisect_left(_BOUNDS, exchange.seconds)] += 1
        row[-1] += exchange.seconds
        if exchange.refusals or exchange.retried or exchange.echoes or exchange.error or exchange.token_in_body:
            self._count_rare(exchange)

    def _count_rare(self, exchange: Exchange) -> None:
        counts, route = self._counts, exchange.route
        if exchange.refusals:
            counts["refusals", route] += exchange.refusals
        if exchange.retried:
            cured = exchange.refusals < 2 and not exchange.error
            counts["retries", route, "cured" if cured else "futile"] += 1
        if exchange.token_in_body:
            counts["tokens_in_bodies", route] += 1
        if exchange.echoes:
            counts["echoes_dropped", route] += exchange.echoes
        if exchange.error in _DENIALS:
            counts["guard_denials", exchange.error] += 1

    # -- the events of token sources

    def token_requested(self, credential: str) -> None:
        """A token request is about to be sent."""
        self._counts["token_requests", credential] += 1

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        self._counts["tokens_obtained", credential] += 1
        self._obtained_at[credential] = self._now()

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        self._counts["token_failures", credential, code] += 1

    # -- the scrape

    def text(self) -> bytes:
        """Every metric in the Prometheus text format (`exposition.CONTENT_TYPE`)."""
        return exposition(self._families())

    def _families(self) -> Iterator[Family]:
        yield Family(
            "bearer_proxy_requests_total",
            "counter",
            "Finished requests; error is empty for answers of the upstream.",
            [
                Sample(sum(row[:-1]), {"route": route, "status": _STATUS_CLASSES[status], "error": error})
                for (route, status, error), row in self._rows.items()
            ],
        )
        yield Family(
            "bearer_proxy_request_duration_seconds",
            "histogram",
            "From the head of a request to the last byte of its answer.",
            [
                sample
                for route, row in self._by_route().items()
                for sample in histogram({"route": route}, _BOUNDS, row[:-1], row[-1])
            ],
        )
        for name, (explanation, labels) in _COUNTERS.items():
            samples = [
                Sample(count, dict(zip(labels, values, strict=True)))
                for (counted, *values), count in self._counts.items()
                if counted == name
            ]
            yield Family(f"bearer_proxy_{name}_total", "counter", explanation, samples)
        build = {
            "version": __version__,
            "python": sys.version.partition(" ")[0],
            "compiled": "yes" if is_compiled() else "no",
        }
        yield Family("bearer_proxy_build_info", "gauge", "What runs here.", [Sample(1, build)])
        yield from self._token_families()
        yield from self._more()

    def _by_route(self) -> dict[str, list[float]]:
        """The rows of each route added up."""
        found: dict[str, list[float]] = {}
        for (route, _status, _error), row in self._rows.items():
            found[route] = [sum(pair) for pair in zip(found.get(route, [0] * len(row)), row, strict=True)]
        return found

    def _token_families(self) -> Iterator[Family]:
        """Gauges that are true at the instant of the scrape."""
        rows = [(report.name, self._gauges(report)) for report in self._reports()]
        for name, explanation in _GAUGES.items():
            samples = [
                Sample(value, {"credential": credential})
                for credential, values in rows
                if (value := values[name]) is not None
            ]
            yield Family(f"bearer_proxy_token_{name}", "gauge", explanation, samples)

    def _gauges(self, report: Report) -> dict[str, float | None]:
        obtained_at = self._obtained_at.get(report.name)
        return {
            "usable": report.state != "invalid",
            "generation": report.generation,
            "expires_seconds": report.expires_in,
            "age_seconds": None if obtained_at is None else self._now() - obtained_at,
            "persisted": report.persisted,
        }
