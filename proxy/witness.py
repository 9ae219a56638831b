"""Notes of a request that somebody else sees, too, step by step."""

from typing import Protocol

from proxy.binding import Binding
from proxy.body import RequestBody, Watcher
from proxy.credentials.credential import Rendered, Source
from proxy.errors import ProxyError
from proxy.guard import Admission
from proxy.injection import Outgoing
from proxy.notes import Notes, Sent, Stay
from proxy.upstream.attempt import Attempt


class Witness(Protocol):
    """Who sees each step of one request as it is made."""

    def goes(self, binding: Binding) -> None:
        """The guard let it in, and this is its way."""
        ...

    def sends(self, sent: Sent) -> None:
        """An attempt begins."""
        ...

    def refused(self) -> None:
        """The last attempt's token was refused."""
        ...


class WitnessedNotes(Notes):
    """One request, for `witness`, and in the notes `inner` of whoever looks on besides."""

    __slots__ = ("inner", "witness")

    def __init__(self, inner: Notes, witness: Witness) -> None:
        self.inner = inner
        self.witness = witness

    def goes(self, admission: Admission, binding: Binding, body: RequestBody | None) -> tuple[Watcher, ...]:
        """As above."""
        self.witness.goes(binding)
        return self.inner.goes(admission, binding, body)

    def sends(self, outgoing: Outgoing, rendered: Rendered | None) -> Sent | None:
        """As above."""
        sent = self.inner.sends(outgoing, rendered) or Sent(outgoing, rendered)
        self.witness.sends(sent)
        return sent

    def refused(self) -> None:
        """As above."""
        self.witness.refused()
        self.inner.refused()

    def stays(self, stay: Stay, source: Source) -> None:
        """As above."""
        self.inner.stays(stay, source)

    def repeats(self, attempt: Attempt) -> None:
        """As above."""
        self.inner.repeats(attempt)

    def fails(self, error: ProxyError) -> None:
        """As above."""
        self.inner.fails(error)

    def answers(self, lines: bytes) -> None:
        """As above."""
        self.inner.answers(lines)

    def opens(self) -> tuple[Watcher, Watcher] | None:
        """As above."""
        return self.inner.opens()
