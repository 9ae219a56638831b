"""What credentials need of the world."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.clock import Clock
from proxy.credentials.endpoint import Clients
from proxy.credentials.events import Events
from proxy.redact import Redactor, Secret
from proxy.stores.base import Store
from proxy.stores.latch import Latch


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What it takes to ask a server at all: the time, what is masked, and the clients."""

    clock: Clock
    redactor: Redactor
    clients: Clients

    def register_as(self, owner: str) -> Callable[[Iterable[Secret]], None]:
        """What masks the secrets of one generation of `owner`."""

        def register(secrets: Iterable[Secret]) -> None:
            self.redactor.register_generation(owner, secrets, self.clock.now())

        return register


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings(Means):
    """Besides: a random float in [0, 1), where rejections and tokens rest, who is told."""

    random: Callable[[], float]
    latch: Latch
    store: Store
    events: Events
