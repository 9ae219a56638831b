"""What an answer of a token endpoint means: granted, rejected, try later, or not understood.

Law: a message here is one of the fixed sentences of `Fault`. Never a byte of the reply (threats 56, 80).
"""

import json
import re
from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any, Final, Literal, NoReturn

from proxy.errors import BearerProxyError, Said
from proxy.grants import expiry
from proxy.grants.login import ResponseRules, Value
from proxy.grants.pointer import resolve
from proxy.grants.request import Granted, TokenReply
from proxy.redact import Secret

#: A token reply is a few hundred bytes; a JWT with many groups some thousands (threat 56).
BODY_LIMIT: Final = 64 * 1024
#: Beyond this no server takes the header (threat 50).
TOKEN_LIMIT: Final = 16 * 1024

Verdict = Literal["accepted", "rejected", "transient", "misconfigured"]

#: The request was understood and refused: asking again with the same secret only locks the account.
_REJECTED: Final = frozenset({400, 401, 403, 409, 422})
#: A lifetime and a JWT's own `exp` that differ by more than this: the unit is another one, or a clock is wrong.
_DOUBT: Final = 2.0
_SECONDS: Final = {"seconds": 1.0, "milliseconds": 0.001, "minutes": 60.0}
_DELAY: Final = re.compile(r"[0-9]{1,9}")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


class Fault(Enum):
    """All that can be wrong with an accepted reply, as complete sentences."""

    TOO_LARGE = "The token reply is larger than 64 KiB."
    ENCODED = "The token reply is compressed although that was not asked for."
    NOT_JSON = "The token reply is not JSON, where its parts are looked for."
    NO_TOKEN = "The token reply has no text where the token is expected (of a login: response.token)."  # noqa: S105  a sentence
    BAD_TOKEN = "The token in the reply is empty, too long, or holds characters that no header may."  # noqa: S105  a sentence
    BAD_REFRESH_TOKEN = "The refresh token in the reply is no text, or too long, or holds odd characters."  # noqa: S105  a sentence
    NOT_BEARER = "The token reply's token_type is not bearer."
    BAD_LIFETIME = "The lifetime in the token reply (of a login: response.lifetime) is not a positive number."
    BAD_EXPIRES = "The expiry in the token reply (of a login: response.expires) is not a time in any known form."
    EXPIRED = (
        "The token in the reply is already expired. Compare this machine's clock with the server's, "
        "or, of a login, name a lifetime in response.lifetime instead of response.expires."
    )


class InvalidReply(BearerProxyError):  # noqa: N818  the name says what happened, as in errors.py
    """An accepted status whose content cannot be used; `refresh_token` is what can be used of it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.refresh_token: Secret | None = None


class RejectedReply(BearerProxyError):  # noqa: N818  same
    """The token endpoint says no: by its status, or because `response.success` does not hold.

    `code` is the registered one that it gave, empty where it gave none; `said` are its own words, for the log;
    `date` is its clock, in epoch seconds, where it told.
    """

    def __init__(self, sentence: str, code: str = "", said: Said = ()) -> None:
        super().__init__(sentence)
        self.code = code
        self.said = said
        self.date: float | None = None


class _Missing:
    """The type of `_MISSING`: no such member, which is not the same as null."""


_MISSING: Final = _Missing()


def classify(status: int, accept: Collection[int]) -> Verdict:
    """What a status of a token endpoint means.

    1. In `accept`: accepted.
    2. 400, 401, 403, 409, 422: rejected, for good with this secret (threat 107).
    3. 408, 429, 5xx: transient (threat 108).
    4. Everything else, redirects first (threat 54): the description does not fit the server.
    """
    if status in accept:
        return "accepted"
    if status in _REJECTED:
        return "rejected"
    if status in {408, 429} or 500 <= status <= 599:
        return "transient"
    return "misconfigured"


def is_from_between(reply: TokenReply) -> bool:
    """Is it a firewall or a captive portal that says no? They answer 403 with a page, where token endpoints do not.

    What they refuse says nothing about a secret.
    """
    kind = _header(reply.headers, "Content-Type") or ""
    return reply.status == 403 and kind.lower().startswith("text/html")


def date(headers: Iterable[tuple[str, str]]) -> float | None:
    """What the server's clock said, in epoch seconds (RFC 9110 section 6.6.1); None where it does not tell."""
    return expiry.http_date(_header(headers, "Date") or "")


