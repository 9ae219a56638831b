"""What an upstream's answer says about the token that was sent with its request.

Default: a status in `refresh_on`, held in check by the negative signs of RFC 6750 section 3.1 and of rate limits
(threats 98-100). A credential's `expired` rules replace the default: OR between rules, AND inside one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.fields import Fields
from proxy.globs import glob_expression
from proxy.grants.pointer import resolve

#: Only answers up to this size are held to look into their body.
BODY_LIMIT: Final = 64 * 1024

#: Errors of RFC 6750 section 3.1 and of continuous access evaluation that a newer token does not cure.
_NOT_CURED_BY_A_TOKEN: Final = frozenset({"insufficient_scope", "insufficient_claims"})
#: What a WWW-Authenticate value is made of (RFC 9110 section 11.6.1): a scheme, at the beginning or behind a comma;
#: an auth-param; anything else in quotes. Commas between parameters may be missing, since some servers forget them.
#: The look-behind and the open end of a quoted string keep the search linear (threat 118).
_CHALLENGE_PART = re.compile(
    r"""
      (?: ^ | , ) \s{0,8} (?P<scheme> [!#$%&'*+.^_`|~0-9A-Za-z-]+ ) (?= [\s,] | $ ) (?! \s{0,8} = )
    | (?<! [!#$%&'*+.^_`|~0-9A-Za-z-] ) (?P<name> [!#$%&'*+.^_`|~0-9A-Za-z-]+ )
      \s{0,8} = \s{0,8} (?: " (?P<quoted> (?: [^"\\] | \\. )* ) " | (?P<bare> [^\s,"]+ ) )
    | " (?: [^"\\] | \\. )* "?
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ExpiredRule:
    """One entry of `expired`: all conditions must hold, and none of `unless`.

    `statuses` None: any. `headers` and `unless` map lower-case names to compiled globs on the whole value;
    `body` maps JSON pointers to the value that must stand there.
    """

    statuses: frozenset[int] | None
    headers: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    unless: Mapping[str, re.Pattern[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The upstream refused the token. `gate` names the kind of refusal within a route (see `lifecycle.Gate`).

    `explicit`: the answer itself says that the token is bad (an `expired` rule, `invalid_token`, or a 401),
    which a bare 403 does not.
    """

    gate: str
    explicit: bool


def glob(pattern: str) -> re.Pattern[str]:
    """A case-insensitive glob on a whole value; only `*` is special."""
    return re.compile(glob_expression(pattern), re.IGNORECASE | re.DOTALL)


class RefusalRules:
    """Decides whether an answer is a refusal of the token, for one route and its credential."""

    __slots__ = ("_expired", "_refresh_on", "_statuses")

    def __init__(self, refresh_on: frozenset[int], expired: tuple[ExpiredRule, ...] | None = None) -> None:
        self._refresh_on = refresh_on
        self._expired = expired
        statuses = refresh_on if expired is None else None
        if expired is not None and all(rule.statuses is not None for rule in expired):
            statuses = frozenset(status for rule in expired for status in rule.statuses or ())
        self._statuses = statuses

    def concerns(self, status: int) -> bool:
        """Can an answer of this status be a refusal at all? The cheap question that most answers end with."""
        return self._statuses is None or status in self._statuses

    def needs_body(self, status: int) -> bool:
        """Does a rule for this status look into the body?"""
        return self._expired is not None and any(rule.body for rule in self._expired if _about(rule, status))

    def judge(self, status: int, fields: Fields, body: bytes | None) -> Refusal | None:
        """The refusal that this answer is, or None. `body` is the whole body where it could be held."""
        if not self.concerns(status):
            return None
        values = _text(fields)
        error = bearer_error(values.get("www-authenticate", ()))
        gate = f"{status} invalid_token" if error == "invalid_token" else str(status)
        if self._expired is not None:
            matched = any(_matches(rule, status, values, body) for rule in self._expired)
            return Refusal(gate, explicit=True) if matched else None
        if error in _NOT_CURED_BY_A_TOKEN or (status == 403 and _rate_limited(values)):
            return None
        return Refusal(gate, explicit=status == 401 or error == "invalid_token")


def is_plain_json(fields: Fields) -> bool:
    """Is this answer identity-coded JSON, the only kind whose body is looked into?"""
    values = _text(fields)
    kind = values.get("content-type", [""])[0].partition(";")[0].strip().lower()
    coded = any(value.lower() != "identity" for value in values.get("content-encoding", ()))
    return not coded and (kind == "application/json" or kind.endswith("+json"))


def _about(rule: ExpiredRule, status: int) -> bool:
    return rule.statuses is None or status in rule.statuses


def _matches(rule: ExpiredRule, status: int, values: Mapping[str, list[str]], body: bytes | None) -> bool:
    if not _about(rule, status):
        return False
    if any(_any_match(pattern, values.get(name)) for name, pattern in rule.unless.items()):
        return False
    if not all(_any_match(pattern, values.get(name)) for name, pattern in rule.headers.items()):
        return False
    return not rule.body or _body_matches(rule.body, body)


def _any_match(pattern: re.Pattern[str], values: list[str] | None) -> bool:
    return values is not None and any(pattern.fullmatch(value) for value in values)


def _body_matches(wanted: Mapping[str, Any], body: bytes | None) -> bool:
    if body is None:
        return False
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return all(_equal(resolve(document, pointer, missing=_MISSING), value) for pointer, value in wanted.items())


def _equal(found: object, wanted: object) -> bool:
    """As JSON values: `true` is not 1."""
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


_MISSING: Final = object()


def _rate_limited(values: Mapping[str, list[str]]) -> bool:
    return "retry-after" in values or "0" in values.get("x-ratelimit-remaining", ())


def bearer_error(challenges: list[str] | tuple[str, ...]) -> str | None:
    """The first `error` of a Bearer challenge (RFC 9110 section 11.6.1, RFC 6750 section 3), None without one."""
    for challenge in challenges:
        scheme = ""
        for part in _CHALLENGE_PART.finditer(challenge):
            scheme = (part["scheme"] or scheme).lower()
            if scheme == "bearer" and part["name"] and part["name"].lower() == "error":
                return part["quoted"] if part["quoted"] is not None else part["bare"]
    return None


def _text(fields: Fields) -> dict[str, list[str]]:
    return {
        name.decode("latin-1"): [value.decode("latin-1") for value in values] for name, values in fields.items()
    }
