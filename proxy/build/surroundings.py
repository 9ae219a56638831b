"""What credentials need of the world."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.clock import Clock
from proxy.credentials.endpoint import Endpoints
from proxy.credentials.events import Events
from proxy.redact import Redactor, Secret
from proxy.stores.base import Store
from proxy.stores.latch import Latch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The clock, a random float in [0, 1), where rejections and tokens rest, what is masked, who is told."""

    clock: Clock
    random: Callable[[], float]
    latch: Latch
    store: Store
    redactor: Redactor
    events: Events
    endpoints: Endpoints

    def register_as(self, owner: str) -> Callable[[Iterable[Secret]], None]:
        """What masks the secrets of one generation of `owner`."""

        def register(secrets: Iterable[Secret]) -> None:
            self.redactor.register_generation(owner, secrets, self.clock.now())

        return register
