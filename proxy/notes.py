"""What is noted of a request on its way, for whoever looks on; nothing where nobody does.

Law: no token is noted, and what is noted ends with the exchange: what rests of it is masked first (threat 82).
"""

from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, Literal, Protocol

from proxy.accesslog import Exchange
from proxy.binding import Binding
from proxy.body import Piece, RequestBody, Watcher
from proxy.credentials.credential import Rendered, Source
from proxy.errors import PathDenied, ProxyError
from proxy.guard import Admission
from proxy.http1.answer import AnswerHead
from proxy.http1.request import RequestSection
from proxy.injection import Outgoing, Place
from proxy.listener.request import Request
from proxy.upstream.attempt import Attempt

#: The type of a stream of events (HTML section 9.2).
_EVENTS: Final = b"text/event-stream"

#: Why a refused token is not followed by a newer one: it cannot change (and may be good: the answer does not say
#: that it is bad); a newer one did not help before; there is none; it is the same one; the body is not there.
Stay = Literal["fixed", "fixed, perhaps good", "closed", "none", "same", "body"]


class Sent:
    """One attempt: what went upstream, all but the credential, and what came back. Instants of `perf_counter`.

    `places` and `constants` are where the credential stood, and the names of the fields that went along.
    `is_kept`: the connection had served before. `error` is a code of ours. `body` is of an answer that nobody got.
    """

    __slots__ = (
        "answered_at",
        "began_at",
        "body",
        "connected_at",
        "constants",
        "error",
        "generation",
        "head",
        "is_kept",
        "is_refused",
        "outgoing",
        "places",
    )

    def __init__(self, outgoing: Outgoing, rendered: Rendered | None) -> None:
        self.began_at = perf_counter()
        self.outgoing = outgoing
        self.generation = 0
        self.places: Sequence[Place] = ()
        self.constants: Sequence[str] = ()
        if rendered is not None:
            self.generation = rendered.token.generation
            self.places = rendered.places
            if rendered.credential.constants:
                self.constants = [name for name, _value in rendered.credential.constants]
        self.head: AnswerHead | None = None
        self.answered_at = self.connected_at = 0.0
        self.is_kept = False
        self.is_refused = False
        self.error = ""
        self.body: Piece | None = None

    def answered(self, attempt: Attempt) -> None:
        """The head of its answer is there."""
        self.head = attempt.head
        self.is_kept = attempt.is_kept
        self.connected_at = attempt.connected_at
        self.answered_at = perf_counter()


class Onlooker(Protocol):
    """Who is told of some things at once, and of the rest when it asks."""

    def waits(self) -> None:
        """An exchange ended, and none had before that still waits."""
        ...

    def refused(self, exchange: Exchange, notes: "FullNotes") -> None:
        """The last attempt's token was refused."""
        ...

    def hears_events(self, exchange: Exchange, notes: "FullNotes") -> Watcher:
        """The answer is a stream of events; gives who is to see it."""
        ...

    def hears_frames(self, exchange: Exchange, notes: "FullNotes") -> tuple[Watcher, Watcher]:
        """A WebSocket opens; gives who is to see what the client says, and what the upstream does."""
        ...


class Notes:
    """One request, where nobody looks on: nothing is noted."""

    __slots__ = ()

    def goes(self, _admission: Admission, _binding: Binding, _body: RequestBody | None) -> tuple[Watcher, ...]:
        """The guard let it in, and this is its way; gives who is to see the body of its answer."""
        return ()

    def sends(self, _outgoing: Outgoing, _rendered: Rendered | None) -> Sent | None:
        """An attempt begins; gives what it is noted in."""
        return None

    def refused(self) -> None:
        """The last attempt's token was refused."""

    def stays(self, stay: Stay, source: Source) -> None:
        """And that is what the client gets; `source` was to have a newer one."""

    def repeats(self, attempt: Attempt) -> None:
        """The request is sent once more: nobody gets the answer of `attempt`, the last one."""

    def fails(self, error: ProxyError) -> None:
        """This is our own answer."""

    def answers(self, lines: bytes) -> None:
        """These are the answer's field lines as the client gets them."""

    def opens(self) -> tuple[Watcher, Watcher] | None:
        """A WebSocket does; gives who is to see what the client says, and what the upstream does."""
        return None


