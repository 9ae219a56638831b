"""A scene of the demonstration: plain requests, what came of each on all three sides, and what must hold."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Final

from proxy.demo.journal import Entry
from proxy.demo.plain import DEADLINE, Answer, Request, send
from proxy.demo.stage import Stage

#: Characters of an answer's body that are shown.
SHOWN: Final = 84


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold: what it is in words, what was expected and what came."""

    what: str
    expected: object
    came: object

    @property
    def holds(self) -> bool:
        """Does it?"""
        return self.expected == self.came


@dataclass(frozen=True, slots=True)
class Shown:
    """One request as the transcript shows it; `upstream` what the vendor's API saw, `log` what the proxy wrote."""

    curl: str
    answer: str
    proxy_status: str | None
    upstream: tuple[str, ...]
    log: tuple[str, ...]


@dataclass(slots=True)
class Scene:
    """One step on the stage: records what is asked and checked. `so_far` is all that was printed before it."""

    stage: Stage
    so_far: str = ""
    shown: list[Shown] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seen: list[Entry] = field(default_factory=list)

    async def ask(self, request: Request) -> list[Answer]:
        """Send the request through the proxy, and show it with what it caused."""
        stage = self.stage
        before = [double.journal[-1].number if double.journal else 0 for double in stage.cast.doubles]
        written, requests = len(stage.log.getvalue()), stage.log.requests
        answers = await send(request, stage.url)
        async with asyncio.timeout(DEADLINE):
            await stage.log.holds(requests + request.times)
        self.seen = [
            entry
            for double, last in zip(stage.cast.doubles, before, strict=True)
            for entry in double.journal
            if entry.number > last
        ]
        lines = stage.log.getvalue()[written:].splitlines()
        self.shown.append(
            Shown(
                request.curl(stage.url),
                _answer(answers),
                answers[0].headers.get("Proxy-Status"),
                _grouped([_entry(entry) for entry in self.seen]),
                tuple(lines if request.times == 1 else [line for line in lines if " request " not in line]),
            )
        )
        return answers

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to one GET."""
        [answer] = await self.ask(Request(target, headers=headers or {}))
        return answer

    def expect(self, what: str, came: object, expected: object) -> None:
        """Note a check."""
        self.checks.append(Check(what, expected, came))

    def expect_seen(self, what: str, *expected: str) -> None:
        """Check what the upstreams saw of the last request, each as `METHOD PATH STATUS`."""
        came = tuple(f"{each.method} {each.target.partition('?')[0]} {each.status}" for each in self.seen)
        self.expect(what, came, expected)


@dataclass(frozen=True, slots=True)
class Told:
    """A scene that was played: its title, what it is about, what was shown and checked."""

    title: str
    text: str
    shown: tuple[Shown, ...]
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Did everything come as expected?"""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def document(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        checks = [{**asdict(check), "ok": check.holds} for check in self.checks]
        return {
            "title": self.title,
            "text": self.text,
            "ok": self.holds,
            "requests": [asdict(shown) for shown in self.shown],
            "checks": checks,
        }


Play = Callable[[Scene], Awaitable[None]]


async def play(title: str, text: str, act: Play, scene: Scene) -> Told:
    """Play one scene to its end, or to the first request that gets no answer."""
    try:
        await act(scene)
    except Exception as error:  # noqa: BLE001  whatever it is, this step differs, and the others are played
        scene.expect("the step comes to its end", type(error).__name__, "no error")
    return Told(title, text, tuple(scene.shown), tuple(scene.checks))


def _answer(answers: list[Answer]) -> str:
    texts = [f"{answer.status} {' '.join(answer.text.split())}" for answer in answers]
    return "; ".join(_grouped([text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..." for text in texts]))


def _entry(entry: Entry) -> str:
    """One line of a double's journal in words."""
    if entry.grant is not None:
        what = f"gave token {entry.issued}" if entry.issued is not None else "gave nothing"
        return f"{entry.method} {entry.target} {entry.status}: a token request, {what}"
    token = "no token" if entry.generation is None else f"token {entry.generation}"
    places = f" in {', '.join(entry.places)}" if entry.places else ""
    return f"{entry.method} {entry.target} {entry.status}: {token}{places}"


def _grouped(lines: list[str]) -> tuple[str, ...]:
    groups = [(line, len(list(same))) for line, same in groupby(lines)]
    return tuple(line if count == 1 else f"{count} x {line}" for line, count in groups)
