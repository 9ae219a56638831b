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


class Timeline:
    """Tells `journal` of token requests and remembers them; passes all on to `events`. `wall`: epoch seconds."""

    def __init__(
        self, events: Events, journal: Journal, reports: Callable[[], Iterable[Report]], wall: Callable[[], float]
    ) -> None:
        self._events = events
        self._journal = journal
        self._reports = reports
        self._wall = wall
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

    def _note(self, credential: str, what: str, detail: str | None) -> None:
        event = {"at": timestamp(self._wall()), "what": what, "detail": detail}
        self._of[credential].append(event)
        self._journal.tell("token", {"credential": credential, **event})
        # What it changed is there when this turn of the loop is over.
        asyncio.get_running_loop().call_soon(self._tell, credential)

    def _tell(self, credential: str) -> None:
        for report in self._reports():
            if report.name == credential:
                self._journal.tell("credential", asdict(report))