class FullNotes(Notes):
    """One request, for `onlooker`, by its `section`. `bodies`: bytes to keep of each body, 0: none.

    It waits for its turn while the connection is gone, or serves another: nothing of that is held.
    """

    __slots__ = (
        "admission",
        "admitted_at",
        "answer_body",
        "answer_lines",
        "binding",
        "bodies",
        "detail",
        "exchange",
        "messages",
        "onlooker",
        "request_body",
        "rule",
        "section",
        "sent",
        "stay",
        "trouble",
    )

    def __init__(self, section: RequestSection, exchange: Exchange, onlooker: Onlooker, bodies: int = 0) -> None:
        self.section = section
        self.exchange = exchange
        self.onlooker = onlooker
        #: What the onlooker keeps of messages.
        self.messages: object | None = None
        self.bodies = bodies
        self.admission: Admission | None = None
        self.admitted_at = 0.0
        self.binding: Binding | None = None
        self.sent: list[Sent] = []
        self.stay: Stay | None = None
        #: The last trouble of who was to have a newer token; what we said ourselves, and by which rule.
        self.trouble = self.detail = self.rule = ""
        self.answer_lines = b""
        self.request_body: Piece | None = None
        self.answer_body: Piece | None = None

    @property
    def is_of_events(self) -> bool:
        """Is the answer a stream of events?"""
        head = self.sent[-1].head if self.sent else None
        kinds = () if head is None else head.values.get(b"content-type", ())
        return any(each.lower().startswith(_EVENTS) for each in kinds)

    def goes(self, admission: Admission, binding: Binding, body: RequestBody | None) -> tuple[Watcher, ...]:
        """As above."""
        self.admission = admission
        self.binding = binding
        self.admitted_at = perf_counter()
        if not self.bodies:
            return ()
        if body is not None:
            self.request_body = body.watch = Piece(self.bodies)
        self.answer_body = Piece(self.bodies)
        return (self.answer_body,)

    def sends(self, outgoing: Outgoing, rendered: Rendered | None) -> Sent | None:
        """As above."""
        sent = Sent(outgoing, rendered)
        self.sent.append(sent)
        return sent

    def refused(self) -> None:
        """As above."""
        self.sent[-1].is_refused = True
        self.onlooker.refused(self.exchange, self)

    def stays(self, stay: Stay, source: Source) -> None:
        """As above."""
        self.stay = stay
        if stay == "none":
            self.trouble = source.report().last_error or ""

    def repeats(self, attempt: Attempt) -> None:
        """As above; what has come of its body is kept, and nothing more is waited for."""
        if not self.bodies:
            return
        piece = self.sent[-1].body = Piece(self.bodies)
        piece.see(attempt.answer.read_nowait())
        piece.is_cut = not attempt.answer.complete

    def fails(self, error: ProxyError) -> None:
        """As above; the error itself is not kept, since what it was raised through holds tokens."""
        self.detail = error.detail
        if isinstance(error, PathDenied):
            self.rule = error.rule

    def answers(self, lines: bytes) -> None:
        """As above."""
        self.answer_lines = lines
        if self.answer_body is not None and self.is_of_events:
            self.answer_body.also = self.onlooker.hears_events(self.exchange, self)

    def opens(self) -> tuple[Watcher, Watcher] | None:
        """As above."""
        return self.onlooker.hears_frames(self.exchange, self) if self.bodies else None


class Notebook:
    """The notes of all requests, for `onlooker`: of those on their way, and of those that ended and wait for it.

    At most `bound` wait; where more would, the oldest goes. `bodies` as above.
    """

    __slots__ = ("bodies", "bound", "ended", "is_told", "onlooker", "open")

    def __init__(self, onlooker: Onlooker, bodies: int, bound: int) -> None:
        self.onlooker = onlooker
        self.bodies = bodies
        self.bound = bound
        self.open: dict[int, FullNotes] = {}
        self.ended: deque[tuple[Exchange, FullNotes | None]] = deque()
        #: The onlooker knows that something waits.
        self.is_told = False

    def begin(self, request: Request) -> tuple[Exchange, Notes]:
        """The exchange of a request that begins, and what its way is noted in."""
        exchange, _ = begin(request)
        notes = FullNotes(request.section, exchange, self.onlooker, self.bodies)
        self.open[exchange.number] = notes
        return exchange, notes

    def end(self, exchange: Exchange) -> None:
        """It is over."""
        self.ended.append((exchange, self.open.pop(exchange.number, None)))
        if len(self.ended) > self.bound:
            self.ended.popleft()
        if not self.is_told:
            self.is_told = True
            self.onlooker.waits()


#: Nobody looks on.
NOTHING_NOTED: Final = Notes()


def begin(request: Request) -> tuple[Exchange, Notes]:
    """The exchange of a request that begins, where nobody looks on."""
    return Exchange(request.method, request.client, perf_counter()), NOTHING_NOTED
