"""The life of an access token, and the gate that holds refusals in check.

Law: everything that decides whether a token is used, refreshed or waited for stands here, as plain functions of
a value and an instant. No I/O, no clock, no randomness: those are parameters.

Instants are seconds on one clock that counts suspend (`clock.py`); durations are float seconds.
"""

from dataclasses import dataclass, field
from typing import Final

from proxy.errors import CredentialError
from proxy.redact import Secret

#: Refresh this long before the expiry unless the config says otherwise.
DEFAULT_MARGIN: Final = 60.0
#: The margin is never more than this share of a lifetime: a 30 s token must not be refreshed by every request.
MARGIN_SHARE: Final = 0.1

#: First and last pause after a failed token request (full jitter between the first and the doubled one).
BACKOFF_FIRST: Final = 1.0
BACKOFF_LAST: Final = 300.0
#: A `Retry-After` beyond this is taken as this (threat 108).
RETRY_AFTER_LAST: Final = 3600.0

#: First and last pause of a closed gate.
GATE_FIRST: Final = 1.0
GATE_LAST: Final = 300.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token as it is used: a value with a generation and an expiry.

    `generation` grows by one with each token of a credential. `obtained_at` is when the request for it was
    *sent*; `expires_at` is on the same clock, None where nobody knows.
    """

    value: Secret
    generation: int
    obtained_at: float
    expires_at: float | None = None
    refresh_token: Secret | None = None
    refresh_expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no newer token: the error to answer with, and when to ask again (None: never by itself)."""

    error: CredentialError
    count: int
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class Life:
    """All that a decision needs: the token there is, and the last failure to get a newer one."""

    margin: float = DEFAULT_MARGIN
    token: Token | None = None
    failure: Failure | None = None

    @property
    def generation(self) -> int:
        """That of the token; 0: there is none."""
        return 0 if self.token is None else self.token.generation


def stale_at(token: Token, margin: float) -> float | None:
    """When a refresh ahead is due: `min(margin, lifetime / 10)` before the expiry; None: never."""
    if token.expires_at is None:
        return None
    lifetime = token.expires_at - token.obtained_at
    return token.expires_at - min(margin, lifetime * MARGIN_SHARE)


def refresh_due_at(life: Life) -> float | None:
    """When the timer is to refresh ahead, after a failure no sooner than may be asked again; None: never."""
    token, failure = life.token, life.failure
    due_at = stale_at(token, life.margin) if token else None
    if due_at is None or failure is None:
        return due_at
    return None if failure.retry_at is None else max(due_at, failure.retry_at)


def state(life: Life, now: float) -> str:
    """`fresh`, `stale` or `invalid`: derived, never stored."""
    token = life.token
    if token is None:
        return "invalid"
    if token.expires_at is None:
        return "fresh"
    if now >= token.expires_at:
        return "invalid"
    due_at = stale_at(token, life.margin)
    return "fresh" if due_at is None or now < due_at else "stale"


def decide(life: Life, now: float, after: int = 0) -> tuple[Token | None, bool]:
    """What to do at `now` for a request that needs a token of a generation above `after`.

    The four answers:

    1. `(token, False)`: use it.
    2. `(token, True)`: use it, and refresh in the background.
    3. `(None, True)`: wait for a refresh.
    4. `(None, False)`: fail at once with the last error.
    """
    condition = state(life, now)
    token = life.token
    if token is None or condition == "invalid" or token.generation <= after:
        return None, may_ask(life, now)
    return token, condition == "stale" and may_ask(life, now)


def may_ask(life: Life, now: float) -> bool:
    """May a token request be sent, as far as the last failure goes?"""
    failure = life.failure
    return failure is None or (failure.retry_at is not None and now >= failure.retry_at)


def told(failure: Failure, now: float) -> CredentialError:
    """A failure as an answer to one request: a new object, with the seconds that are left."""
    left = None if failure.retry_at is None else max(1.0, failure.retry_at - now)
    return type(failure.error)(failure.error.detail, retry_after=left)


def back_off(count: int, random: float, retry_after: float | None = None) -> float:
    """Seconds to wait after the `count`-th failure in a row; `random` is uniform in [0, 1).

    Full jitter between one second and the doubled bound, so that many proxies do not return at once.
    A `Retry-After` of the server is a lower bound.
    """
    bound = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(count, 16))
    pause = BACKOFF_FIRST + random * (bound - BACKOFF_FIRST)
    return max(pause, min(retry_after or 0.0, RETRY_AFTER_LAST))


@dataclass(slots=True)
class Gate:
    """Holds one kind of refusal of one route in check (threats 98, 99).

    A refusal that a newer token does not cure is evidence that tokens are not what it is about: the gate closes
    for 1, 2, 4 … 300 seconds. Only a cured retry opens it; a success elsewhere must not, since a healthy path
    beside a forbidden one would re-arm it for ever. All refusals of one generation are one piece of evidence.
    """

    closed_until: float = field(default=float("-inf"))
    pause: float = 0.0
    evidence: int = 0

    def is_open(self, now: float) -> bool:
        """May a refusal ask for a newer token now?"""
        return now >= self.closed_until

    def cured(self) -> None:
        """A retry with a newer token was not refused."""
        self.closed_until = float("-inf")
        self.pause = 0.0

    def not_cured(self, generation: int, now: float) -> None:
        """A retry with the token of `generation` was refused again."""
        if generation <= self.evidence:
            return
        self.evidence = generation
        self.pause = min(GATE_LAST, self.pause * 2 or GATE_FIRST)
        self.closed_until = now + self.pause
