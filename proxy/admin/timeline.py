"""What became of each credential's tokens, for a page: obtained, failed, and when."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from proxy.admin.journal import Journal
from proxy.credentials.credential import Report
from proxy.credentials.events import Events
from proxy.lines import timestamp

#: So many events are kept of each credential.
KEPT: Final = 100
#: So many refusals of one generation are told of: routes, and what they answered.
REFUSALS_MOST: Final = 10


class Timeline:
    """Tells `journal` of token requests and remembers them; passes all on to `events`. `wall`: epoch seconds."""

    def __init__(
        self, events: Events, journal: Journal, reports: Callable[[], Iterable[Report]], wall: Callable[[], float]
    ) -> None:
        self._events = events
        self._journal = journal
        self._reports = reports
        self._wall = wall
        #: What was told of refusals, of one generation of each: a client that asks again and again is no news.
        self._refused: dict[str, tuple[int, set[str]]] = {}
        journal.on_refusal = self.token_refused
        self._of: dict[str, deque[Mapping[str, Any]]] = defaultdict(lambda: deque(maxlen=KEPT))

    def all(self) -> dict[str, list[Mapping[str, Any]]]:
        """What is remembered of each, the oldest first."""
        return {name: list(events) for name, events in self._of.items()}

    def token_requested(self, credential: str) -> None:
        """A token request is about to be sent."""
        self._events.token_requested(credential)
        self._note(credential, "requested", None)

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        self._events.token_obtained(credential)
        self._note(credential, "obtained", None)

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        self._events.token_failed(credential, code)
        self._note(credential, "failed", code)

    def token_refused(self, credential: str, generation: int, detail: str) -> None:
        """An upstream refused a token; told once of each generation."""
        refused, told = self._refused.get(credential, (0, set()))
        if refused != generation:
            told = set()
        if detail in told or len(told) >= REFUSALS_MOST:
            return
        self._refused[credential] = generation, told | {detail}
        self._note(credential, "refused", detail, generation)

    def _note(self, credential: str, what: str, detail: str | None, generation: int | None = None) -> None:
        event = {"at": timestamp(self._wall()), "what": what, "generation": generation, "detail": detail}
        self._of[credential].append(event)
        # What it changed is there when this turn of the loop is over.
        asyncio.get_running_loop().call_soon(self._tell, credential, event)

    def _tell(self, credential: str, event: dict[str, Any]) -> None:
        report = next((each for each in self._reports() if each.name == credential), None)
        if report is not None and event["what"] == "obtained":
            event["generation"] = report.generation
        self._journal.tell("token", {"credential": credential, **event})
        if report is not None:
            self._journal.tell("credential", asdict(report))
