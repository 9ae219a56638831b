"""What an instance needs of its surroundings: tests give their own."""

import logging
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.accesslog import UNROUTED_A_SECOND, AccessLog, Exchange, Observers, Spared
from proxy.clock import Clock, SystemClock
from proxy.config.model import LogConfig
from proxy.lines import Lines
from proxy.redact import Redactor
from proxy.sockets import PassedSocket

log: Final = logging.getLogger("proxy")


@dataclass(frozen=True, slots=True)
class World:
    """Clock, randomness, the places where things rest, and who looks on.

    `state` is the folder for what must outlive the process, `lines` where the access log goes, `random` gives
    floats in [0, 1), `token_ca` is a bundle of certificate authorities for token endpoints (None: the machine's),
    `observe` is told of every exchange beside the metrics and the access log. `unrouted_a_second` bounds the lines
    about requests that reached no route. `passed` are sockets that somebody else listens on for it.
    """

    redactor: Redactor
    state: Path
    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = random.random
    lines: Lines = field(default_factory=lambda: Lines(sys.stderr))
    token_ca: Path | None = None
    observe: Callable[[Exchange], None] | None = None
    unrouted_a_second: int = UNROUTED_A_SECOND
    passed: tuple[PassedSocket, ...] = ()

    def observers(self, given: LogConfig, count: Callable[[Exchange], None]) -> Observers:
        """Who is told of each exchange: `count`, `observe`, and the access log where it is on."""
        told = [count] if self.observe is None else [count, self.observe]
        if not given.access:
            return Observers(*told)
        write = AccessLog(self.lines, self.redactor, json_lines=given.format == "json", wall=self.clock.wall)
        return Observers(*told, Spared(write, _tell_of_spared, self.clock.now, most=self.unrouted_a_second))


def _tell_of_spared(count: int) -> None:
    log.warning("requests_without_route", extra={"fields": {"not_logged": count}})
