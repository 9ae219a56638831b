"""Which fields, cookies and parameters of a request cross, which do not, what is added, and why.

Law: what crosses is read off what would be sent (`outbound.py`); the reasons are those of `reasons.py`. Values are
masked as the log masks, and by the name of their field besides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.binding import Binding
from proxy.config.fields import SECRET_NAME
from proxy.credentials.credential import Credential
from proxy.guard import Admission, Guard
from proxy.headers import FRAMING, Stripping
from proxy.injection import Outgoing, Place
from proxy.listener.request import Request
from proxy.query import query_names, strip_query
from proxy.reasons import KEY_IS_OURS, Reasons, cookie_names
from proxy.redact import MASK, Redactor

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
            *(Note(f"Cookie {self._text(name)}", MASK, "") for name in cookie_names(self.sent.cookies)),
        ]

    def dropped(self) -> list[Note]:
        """What stops here, each with its reason."""
        return [*self._dropped_fields(), *self._dropped_cookies(), *self._dropped_elsewhere()]

    def added(self) -> list[Note]:
        """What the client did not send, or not so; the credential last."""
        reasons = self._reasons()
        own = {line for lower, _, line in self.request.section.fields if lower not in FRAMING}
        found = [self._note(line, reasons.why_added(line)) for line in self._sent_lines() if line not in own]
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
        reasons = self._reasons()
        for lower, value, line in self.request.section.fields:
            if lower == b"cookie" or (lower not in FRAMING and line in lines):
                continue
            named_proxy = lower in named and not self.guard.holds_key(value)
            why = reasons.why_dropped(lower, named_proxy=named_proxy)
            yield Note(self._note(line, "").name, None, why)

    def _reasons(self) -> Reasons:
        credential, binding = self.binding.credential, self.binding
        return Reasons(
            options=self.request.section.options,
            owner="" if credential is None else credential.name,
            places=self.places,
            strip=self.strip,
            bare=binding.bare,
            constants=binding.constants,
            host=binding.host,
            authorization_is_key=self.admission.visitor.authorization_is_key,
        )

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
        kept, reasons = list(cookie_names(self.sent.cookies)), self._reasons()
        for name in cookie_names(self.request.section.values.get(b"cookie", [])):
            if name in kept:
                kept.remove(name)
            else:
                yield Note(f"Cookie {self._text(name)}", None, reasons.why_cookie_dropped(name))

    def _dropped_elsewhere(self) -> Iterator[Note]:
        if self.admission.key_prefix:
            yield Note(f"/~{MASK}", None, KEY_IS_OURS)
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
        return self.redactor.line(raw.decode("latin-1"))


def _names(query: bytes | None) -> list[bytes]:
    """The names of the parameters, as many as the log shows."""
    return query_names(query, _NAMES_MOST).split(b"&") if query else []
