"""Where the credential goes, who wins where the client brings one of its own, and the head with ours put in last.

The modes are the route's `inject` (INTERFACE, "inject").
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from proxy.fields import Fields, cookie_values, without_scheme
from proxy.query import query_values

_HEADER_VALUE = re.compile(r"[\x21-\x7e]+")
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a credential goes: a header (with a scheme word or raw), a query parameter or a cookie."""

    kind: Literal["header", "query", "cookie"]
    name: str
    scheme: str | None = None

    def fits(self, token: str) -> bool:
        """Can `token` stand here without breaking the message (threat 50)?"""
        if self.kind == "header":
            return _HEADER_VALUE.fullmatch(token) is not None
        if self.kind == "cookie":
            return _COOKIE_VALUE.fullmatch(token) is not None
        return token != ""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Injection:
    """A token rendered for its places: header lines, query pieces and cookie pairs, ready to be appended.

    No repr: all of it is secret.
    """

    lines: bytes = b""
    query: bytes = b""
    cookies: bytes = b""


def render(places: Iterable[Place], token: str, constants: Iterable[tuple[str, str]] = ()) -> Injection:
    """`token` as it stands in each of `places`, and the constant fields that go with it."""
    lines, query, cookies = [], [], []
    for place in places:
        if place.kind == "header":
            value = f"{place.scheme} {token}" if place.scheme else token
            lines.append(f"{place.name}: {value}\r\n")
        elif place.kind == "query":
            query.append(f"{quote(place.name, safe='')}={quote(token, safe='')}")
        else:
            cookies.append(f"{place.name}={token}")
    lines.extend(f"{name}: {value}\r\n" for name, value in constants)
    return Injection("".join(lines).encode("ascii"), "&".join(query).encode(), "; ".join(cookies).encode())


AUTHORIZATION: Final = Place("header", "Authorization", "Bearer")


@dataclass(frozen=True, slots=True)
class Replace:
    """Only a value equal to `placeholder` is replaced."""

    placeholder: bytes

    def stands_in(self, values: Iterable[bytes]) -> bool:
        """Is the placeholder one of these values, with or without a scheme word?"""
        return self.placeholder in map(without_scheme, values)


Inject = Literal["overwrite", "if-absent"] | Replace


def places_to_fill(
    inject: Inject, places: tuple[Place, ...], fields: Fields, query: bytes | None, *, authorization_is_key: bool
) -> tuple[Place, ...]:
    """The places that get our credential; `()`: the client's own passes, and there is no refresh and no retry.

    An Authorization that was the client key does not count as present.
    """
    if inject == "overwrite":
        return places
    found = {
        place: _values(place, fields, query)
        for place in (AUTHORIZATION, *places)
        if not (authorization_is_key and place.kind == "header" and place.name.lower() == "authorization")
    }
    if isinstance(inject, Replace):
        matching = [place for place, values in found.items() if inject.stands_in(values)]
        # A placeholder in an Authorization that is no place of ours asks for the credential where it belongs.
        return tuple(place for place in places if place in matching) or (places if matching else ())
    return () if any(found.values()) else places


def _values(place: Place, fields: Fields, query: bytes | None) -> list[bytes]:
    name = place.name.encode()
    if place.kind == "query":
        return query_values(query, name)
    if place.kind == "cookie":
        return cookie_values(fields.get(b"cookie", ()), name)
    return fields.get(name.lower(), [])


class Outgoing:
    """A request as it goes upstream, all but the credential; `lines` are whole field lines, each with its end."""

    __slots__ = ("cookies", "lines", "method", "path", "query")

    def __init__(self, method: str, path: bytes, query: bytes | None, lines: bytes, cookies: list[bytes]) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.lines = lines
        self.cookies = cookies

    def head(self, injection: Injection) -> bytes:
        """The whole head, with the credential as the very last thing put in."""
        target, query = self.path, self.query
        if injection.query:
            query = query + b"&" + injection.query if query else injection.query
        if query is not None:
            target = b"%b?%b" % (target, query)
        cookies = b""
        if self.cookies or injection.cookies:
            pairs = [*self.cookies, injection.cookies] if injection.cookies else self.cookies
            cookies = b"Cookie: %b\r\n" % b"; ".join(pairs)
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (
            self.method.encode(),
            target,
            self.lines,
            cookies,
            injection.lines,
        )
