"""Which fields, cookies and parameters of a request cross, which do not, what is added, and why.

Law: what crosses is read off what would be sent (`outbound.py`); only the reasons are worked out here. Values are
masked as the log masks, and by the name of their field besides.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.binding import Binding
from proxy.config import RouteConfig
from proxy.config.fields import SECRET_NAME
from proxy.credentials.credential import Credential
from proxy.fields import canonical
from proxy.guard import Admission, Guard
from proxy.headers import CLIENT_KEY_HEADER, FORWARDING, FRAMING, HOP_BY_HOP, OUR_COOKIES, Stripping
from proxy.injection import Outgoing, Place
from proxy.listener.request import Request
from proxy.query import query_names, strip_query
from proxy.redact import MASK, Redactor, printable

#: As many names of parameters as the log shows.
_NAMES_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Note:
    """One field (`Name`), cookie (`Cookie name`), parameter (`?name`) or segment; `value` as it may be shown."""

    name: str
    value: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Crossing:
    """A request, and what of it would be sent, with our credential in `places`."""

    request: Request
    admission: Admission
    binding: Binding
    route: RouteConfig
    places: tuple[Place, ...]
    strip: Stripping
    sent: Outgoing
    guard: Guard
    redactor: Redactor

    def target(self) -> str:
        """Path and query at the upstream; of parameters the names, as in the log, and ours."""
        names = [self._text(name) for name in _names(self.sent.query)]
        names += [f"{place.name}={MASK}" for place in self.places if place.kind == "query"]
        path = self._text(self.sent.path)
        return f"{path}?{'&'.join(names)}" if names else path

    def kept(self) -> list[Note]:
        """The fields and cookies that pass as they came."""
        lines = self._sent_lines()
        passing = [line for lower, _, line in self.request.section.fields if lower not in FRAMING and line in lines]
        return [
            *(self._note(line, "") for line in passing),
            *(Note(f"Cookie {self._text(name)}", MASK, "") for name in _cookies(self.sent.cookies)),
        ]

    def dropped(self) -> list[Note]:
        """What stops here, each with its reason."""
        return [*self._dropped_fields(), *self._dropped_cookies(), *self._dropped_elsewhere()]

    def added(self) -> list[Note]:
        """What the client did not send, or not so; the credential last."""
        own = {line for lower, _, line in self.request.section.fields if lower not in FRAMING}
        found = [self._note(line, self._why_added(line)) for line in self._sent_lines() if line not in own]
        credential = self.binding.credential
        if credential is None or not self.places:
            return found
        return [*found, *self._of_credential(credential)]

    # -- fields

    def _sent_lines(self) -> list[bytes]:
        return self.sent.lines.removesuffix(b"\r\n").split(b"\r\n")

    def _dropped_fields(self) -> Iterator[Note]:
        lines = self._sent_lines()
        named = {line.partition(b":")[0].lower() for line in lines}
        for lower, value, line in self.request.section.fields:
            if lower == b"cookie" or (lower not in FRAMING and line in lines):
                continue
            yield Note(self._note(line, "").name, None, self._why_dropped(lower, value, is_there=lower in named))

    def _why_dropped(self, lower: bytes, value: bytes, *, is_there: bool) -> str:
        """Most telling first; `is_there`: a field of this name is sent all the same."""
        name, credential = canonical(lower), self.binding.credential
        owner = "" if credential is None else credential.name
        ours = {canonical(place.name.encode()) for place in self.places if place.kind == "header"}
        rules = self.route.headers
        holds_key = name == b"authorization" and self.admission.visitor.authorization_is_key
        reasons = (
            (name == CLIENT_KEY_HEADER or holds_key, "the client key is for the proxy alone"),
            (name in ours, f"that of credential {owner} stands in its place"),
            (name in HOP_BY_HOP, "it is about this connection alone"),
            (name in FRAMING, "it is written anew"),
            (name in FORWARDING, "only a proxy may say it"),
            (lower in self.request.section.options, "Connection names it"),
            (name in _canonical(rules.set), "headers.set of the route"),
            (name in _canonical(rules.remove), "headers.remove of the route"),
            (name in self.strip.names, f"credential {owner} lets no other go along"),
            (is_there and not self.guard.holds_key(value), "it named the proxy"),
        )
        return next((why for holds, why in reasons if holds), "a client key stands in it")

    def _why_added(self, line: bytes) -> str:
        lower = line.partition(b":")[0].lower()
        if lower == b"host":
            return "host_header: client" if self.binding.host == "client" else f"host_header: {self.binding.host}"
        if lower in {b"content-length", b"transfer-encoding", b"expect"}:
            return "how the body is framed"
        if line + b"\r\n" in self.binding.constants:
            return "headers.set of the route"
        if lower in FORWARDING:
            return "forwarded: true"
        if lower in {b"connection", b"upgrade"}:
            return "the WebSocket handshake"
        return "the client's, with the upstream's name in place of the proxy's"

    def _of_credential(self, credential: Credential) -> Iterator[Note]:
        """What it brings: its token in its places, and its constants."""
        why = f"credential {credential.name}"
        shown = {"header": "{}", "query": "?{}", "cookie": "Cookie {}"}
        for place in self.places:
            value = f"{place.scheme} {MASK}" if place.kind == "header" and place.scheme else MASK
            yield Note(shown[place.kind].format(place.name), value, why)
        for name, value in credential.constants:
            yield self._note(f"{name}: {value}".encode(), why)

    # -- the rest

    def _dropped_cookies(self) -> Iterator[Note]:
        kept = list(_cookies(self.sent.cookies))
        for name in _cookies(self.request.section.values.get(b"cookie", [])):
            if name in kept:
                kept.remove(name)
            elif name.lower().startswith(OUR_COOKIES):
                yield Note(f"Cookie {self._text(name)}", None, "the proxy's own stay here")
            elif name in self.strip.cookies and self.binding.credential is not None:
                why = f"that of credential {self.binding.credential.name} stands in its place"
                yield Note(f"Cookie {self._text(name)}", None, why)
            else:
                yield Note(f"Cookie {self._text(name)}", None, "a client key stands in it")

    def _dropped_elsewhere(self) -> Iterator[Note]:
        if self.admission.key_prefix:
            yield Note(f"/~{MASK}", None, "the client key is for the proxy alone")
        credential = self.binding.credential
        for piece in (self.admission.query or b"").split(b"&"):
            if piece and strip_query(piece, self.strip.query) is None and credential is not None:
                name = self._text(piece.partition(b"=")[0])
                yield Note(f"?{name}", None, f"credential {credential.name} lets no other go along")

    def _note(self, line: bytes, why: str) -> Note:
        """A field line, its value masked."""
        name, _, value = self._text(line).partition(":")
        return Note(name, MASK if SECRET_NAME.search(name) else value.strip(), why)

    def _text(self, raw: bytes) -> str:
        return printable(self.redactor.text(raw.decode("latin-1")))


def _canonical(names: Iterable[str]) -> set[bytes]:
    return {canonical(name.encode()) for name in names}


def _names(query: bytes | None) -> list[bytes]:
    """The names of the parameters, as many as the log shows."""
    return query_names(query, _NAMES_MOST).split(b"&") if query else []


def _cookies(values: list[bytes]) -> Iterator[bytes]:
    """The names of the cookies in these fields."""
    for value in values:
        for pair in value.split(b";"):
            if name := pair.partition(b"=")[0].strip(b" \t"):
                yield name
