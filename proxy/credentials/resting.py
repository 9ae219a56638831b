"""A token as it rests in a store, and which one counts where memory and the store have different ones: pure.

Instants at rest are on the clock that the store goes by, those of tokens on the clock of the process.
"""

from dataclasses import replace
from typing import Final

from proxy.grants.expiry import LONGEST_LIFETIME
from proxy.lifecycle import Token
from proxy.stores.base import Record

#: Clocks of machines that share a store differ, but not by more than this.
SKEW_SECONDS: Final = 300.0


def counting(mine: Record | None, saved: Record | None, found: Record | None) -> Record | None:
    """The one that counts: `mine` in memory, what of that was last `saved`, or what was `found` in the store.

    1. There is one at most, or no difference.
    2. Nobody wrote since: what could not be saved is later than what is there, whatever the clocks say.
    3. Of two tokens the later one; where both are, or none, that of somebody else. What took the place of one that
       was saved at the same tick of a clock is of a login that knew no number.
    4. Of one token what somebody else wrote since it was saved here.
    5. What could not be saved, unless somebody else has noted that they redeem its refresh token, or has one that
       was neither here nor there: who has that redeemed ours, from a write that seemed to fail and was done.
    """
    if mine is None or mine == found:
        return found
    if found is None or found == saved:
        return mine
    if not is_one(found, mine):
        is_mine = is_later(mine, found) and not is_later(found, mine)
        return mine if is_mine and (mine != saved or mine.obtained_at > found.obtained_at) else found
    if mine == saved:
        return found
    if mine.refresh_token == found.refresh_token:
        return found if found.redeeming else mine
    return mine if saved is not None and saved.refresh_token == found.refresh_token else found


def is_one(record: Record, other: Record) -> bool:
    """Are they of one token? Its times differ by what a clock was set meanwhile, and its refresh token may."""
    return record.generation == other.generation and record.token == other.token


def is_later(record: Record, than: Record) -> bool:
    """By number, or by time: who logs in anew may not have known the number, and begins at one."""
    return record.generation > than.generation or record.obtained_at > than.obtained_at


def rotated(last: Record, held: Token) -> Token | None:
    """`held` with the refresh token that `last` has in place of its own, without another token; else None."""
    if last.token != held.value or last.refresh_token in (None, held.refresh_token):
        return None
    return replace(held, refresh_token=last.refresh_token)


def record_of(token: Token, ahead: float) -> Record:
    """The token as it rests; the store's clock is `ahead` of this process's."""
    return Record(
        token.generation,
        token.value,
        token.obtained_at + ahead,
        None if token.expires_at is None else token.expires_at + ahead,
        token.refresh_token,
        None if token.refresh_expires_at is None else token.refresh_expires_at + ahead,
    )


def token_of(record: Record, ahead: float, now: float, since: float | None = None) -> Token:
    """The record on this process's clock, of which the store's is `ahead`; it was not there yet at `since`.

    Where its times cannot be (got in the future, good for longer than anything is) a clock was wrong, then or now
    (threat 95). It counts as over, which costs one refresh, unless it came since an earlier look: then its lifetime
    counts from that. Else two whose clocks differ would each refresh what the other got, at each look.
    """
    expires_at = None if record.expires_at is None else record.expires_at - ahead
    obtained_at = record.obtained_at - ahead
    lifetime = None if expires_at is None else expires_at - obtained_at
    is_too_long = lifetime is not None and lifetime > LONGEST_LIFETIME + SKEW_SECONDS
    if obtained_at > now + SKEW_SECONDS and since is not None and lifetime is not None and not is_too_long:
        obtained_at, expires_at = since, since + lifetime
    elif obtained_at > now + SKEW_SECONDS or is_too_long:
        expires_at = now
    return Token(
        record.token,
        record.generation,
        min(obtained_at, now),
        expires_at,
        record.refresh_token,
        None if record.refresh_expires_at is None else record.refresh_expires_at - ahead,
    )
