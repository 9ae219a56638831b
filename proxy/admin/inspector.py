"""The inspector's own paths: what the journal holds, in the forms in which people want it, and once more.

Law: only what the journal holds is shown, which holds no secret (threat 82).
"""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from proxy.admin.curl import command
from proxy.admin.documents import Asked, Document, Paths, as_json
from proxy.admin.entries import Entry
from proxy.admin.filters import Filters
from proxy.admin.har import har
from proxy.admin.journal import BODY_MOST, Journal
from proxy.admin.resend import NotKept, again, left_out, resend
from proxy.admin.timeline import Timeline
from proxy.errors import BadRequest, NoRoute
from proxy.listener.answer import block
from proxy.listener.request import Request
from proxy.redact import Secret
from proxy.work import in_task

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Nothing from elsewhere, nothing inline, in nobody's frame.
_POLICY: Final = (
    b"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_LINES: Final = (_POLICY, b"Referrer-Policy: no-referrer", b"Cross-Origin-Opener-Policy: same-origin")
#: So often whoever listens hears that the connection lives; seconds.
PING_SECONDS: Final = 15.0
#: What a page may send: a request to repeat, with its body.
_GIVEN_MOST: Final = 4 * BODY_MOST
_LISTED: Final = 200


class Proxied(Protocol):
    """What the inspector needs of the instance."""

    @property
    def urls(self) -> list[str]:
        """Where it listens."""
        ...

    def key_of(self, client: str) -> Secret | None:
        """The client key that this client of the log showed, or any; None: none is asked for."""
        ...


class Inspector:
    """Answers for `journal`; `proxied` repeats requests."""

    def __init__(self, journal: Journal, timeline: Timeline, proxied: Proxied) -> None:
        self._journal = journal
        self._timeline = timeline
        self._proxied = proxied

    def paths(self) -> Paths:
        """What it answers."""
        return {
            ("",): {"GET": self._page},
            ("static", "*"): {"GET": self._page},
            ("api", "inspector"): {"GET": self._settings, "POST": self._set_bodies},
            ("api", "inspector", "clear"): {"POST": self._clear},
            ("api", "events"): {"GET": self._events},
            ("api", "timelines"): {"GET": self._timelines},
            ("api", "exchanges"): {"GET": self._exchanges},
            ("api", "exchanges.har"): {"GET": self._har, "POST": self._har_of},
            ("api", "exchanges", "*"): {"GET": self._exchange},
            ("api", "exchanges", "*", "curl"): {"GET": self._curl},
            ("api", "exchanges", "*", "replay"): {"POST": self._replay},
        }

    # -- the page

    async def _page(self, asked: Asked) -> Document:
        path = STATIC / (asked.name or "index.html")
        if path.parent != STATIC or path.suffix not in _TYPES or not path.is_file():
            raise NoRoute("The page has no such file.")
        return Document(path.read_bytes(), _TYPES[path.suffix], more=_PAGE_LINES)

    # -- what there is

    async def _settings(self, _asked: Asked) -> Document:
        return as_json({"exchanges": self._journal.most, "bodies": self._journal.bodies})

    async def _set_bodies(self, asked: Asked) -> Document:
        given = await _given(asked.request)
        bodies = given.get("bodies")
        if type(bodies) is not int or not 0 <= bodies <= BODY_MOST:
            raise BadRequest(f'Write {{"bodies": N}}, in bytes, 0 to {BODY_MOST}.')
        self._journal.bodies = bodies
        return await self._settings(asked)

    async def _clear(self, asked: Asked) -> Document:
        self._journal.clear()
        return await self._settings(asked)

    async def _timelines(self, _asked: Asked) -> Document:
        return as_json(self._timeline.all())

    async def _exchanges(self, asked: Asked) -> Document:
        """What is kept, the newest first, as far as the filters let it."""
        filters = Filters(asked.query)
        kept = await self._journal.entries()
        chosen = [each.summary for each in kept if filters.lets(each)]
        live = (
            [each for each in self._journal.live() if filters.lets_summary(each)] if filters.before is None else []
        )
        return as_json(
            {
                "exchanges": [*live, *chosen[: filters.limit]],
                "matching": len(chosen),
                "kept": len(kept),
                "capacity": self._journal.most,
                "bodies": self._journal.bodies,
            }
        )

    async def _exchange(self, asked: Asked) -> Document:
        detail = await self._journal.detail(asked.name)
        if detail is None:
            raise _no_such()
        return as_json(detail)

    async def _har(self, asked: Asked) -> Document:
        filters = Filters(asked.query)
        return _as_har(each for each in await self._journal.entries() if filters.lets(each))

    async def _har_of(self, asked: Asked) -> Document:
        """Those of these ids that are kept."""
        ids = (await _given(asked.request)).get("ids")
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise BadRequest('Write {"ids": ["..."]}.')
        wanted = set(ids)
        return _as_har(each for each in await self._journal.entries() if each.summary["id"] in wanted)

    async def _curl(self, asked: Asked) -> Document:
        """A command that asks the proxy for the same, as far as it is shown; the proxy adds the token."""
        detail = (await self._entry(asked.name)).detail
        url = next(iter(self._proxied.urls), "http://127.0.0.1:8080")
        needs_key = self._proxied.key_of(detail["client"]) is not None
        return Document(command(detail, url, needs_key=needs_key).encode(), "text/plain; charset=utf-8")

    async def _replay(self, asked: Asked) -> Document:
        """Send it again, with the current token, changed as asked. Raises `NotKept`, `BadRequest`, `NoRoute`."""
        detail = (await self._entry(asked.name)).detail
        given = await _given(asked.request)
        wanted = again(detail, given)
        if (problem := wanted.problem()) is not None:
            raise BadRequest(problem)
        urls = self._proxied.urls
        if not urls:
            raise NotKept("The proxy does not listen any more.")
        newest = max((each.summary["number"] for each in await self._journal.entries()), default=0)
        key = self._proxied.key_of(detail["client"])
        await in_task()
        try:
            status = await resend(urls[0], wanted, [] if key is None else [("X-Proxy-Key", key.reveal())])
        except (OSError, TimeoutError):
            raise NotKept("No answer came in time.") from None
        path = wanted.target.partition("?")[0]
        found = (
            each.summary["id"]
            for each in await self._journal.entries()
            if each.summary["number"] > newest
            and (each.summary["method"], each.summary["path"]) == (wanted.method, path)
        )
        return as_json({"id": next(found, None), "status": status, "left_out": left_out(detail, given)})

    async def _events(self, asked: Asked) -> None:
        """Server-sent events (WHATWG HTML, section 9.2) until the client has gone."""
        lines = (b"Content-Type: text/event-stream", b"Cache-Control: no-store", b"X-Content-Type-Options: nosniff")
        await in_task()
        listener = self._journal.listen()
        try:
            out = asked.out
            out.begin(200, block(lines), b": bearer-proxy\n\n", until_close=True)
            while True:
                told: list[tuple[str, bytes]] = []
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        told = await listener.next()
                except TimeoutError:
                    await out.write((b": ping\n\n",), PING_SECONDS)
                text = b"".join(b"event: %b\ndata: %b\n\n" % (event.encode(), data) for event, data in told)
                if text:
                    await out.write((text,), PING_SECONDS)
        finally:
            self._journal.leave(listener)

    async def _entry(self, request_id: str) -> Entry:
        entry = await self._journal.find(request_id)
        if entry is None:
            raise _no_such()
        return entry


def _as_har(entries: Iterable[Entry]) -> Document:
    """These, the newest first, as a file."""
    text = json.dumps(har(each.detail for each in reversed(list(entries))))
    name = b'Content-Disposition: attachment; filename="bearer-proxy.har"'
    return Document(text.encode(), "application/json", more=(name,))


def _no_such() -> NoRoute:
    return NoRoute("No exchange of this name is kept: it may have been pushed out by newer ones.")


async def _given(request: Request) -> dict[str, Any]:
    """The JSON object that a request brings; nothing is an empty one. Raises `BadRequest`."""
    if request.body is None:
        return {}
    request.body.bound(replay=None, most=_GIVEN_MOST, idle=PING_SECONDS)
    pieces = []
    while piece := await request.body.read():
        pieces.append(piece)
    try:
        given = json.loads(b"".join(pieces) or b"{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise BadRequest("Write a JSON object.")
    return given
