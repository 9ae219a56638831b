"""Everything that is done to a running copy, and what it shows of that."""

import asyncio
import re
import signal
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from proxy.config import Config, CredentialConfig, ExecCredential, FileCredential, RouteConfig
from proxy.leaktest import faults, process
from proxy.leaktest.asking import ask, hearing, own
from proxy.leaktest.attempts import ADMIN, ATTEMPTS, CLIENT, COMMANDS, IMPROPER, PLAIN, WEBSOCKET, Attempt, Place
from proxy.leaktest.evidence import Evidence
from proxy.leaktest.farend import FarEnd, Played
from proxy.leaktest.stage import Stage

T = TypeVar("T")

ADMIN_KEY: Final = "the admin key"
#: Exchanges in the inspector's list, and one in a path.
_LISTED: Final = re.compile(r'"id": "([0-9a-f]+)"')
_ID: Final = re.compile(r"(?<=/exchanges)/[0-9a-f]+")


@dataclass
class Acts:
    """What is done to a copy of `config`; what it shows goes to `evidence`, how often what was done to `counts`."""

    config: Config
    stage: Stage
    running: process.Running
    evidence: Evidence
    #: Other commands too? They say the same of every copy.
    commands: bool
    counts: dict[str, int] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)

    async def all(self) -> None:
        """No token and bad ones, then requests and bad answers, then both, then the rest; at last it ends."""
        running = self.running
        self.stage.copy.mint.adopt(ADMIN_KEY, running.found.admin_key)
        self.evidence.add("run file", running.run_file.read_bytes(), (ADMIN_KEY,))
        await _at_once(self._credential, self.config.credentials.items())
        await _at_once(self._route, self.config.routes)
        await _at_once(self._refused, self.stage.servers.items())
        await self._admin()
        await self._inspected()
        if self.commands:
            await _at_once(self._command, COMMANDS)
            await _at_once(self._mistaken, faults.MISTAKES)
        running.signal(signal.SIGHUP)
        await self._end()

    # -- clients and upstreams

    async def _route(self, route: RouteConfig) -> None:
        """Every attempt, then every fault of its upstream."""
        at, far = await self._place(route), self.stage.upstreams[route.name]
        good = far.play
        further = IMPROPER if route is self.config.routes[0] else ()
        for url in self.running.found.urls:
            for attempt in (*ATTEMPTS, *further) if url == self._url else PLAIN:
                far.play = faults.WEBSOCKET.play if attempt is WEBSOCKET else good
                await self._ask(at, attempt, f"to {attempt.name}", url)
        for fault in faults.UPSTREAM:
            far.play, far.early = fault.play, fault.early
            for attempt in (WEBSOCKET,) if fault is faults.WEBSOCKET else PLAIN:
                await self._ask(at, attempt, f"where an upstream has {fault.name}")
            self._count("faults of upstreams")
        far.play, far.early = good, False

    @property
    def _url(self) -> str:
        return self.running.found.urls[0]

    async def _place(self, route: RouteConfig) -> Place:
        """A path of the route that its rules admit, as far as can be told, with a client key that is good there."""
        if route.name not in self._places:
            mint, path = self.stage.copy.mint, _path(route)
            host = route.host or "localhost"
            places = [Place(host, path, key, mint) for key in self.stage.copy.keys.values() or ("",)]
            answers = [await ask(self._url, place.request()) for place in places]
            good = [place for place, answer in zip(places, answers, strict=True) if b"path_denied" not in answer]
            self._places[route.name] = good[0] if good else places[0]
        return self._places[route.name]

    async def _ask(self, at: Place, attempt: Attempt, where: str, url: str | None = None) -> None:
        data = attempt.data(at)
        part, is_far = own(await ask(url or self._url, data))
        # An upstream may repeat to a client what that client sent; a key in the path stands in rewritten targets.
        keys = ("guard.",) if b"/~" in data else ()
        self.evidence.add("answers to clients", part, (CLIENT, *keys) if is_far else (), where=where)
        self._count("requests")

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- tokens

    async def _credential(self, item: tuple[str, CredentialConfig]) -> None:
        """Every fault of what its token comes from, while there is none; then a good one."""
        name, given = item
        copy, server = self.stage.copy, self.stage.servers.get(name)
        if server is not None:
            good = server.play
            for fault in faults.TOKEN_ENDPOINT:
                server.play = fault.play
                await self._without_token(name, fault.name)
            server.play = good
        if isinstance(given, ExecCredential):
            for printed in faults.PROGRAM:
                text = printed.text.replace(
                    "ECHO", copy.mint.secret(f"credentials.{name}, what its program prints")
                )
                copy.put_program(name, stdout=text, status=printed.status)
                await self._without_token(name, printed.name)
            copy.put_program(name)
        if isinstance(given, FileCredential):
            for held in faults.FILE:
                secret = copy.mint.secret(f"credentials.{name}, what its file holds")
                copy.put_token(name, held.text.replace("ECHO", secret))
                await self._without_token(name, held.name)
            copy.put_token(name, copy.mint.secret(f"credentials.{name}, its token"))
        await self._refresh(name)

    async def _refused(self, item: tuple[str, FarEnd]) -> None:
        """An upstream that refuses a token, and a server that gives no other one."""
        name, server = item
        fars = [self.stage.upstreams[route.name] for route in self.config.routes if route.credential == name]
        good, plays = server.play, [far.play for far in fars]
        for far in fars:
            far.play = faults.REFUSED.play
        for fault in faults.TOKEN_ENDPOINT:
            server.play = fault.play
            await self._without_token(name, f"{fault.name}, and an upstream {faults.REFUSED.name}")
        server.play = good
        for far, play in zip(fars, plays, strict=True):
            far.play = play
        await self._refresh(name)

    async def _without_token(self, name: str, fault: str) -> None:
        """Ask for a token that does not come, then for something that needs it."""
        await self._refresh(name)
        for route in self.config.routes:
            if route.credential == name:
                await self._ask(await self._place(route), PLAIN[0], f"where a token's source has {fault}")
        self._count("faults of token sources")

    async def _refresh(self, name: str) -> None:
        await self._ask_admin("POST", f"/api/credentials/{name}/refresh", self.running.found.admin_key)

    # -- the admin listener, other commands

    async def _ask_admin(
        self, method: str, path: str, key: str, *, body: bytes = b"", may_hold: tuple[str, ...] = ()
    ) -> bytes:
        answer = await ask(self.running.found.admin_url or "", _to_admin(method, path, key, body))
        where = _ID.sub("/ID", path.partition("?")[0])
        self.evidence.add("answers of the admin listener", answer, may_hold, where=where)
        return answer

    async def _admin(self) -> None:
        key = self.running.found.admin_key
        for method, path in ADMIN:
            await self._ask_admin(method, path, key)
            await self._ask_admin(method, path, self.stage.copy.mint.secret("a wrong admin key"))
            await self._ask_admin(method, f"{path}?key={key}", "")
        await self._details()

    async def _details(self, may_hold: tuple[str, ...] = ()) -> None:
        """All that the inspector has of each exchange."""
        key = self.running.found.admin_key
        listed = await self._ask_admin("GET", "/api/exchanges?limit=200", key, may_hold=may_hold)
        ids = _LISTED.findall(listed.decode("latin-1"))
        for path in [f"{each}{form}" for each in ids for form in ("", "/curl")]:
            await self._ask_admin("GET", f"/api/exchanges/{path}", key, may_hold=may_hold)

    async def _inspected(self) -> None:
        """With bodies kept, in which what clients say stands, and nothing of ours: on one route."""
        key, url = self.running.found.admin_key, self.running.found.admin_url or ""
        answer = await self._ask_admin("POST", "/api/inspector", key, body=b'{"bodies": 65536}')
        if not answer.startswith(b"HTTP/1.1 200 "):
            return  # no inspector is configured
        await self._ask_admin("POST", "/api/inspector/clear", key)
        heard = bytearray()
        async with hearing(url, _to_admin("GET", "/api/events", key), heard):
            await self._route(self.config.routes[0])
            await self._details((CLIENT,))
            await self._ask_admin("GET", "/api/exchanges.har", key, may_hold=(CLIENT,))
        self.evidence.add("answers of the admin listener", bytes(heard), (CLIENT,), where="/api/events")

    async def _command(self, arguments: tuple[str, ...]) -> None:
        said = await process.command(self.running, *arguments)
        self.evidence.add("commands", said, where=arguments[0])

    async def _mistaken(self, mistake: faults.Mistake) -> None:
        """The copy's configuration with mistakes in it: what is said of them."""
        secret = self.stage.copy.mint.secret("what stands in the wrong place of a configuration")
        path = self.running.folder / f"{mistake.mode:o}.yaml"
        path.touch(0o600)
        path.write_text(mistake.text(self.stage.data, secret), "utf-8")
        path.chmod(mistake.mode)
        said = await process.command(self.running, "check", config=path)
        self.evidence.add("commands", said, where=f"check, with mistakes ({mistake.name})")

    # -- the end

    async def _end(self) -> None:
        """While requests and refreshes are on their way."""
        for far in (*self.stage.upstreams.values(), *self.stage.servers.values()):
            far.play = lambda _heard: Played(end="hang")
        at = await self._place(self.config.routes[0])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask(at, PLAIN[0], "while the proxy ends"))
            for name in self.stage.servers:
                group.create_task(self._refresh(name))
            await self.running.end()
        self._collect()

    def _collect(self) -> None:
        """What it left behind."""
        folder, evidence, copy = self.running.folder, self.evidence, self.stage.copy
        log = self.stage.data["log"]["format"]
        evidence.add(f"log as {log}", (folder / "seen" / "stderr").read_bytes())
        evidence.add("standard output", (folder / "seen" / "stdout").read_bytes())
        evidence.add("command line", self.running.cmdline)
        for kept in (folder / "home", folder / "store"):
            evidence.add_tree("files that it keeps", kept)
        for name, given in self.config.credentials.items():
            path = copy.program(name).with_suffix(".given")
            if isinstance(given, ExecCredential) and path.exists():
                evidence.add("what programs are given", path.read_bytes(), (f"credentials.{name}.env.",))


def _to_admin(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    lines = ("Host: localhost", f"Authorization: Bearer {key}", f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body


async def _at_once(act: Callable[[T], Coroutine[Any, Any, None]], over: Iterable[T]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in over:
            group.create_task(act(each))


def _path(route: RouteConfig) -> str:
    """A path that the first rule of `allow` admits; else one below the prefix."""
    pattern = route.allow[0].paths[0].replace("*", "x") if route.allow else "/x"
    below = pattern.removeprefix(route.base_path) if pattern.startswith("/") else "/x"
    if not route.strip_prefix and below.startswith(route.prefix):
        return below
    return route.prefix.rstrip("/") + below
