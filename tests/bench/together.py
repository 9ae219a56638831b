"""Several of ours at the same time on one core, a request to each in turn: what else goes on meets all alike.

Between proxies that are measured one after the other, a few per cent are not seen.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.bench import loads
from tests.bench.processes import Running

#: Many rates are slow: so many times as long as other loads.
TIMES: Final = 3
#: As many requests a second of `seconds` as fast as they are answered; of `MANY` so many times as many.
FAST: Final = 1000
LONGER: Final = 4


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests a second to each; None: the next when the one before is answered."""

    name: str
    title: str
    rate: int | None
    message: Callable[[int], bytes]
    fast: int = FAST

    def count(self, seconds: int) -> int:
        """How many requests each gets."""
        return seconds * (TIMES * self.rate if self.rate else self.fast)


LOADS: Final = (
    *(
        Load(f"cpu at {rate}", f"{rate} requests/s, every request another head", rate, loads.varied)
        for rate in (20, 80, 200, 400)
    ),
    Load("traced cpu at 80", "80 requests/s, each with a trace and a name of its own", 80, loads.traced),
    Load("browsed cpu at 80", "80 requests/s, as a browser sends them", 80, loads.browsed),
    Load("cpu one by one", "one by one", None, loads.usual),
    Load("varied cpu one by one", "one by one, every request another head", None, loads.varied),
)
#: Of one that keeps as many exchanges as it may; more come than that, so the oldest go.
MANY: Final = (
    *(
        Load(f"many cpu at {rate}", f"{rate} requests/s, every request another head", rate, loads.varied)
        for rate in (80, 400)
    ),
    Load("many cpu one by one", "one by one", None, loads.usual, FAST * LONGER),
    Load("many varied cpu one by one", "one by one, every request another head", None, loads.varied, FAST * LONGER),
)


def in_turn(proxies: Sequence[Running], of: Sequence[Load], seconds: int, written: float) -> list[dict[str, float]]:
    """CPU of a request of each of them, in microseconds, by the name of the load.

    After `written` seconds the inspector has written down all that is in its list. The last load comes once before:
    that fills the list, and the memory that it takes is there.
    """
    found: list[dict[str, float]] = [{} for _ in proxies]
    send(proxies, of[-1], of[-1].count(seconds))
    time.sleep(written)
    for load in of:
        count = load.count(seconds)
        before = [proxy.ran_seconds() for proxy in proxies]
        send(proxies, load, count)
        time.sleep(written)
        for numbers, proxy, ran in zip(found, proxies, before, strict=True):
            numbers[load.name] = (proxy.ran_seconds() - ran) / count * 1e6
    return found


def send(proxies: Sequence[Running], load: Load, count: int) -> None:
    """So many requests to each, the same ones, in each order as often: the next one meets what was left behind."""
    messages: Iterator[bytes] = map(load.message, range(count))
    with ExitStack() as stack:
        clients = [stack.enter_context(loads.Client(proxy.port)) for proxy in proxies]
        orders = itertools.cycle(itertools.permutations(clients))
        for message in loads.paced(messages, load.rate) if load.rate else messages:
            for client in next(orders):
                client.ask(message)
