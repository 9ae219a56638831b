"""Which token counts where memory and the store have different ones, as a table."""

from dataclasses import replace
from typing import Final

import pytest

from proxy.credentials.resting import counting
from proxy.redact import Secret
from proxy.stores.base import Record

FOUR: Final = Record(4, Secret("t4"), 400.0, 4000.0, Secret("r4"))
NOTED: Final = replace(FOUR, redeeming=True)
#: The reply had a new refresh token and no token of use; somebody set a clock meanwhile.
ROTATED: Final = replace(FOUR, refresh_token=Secret("r4b"), obtained_at=399.5)
ELSEWHERE: Final = replace(FOUR, refresh_token=Secret("r4c"), obtained_at=400.5)
FIVE: Final = Record(5, Secret("t5"), 500.0, 5000.0, Secret("r5"))
#: Somebody set the clock back by a year before it was got.
BEFORE: Final = replace(FIVE, obtained_at=-3e7)
#: Its number is higher, and its time is before.
SIX: Final = replace(FIVE, generation=6, token=Secret("t6"), obtained_at=450.0)
#: Somebody logged out and in again between two ticks of a clock.
TWIN: Final = replace(FOUR, token=Secret("t4b"), refresh_token=Secret("r4d"))
#: Logins that knew no number.
NOW: Final = Record(1, Secret("t1"), 500.0, 5000.0, Secret("r1"))
ANEW: Final = Record(1, Secret("t1"), 600.0, 6000.0, Secret("r1"))

#: In memory, what of it is saved, in the store; and the one that counts.
TABLE: Final[dict[str, tuple[Record | None, Record | None, Record | None, Record | None]]] = {
    "there is none": (None, None, None, None),
    "memory has none": (None, None, FOUR, FOUR),
    "the store has none that opens": (FOUR, FOUR, None, FOUR),
    "the store has what could not be saved": (FIVE, FOUR, replace(FIVE), FIVE),
    "the store has a later one": (FOUR, FOUR, FIVE, FIVE),
    "the store has a later one than what could not be saved": (NOTED, FOUR, FIVE, FIVE),
    "the store has a login anew": (FIVE, FIVE, ANEW, ANEW),
    "the store has one of the same number and time": (FOUR, FOUR, TWIN, TWIN),
    "both are later": (FIVE, FIVE, SIX, SIX),
    "the store has a login anew at the same time": (FIVE, FIVE, NOW, NOW),
    "what could not be saved is of the same time": (FIVE, FOUR, NOW, FIVE),
    "the store has an older one": (FIVE, FIVE, FOUR, FIVE),
    "what could not be saved is later": (FIVE, FOUR, FOUR, FIVE),
    "what could not be saved is later, whatever the clocks say": (BEFORE, FOUR, FOUR, BEFORE),
    "nothing was ever saved": (FIVE, None, FOUR, FIVE),
    "somebody noted": (FOUR, FOUR, NOTED, NOTED),
    "somebody settled": (NOTED, NOTED, FOUR, FOUR),
    "somebody has redeemed it": (FOUR, FOUR, ROTATED, ROTATED),
    "somebody has redeemed it, by another clock": (FOUR, FOUR, ELSEWHERE, ELSEWHERE),
    "a note that could not be saved": (NOTED, FOUR, FOUR, NOTED),
    "a note that could not be saved, and nothing was": (NOTED, None, FOUR, NOTED),
    "a new refresh token that could not be saved": (ROTATED, FOUR, FOUR, ROTATED),
    "a new refresh token that could not be saved, behind a note": (ROTATED, NOTED, NOTED, ROTATED),
    "a new refresh token that could not be saved, and somebody noted": (ROTATED, FOUR, NOTED, ROTATED),
    "a note that could not be saved, and somebody has redeemed it": (NOTED, FOUR, ROTATED, ROTATED),
    "two refresh tokens in its place": (ROTATED, FOUR, ELSEWHERE, ELSEWHERE),
    "it was saved all the same, and somebody noted": (FOUR, BEFORE, NOTED, NOTED),
    "it was saved all the same, and somebody has redeemed it": (FOUR, BEFORE, ROTATED, ROTATED),
    "it was lost, and somebody who had redeemed it has stored that": (NOTED, None, ROTATED, ROTATED),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_record_that_counts(case: str) -> None:
    """Whoever decides wrongly here redeems a refresh token twice, or loses one (threats 88, 91)."""
    mine, saved, found, counts = TABLE[case]
    assert counting(mine, saved, found) == counts


@pytest.mark.parametrize("case", TABLE)
def test_what_counted_counts_again(case: str) -> None:
    """A second look changes nothing."""
    _mine, saved, found, counts = TABLE[case]
    again = counts if counts == found else saved
    assert counting(counts, again, found) == counts