def retry_after(headers: Iterable[tuple[str, str]], now_wall: float) -> float | None:
    """Seconds that `Retry-After` asks for (RFC 9110 section 10.2.3), by the server's clock where it tells it.

    None if absent, past or unreadable.
    """
    value = _header(headers, "Retry-After")
    if value is None:
        return None
    if _DELAY.fullmatch(value):
        return float(value) or None
    at, server_wall = expiry.http_date(value), date(headers)
    now = now_wall if server_wall is None else server_wall
    return at - now if at is not None and at > now else None


def read(reply: TokenReply, rules: ResponseRules, *, now_wall: float) -> Granted:
    """Take the token, and all that is said about it, out of an accepted reply.

    `now_wall` is the epoch time at which the reply came; a `Date` of the server beats it, since the expiry was
    reckoned on that clock. Raises `RejectedReply` where `rules.success` does not hold, and `InvalidReply`.
    """
    if len(reply.body) > BODY_LIMIT:
        raise InvalidReply(Fault.TOO_LARGE)
    if (_header(reply.headers, "Content-Encoding") or "identity").lower() != "identity":
        raise InvalidReply(Fault.ENCODED)
    document = _document(reply.body) if _needs_json(rules) else _MISSING
    for pointer, expected in rules.success.items():
        if not _holds(_at(document, pointer), expected):
            raise RejectedReply("The token reply says that the request failed (response.success).")
    refresh_token = _refresh_token(reply, document, rules)
    try:
        return _granted(reply, document, rules, refresh_token, now_wall)
    except InvalidReply as error:
        # The server has put it in the place of the one that was redeemed, whatever else is wrong.
        error.refresh_token = refresh_token
        raise


def _granted(
    reply: TokenReply, document: object, rules: ResponseRules, refresh_token: Secret | None, now_wall: float
) -> Granted:
    kind = _at(document, "/token_type")
    if kind is not _MISSING and not (isinstance(kind, str) and kind.lower() == "bearer"):
        raise InvalidReply(Fault.NOT_BEARER)
    token = _text(_extract(reply, document, rules.token), Fault.NO_TOKEN, Fault.BAD_TOKEN)
    server_wall = date(reply.headers)
    now = now_wall if server_wall is None else server_wall
    lifetime, expires_at_wall = _lifetime(document, token, rules, now)
    contradicted = None
    if _at(document, rules.lifetime) is not _MISSING:
        lifetime, contradicted = _compared(lifetime, token, now)
    return Granted(
        token=Secret(token),
        refresh_token=refresh_token,
        lifetime=lifetime,
        refresh_lifetime=_refresh_lifetime(document, rules, now),
        expires_at_wall=expires_at_wall,
        contradicted=contradicted,
    )


def _at(document: object, pointer: str | None) -> Any:  # noqa: ANN401  JSON is of any type
    """What a pointer names. A null is as good as nothing, and so is no pointer."""
    found = _MISSING if pointer is None else resolve(document, pointer, missing=_MISSING)
    return _MISSING if found is None else found


def _needs_json(rules: ResponseRules) -> bool:
    places = (rules.token, rules.refresh_token, rules.lifetime, rules.expires, rules.refresh_expires)
    return bool(rules.success) or any(place is not None and place.startswith("/") for place in places)


def _document(body: bytes) -> object:
    """The body as JSON (RFC 8259: UTF-8, no NaN). A byte order mark is let pass; .NET servers write one."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # From None: the error of the parser carries the whole document.
        raise InvalidReply(Fault.NOT_JSON) from None


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _holds(found: object, expected: Value) -> bool:
    """Are they equal as JSON values? `true` is not 1, and an expected null is also met by an absent member."""
    if expected is None:
        return found is _MISSING
    if isinstance(expected, Secret):
        return isinstance(found, str) and expected == Secret(found)
    return isinstance(found, bool) == isinstance(expected, bool) and found == expected


def _header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The value of a header field; None if it is absent or there are several that differ."""
    found = {value.strip() for field, value in headers if field.lower() == name.lower()}
    return found.pop() if len(found) == 1 else None


