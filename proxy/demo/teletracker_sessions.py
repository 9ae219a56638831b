"""The sessions of the TeleTracker double: pairs of an access token and a refresh token that works once."""

import dataclasses
from typing import Final, Literal

#: Seconds: the vendor's examples are exactly 29 days apart; each refresh begins them anew.
REFRESH_LIFETIME: Final = 29 * 24 * 3600


@dataclasses.dataclass(slots=True)
class Session:
    """One pair of tokens, bound to an account. `family` joins all the pairs that one login led to."""

    family: int
    account_id: int
    expires_at: float
    refresh_expires_at: float
    refresh: Literal["good", "used", "revoked"] = "good"


class Sessions:
    """All pairs that were issued. Instants are seconds on one clock, given by the caller."""

    def __init__(self) -> None:
        self._by_access: dict[str, Session] = {}
        self._by_refresh: dict[str, Session] = {}
        self.reuses = 0

    def begin(self, access: str, refresh: str, *, family: int, account_id: int, now: float, lifetime: int) -> None:
        """Remember a new pair; `lifetime` of the access token in seconds."""
        session = Session(family, account_id, now + lifetime, now + REFRESH_LIFETIME)
        self._by_access[access] = self._by_refresh[refresh] = session

    def of(self, access: str | None, now: float) -> Session | None:
        """The session of an access token that is good at `now`."""
        session = None if access is None else self._by_access.get(access)
        return session if session is not None and now < session.expires_at else None

    def spend(self, refresh: str, now: float) -> Session | None:
        """The session of a refresh token that is good at `now`, which it then no longer is.

        One that was spent before is counted, and ends its whole family: somebody else holds it, too
        (RFC 9700 section 4.14.2).
        """
        session = self._by_refresh.get(refresh)
        if session is None:
            return None
        if session.refresh == "used":
            self.reuses += 1
            self._end_family(session.family, now)
        if session.refresh != "good" or now >= session.refresh_expires_at:
            return None
        session.refresh = "used"
        return session

    def _end_family(self, family: int, now: float) -> None:
        for session in self._by_access.values():
            if session.family == family:
                session.expires_at = min(session.expires_at, now)
                if session.refresh == "good":
                    session.refresh = "revoked"

    def expire(self, now: float) -> int:
        """End all access tokens that are good at `now`, and say how many."""
        live = [session for session in self._by_access.values() if now < session.expires_at]
        for session in live:
            session.expires_at = now
        return len(live)

    def revoke_refresh(self) -> int:
        """Revoke all refresh tokens that are good, and say how many."""
        live = [session for session in self._by_refresh.values() if session.refresh == "good"]
        for session in live:
            session.refresh = "revoked"
        return len(live)
