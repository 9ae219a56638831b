"""A route bound to everything that its requests need: connections, credential, rules, bounds."""

from dataclasses import dataclass, field

from proxy.credentials.credential import Credential
from proxy.headers import Stripping
from proxy.injection import Inject
from proxy.lifecycle import Gate
from proxy.refusals import RefusalRules
from proxy.rewrite import Rewriter
from proxy.routes import Route
from proxy.upstream.pool import Pool


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to wait for a token, for an answer's head, and between bytes."""

    token: float = 20.0
    first_byte: float = 60.0
    idle: float = 300.0


@dataclass(slots=True, eq=False)
class Binding:
    """A route with everything that its requests need.

    `strip` is for requests that get our credential, `bare` for those that keep the client's own; `constants` are
    whole field lines of the route, `forwarded` adds those that say who called. `replay` bounds in bytes what of a
    body is kept for the repeat, in memory and on disk. `watches_bodies`: is the token looked for in answers?
    """

    route: Route
    pool: Pool
    credential: Credential | None
    rules: RefusalRules
    strip: Stripping
    bare: Stripping
    rewriter: Rewriter
    inject: Inject = "overwrite"
    host: str = "upstream"
    forwarded: bool = False
    constants: bytes = b""
    timeouts: Timeouts = Timeouts()
    replay: tuple[int, int] = (1 << 20, 64 << 20)
    watches_bodies: bool = False
    gates: dict[str, Gate] = field(default_factory=dict)
    #: As an address.
    upstream: str = field(init=False)

    def __post_init__(self) -> None:
        self.upstream = str(self.route.upstream)