def _extract(reply: TokenReply, document: object, place: str) -> object:
    if place.startswith("header:"):
        return _header(reply.headers, place.removeprefix("header:")) or _MISSING
    if place == "text":
        return reply.body.decode("latin-1")
    return _at(document, place)


def _text(found: object, missing: Fault, bad: Fault) -> str:
    """A token: trailing line ends go, everything else that a header may not hold is refused (threat 50)."""
    if not isinstance(found, str):
        raise InvalidReply(missing)
    token = found.rstrip("\r\n")
    if len(token) > TOKEN_LIMIT or not _PRINTABLE.fullmatch(token):
        raise InvalidReply(bad)
    return token


def _refresh_token(reply: TokenReply, document: object, rules: ResponseRules) -> Secret | None:
    """Absent, null and empty (Azure's managed identity says `""`) all mean that there is none."""
    found = _MISSING if rules.refresh_token is None else _extract(reply, document, rules.refresh_token)
    if found is _MISSING or found == "":
        return None
    return Secret(_text(found, Fault.BAD_REFRESH_TOKEN, Fault.BAD_REFRESH_TOKEN))


def _lifetime(document: object, token: str, rules: ResponseRules, now: float) -> tuple[float | None, float | None]:
    """Lifetime in seconds, and the expiry as stated.

    1. A stated lifetime counts, whatever the expiry says: the vendor's clock may be off (TeleTracker's rule).
    2. Else the expiry, less the server's own time.
    3. Else the default.
    """
    stated = _at(document, rules.lifetime)
    expires_at = _expires_at(document, token, rules, strict=stated is _MISSING)
    if stated is not _MISSING:
        amount = expiry.number(stated)
        if amount is None or amount <= 0:
            raise InvalidReply(Fault.BAD_LIFETIME)
        return min(amount * _SECONDS[rules.lifetime_unit], expiry.LONGEST_LIFETIME), expires_at
    if expires_at is None:
        return rules.default_lifetime, None
    if expires_at <= now:
        raise InvalidReply(Fault.EXPIRED)
    return min(expires_at - now, expiry.LONGEST_LIFETIME), expires_at


def _compared(lifetime: float | None, token: str, now: float) -> tuple[float | None, float | None]:
    """The lifetime that counts, and a stated one that the token itself contradicts (else None).

    An end in the past tells of the clocks, not of the unit: the stated lifetime goes on to count.
    """
    end = expiry.jwt_expiry(token)
    if lifetime is None or end is None:
        return lifetime, None
    own = min(end - now, expiry.LONGEST_LIFETIME)
    if lifetime <= own * _DOUBT and own <= lifetime * _DOUBT:
        return lifetime, None
    return min(lifetime, own) if own > 0 else lifetime, lifetime


def _expires_at(document: object, token: str, rules: ResponseRules, *, strict: bool) -> float | None:
    """The stated expiry; None where nothing is said. Unreadable ones are refused only if they are needed."""
    if rules.expires == "jwt":
        return expiry.jwt_expiry(token)
    if rules.expires == "vanilla":
        return expiry.vanilla_expiry(token)
    found = _at(document, rules.expires)
    if found is _MISSING:
        return None
    expires_at = expiry.instant(found)
    if expires_at is None and strict:
        raise InvalidReply(Fault.BAD_EXPIRES)
    return expires_at


def _refresh_lifetime(document: object, rules: ResponseRules, now: float) -> float | None:
    """Seconds until the refresh token ends. It only informs, so what cannot be read is simply not known.

    A stated lifetime counts as the token's own does; 0 is Keycloak's word for one without end.
    """
    for place in rules.refresh_lifetimes:
        lifetime = expiry.number(_at(document, place))
        if lifetime is not None and lifetime > 0:
            return min(lifetime, expiry.LONGEST_LIFETIME)
    expires_at = expiry.instant(_at(document, rules.refresh_expires))
    return min(expires_at - now, expiry.LONGEST_LIFETIME) if expires_at is not None and expires_at > now else None
