"""What those who share a store may have done since one looked, and so what may be redeemed of what one holds.

Law: a refresh token that others have too, since it was read from the store or written there, is redeemed only in
one's turn, and with what is in the store before one's eyes (threats 88, 133). No I/O.
"""

from dataclasses import dataclass
from typing import Final

from proxy.errors import StoreUnavailable
from proxy.redact import Secret
from proxy.stores.base import Missing, Record

LOST: Final = (
    "the store has lost the token (a folder that was removed or is not mounted, a server that does not keep its "
    "data); what is in memory is stored again"
)
#: What mends a record that does not open, where nothing else can give a token.
_MENDS: Final = {
    Missing.OTHER_KEY: "What is stored for credential {name!r} is sealed with a key that is not here: add that key "
    "to store.key; or run `bearer-proxy login {name}`, where it is lost.",
    Missing.UNREADABLE: "What is stored for credential {name!r} does not open any more, and may have replaced what "
    "is in memory: restart with the configuration of all who share the store, or run `bearer-proxy login {name}`.",
}


@dataclass(slots=True)
class Sharing:
    """The view of one process on the record of the credential `name`.

    `inherits`: does the credential begin with what is in the store, or with a refresh token that may have been
    replaced there? `doubts`: may a write that failed have been done, as on a network?
    """

    name: str
    inherits: bool
    doubts: bool
    #: Was there a record that this process read or wrote, or may have written?
    was_there: bool = False
    #: Why there is no turn, where it is done without.
    without: StoreUnavailable | None = None
    #: Why it is not known what is in the store.
    blind: StoreUnavailable | None = None
    _refresh_token: Secret | None = None

    def knows(self, record: Record) -> None:
        """It is in the store, read or written."""
        self.was_there, self.blind, self._refresh_token = True, None, record.refresh_token

    def may_have(self) -> None:
        """A write failed, and may have been done all the same."""
        self.was_there |= self.doubts

    def misses(self, found: Missing) -> None:
        """There is no record of use; what does not open, and never did here, is none where the key is here."""
        is_closed = found is Missing.OTHER_KEY or (found is Missing.UNREADABLE and self.was_there)
        self.blind = StoreUnavailable(_MENDS[found].format(name=self.name)) if is_closed else None
        if found is Missing.LOGGED_OUT:
            self.was_there, self._refresh_token = False, None

    def has(self, last: Record | None) -> bool:
        """Would what is redeemed next, where `last` is held, be something that others have too?"""
        if last is None or last.refresh_token is None:
            return self.inherits
        return last.refresh_token == self._refresh_token or self.doubts

    def ends(self, last: Record, found: Missing) -> bool:
        """Is `found` later than `last`? A logout is, or what does not open, where a record was there before it."""
        if found is Missing.NOTHING or not self.was_there:
            return False
        return found is Missing.LOGGED_OUT or self.has(last)

    def withheld(self, last: Record | None) -> StoreUnavailable | None:
        """Why that must not be redeemed now: others may have done so, and replaced it. None: it may."""
        return (self.without or self.blind) if self.has(last) else None
