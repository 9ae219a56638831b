"""What an instance counts of itself, beside requests and tokens: its loop, its pools, its configuration."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from proxy.admin.exposition import Family, Sample, histogram

#: From what nobody notices to a standstill; seconds.
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_OF_POOLS: Final = {
    "size": "The most connections to the upstream (pool.size).",
    "waiting": "Requests that wait for a connection, since there are as many as there may be.",
}


class Machinery:
    """The loop's lag and the last reload, as they were told; `pools` gives the state of each route's pool.

    Such a state has `size` (the most connections), `idle`, `busy`, and `waiting` (requests without one).
    """

    def __init__(self, pools: Callable[[], Mapping[str, Mapping[str, int]]]) -> None:
        self._pools = pools
        self._lags: list[float] = [0] * (len(_BOUNDS) + 1)
        self._lag_seconds = 0.0
        self._is_as_written = True

    def lagged(self, seconds: float) -> None:
        """The event loop came so much too late."""
        self._lags[bisect_left(_BOUNDS, seconds)] += 1
        self._lag_seconds += seconds

    def read(self, *, is_applied: bool) -> None:
        """The configuration was read again, and serves, or was refused."""
        self._is_as_written = is_applied

    def families(self) -> Iterator[Family]:
        """Every metric of it."""
        yield Family(
            "bearer_proxy_loop_lag_seconds",
            "histogram",
            "By how much the event loop was late, measured once a second.",
            list(histogram({}, _BOUNDS, self._lags, self._lag_seconds)),
        )
        pools = self._pools().items()
        yield Family(
            "bearer_proxy_pool_connections",
            "gauge",
            "Connections to the upstream: idle, or busy with a request or with connecting.",
            [
                Sample(pool[state], {"route": route, "state": state})
                for route, pool in pools
                for state in ("idle", "busy")
            ],
        )
        for name, explanation in _OF_POOLS.items():
            samples = [Sample(pool[name], {"route": route}) for route, pool in pools]
            yield Family(f"bearer_proxy_pool_{name}", "gauge", explanation, samples)
        yield Family(
            "bearer_proxy_config_last_reload_successful",
            "gauge",
            "0 where the configuration was read again and refused; what was there before serves on.",
            [Sample(self._is_as_written, {})],
        )
