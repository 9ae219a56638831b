"""The stage of the demonstration: three doubles, a configuration as a user would write it, the proxy in front.

Nothing of the machine is used but loopback and a temporary folder: no configuration, no network, no account.
"""

import asyncio
import contextlib
import io
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from proxy import logs
from proxy.clock import SystemClock
from proxy.config import Source, load
from proxy.demo import mainbrainer, teletracker
from proxy.demo.double import Double
from proxy.demo.mainbrainer import MainBrainer
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from proxy.demo.vanilla import Vanilla
from proxy.lines import Lines
from proxy.redact import Redactor
from proxy.server import Instance, World

CONFIG: Final = """\
listen: 127.0.0.1:0              # port 0: a free one
admin: {{listen: 127.0.0.1:0}}
routes:
  - {{prefix: /tracker, upstream: "{tracker}", credential: tracker}}
  - {{prefix: /crm, upstream: "{crm}", credential: crm}}
  - {{prefix: /community, upstream: "{community}", credential: community}}
  - {{prefix: /forum, upstream: "{community}", credential: forum}}
credentials:
  tracker:
    preset: teletracker
    base_url: {tracker}
    username: {{env: TELETRACKER_USER}}
    password: {{env: TELETRACKER_PASSWORD}}
  crm:
    preset: mainbrainer
    base_url: {crm}
    username: {{env: MAINBRAINER_USER}}
    password: {{env: MAINBRAINER_PASSWORD}}
    private_token: {{env: MAINBRAINER_PRIVATE_TOKEN}}
  community:
    preset: vanilla
    token: {{env: VANILLA_TOKEN}}
  forum:
    preset: vanilla
    token: {{env: VANILLA_OTHER_TOKEN}}
    in: query
"""
_REQUEST_LINE: Final = re.compile(r"^\S+ [A-Z]+ request ", re.MULTILINE)


class Log(io.StringIO):
    """The proxy's log, kept to be shown, or passed on to `live` once that is set.

    The line of a request can be waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: TextIO | None = None
        self.requests = 0
        self._written = asyncio.Event()

    def write(self, text: str, /) -> int:
        """Keep `text`, or pass it on."""
        if self.live is not None:
            return self.live.write(text)
        self.requests += len(_REQUEST_LINE.findall(text))
        self._written.set()
        return super().write(text)

    async def holds(self, requests: int) -> None:
        """Return when the lines of so many requests are here: the client has its answer a moment earlier."""
        while self.requests < requests:
            self._written.clear()
            await self._written.wait()


@dataclass(frozen=True, slots=True)
class Cast:
    """The three vendor APIs."""

    tracker: TeleTracker = field(default_factory=lambda: TeleTracker(clock=SystemClock()))
    crm: MainBrainer = field(default_factory=lambda: MainBrainer(clock=SystemClock()))
    community: Vanilla = field(default_factory=lambda: Vanilla(clock=SystemClock()))

    @property
    def doubles(self) -> tuple[Double[Any], ...]:
        """All of them."""
        return self.tracker, self.crm, self.community


@dataclass(frozen=True, slots=True)
class Stage:
    """All that runs. `config` is the text of the configuration, `upstreams` the doubles' URLs in their order."""

    cast: Cast
    config: str
    upstreams: tuple[str, ...]
    environ: dict[str, str] = field(repr=False)
    instance: Instance
    log: Log

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return self.instance.urls[0]

    def secrets(self) -> dict[str, str]:
        """What must not be seen anywhere, by a name that may be: passwords, and every token issued so far."""
        found = {name: value for name, value in self.environ.items() if not name.endswith("_USER")}
        for double in self.cast.doubles:
            kind = type(double).__name__
            found |= {f"value {number} issued by {kind}": value for number, value in enumerate(double.issued, 1)}
        return found


@contextlib.asynccontextmanager
async def standing(cast: Cast) -> AsyncIterator[Stage]:
    """The stage, for as long as the block lasts."""
    environ = {
        "TELETRACKER_USER": teletracker.ACCOUNT.username,
        "TELETRACKER_PASSWORD": teletracker.ACCOUNT.password,
        "MAINBRAINER_USER": mainbrainer.ACCOUNT.username,
        "MAINBRAINER_PASSWORD": mainbrainer.ACCOUNT.password,
        "MAINBRAINER_PRIVATE_TOKEN": mainbrainer.ACCOUNT.private_token,
        "VANILLA_TOKEN": cast.community.issue(),
        "VANILLA_OTHER_TOKEN": cast.community.issue(),
    }
    async with contextlib.AsyncExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bearer-proxy-demo-")))
        tracker, crm, community = [await stack.enter_async_context(serving(double)) for double in cast.doubles]
        text = CONFIG.format(tracker=tracker, crm=crm, community=community)
        redactor, log = Redactor(), Log()
        lines = Lines(log)
        logs.set_up(redactor, lines=lines)
        config = load(Source(text, "demo.yaml", None, "demo"), environ=environ)
        instance = await Instance.start(config, World(redactor, state, lines=lines))
        stack.push_async_callback(instance.drain)
        yield Stage(cast, text, (tracker, crm, community), environ, instance, log)
