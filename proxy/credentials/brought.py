"""A refresh token that the configuration brings: a server that rotates takes it once, and it comes with each start.

Law: it is noted, durably, before it is redeemed, and again when another one came in its place, before anybody uses
that; then it is not redeemed any more, whatever becomes of the record that has the other one (threats 88, 90). A
record does not open any more where the credential, its upstreams or a key were changed.
"""

import logging
from contextlib import suppress
from typing import Final

from proxy.credentials.grant import AroundGrant, Grant
from proxy.errors import CredentialError, CredentialUnavailable, LoginRequired, StoreUnavailable
from proxy.grants.request import Granted
from proxy.redact import Secret
from proxy.stores.redeemed import Redeemed, Redemption

log: Final = logging.getLogger("proxy.credentials")


class BroughtGrant(AroundGrant):
    """`grant`, beginning with `brought`, the refresh token of the configuration; it does not know that by itself.

    `redeemed` remembers what became of it; None: nobody does. `is_sole`: it begins with nothing else.
    """

    def __init__(
        self, name: str, grant: Grant, brought: Secret, redeemed: Redeemed | None, *, is_sole: bool
    ) -> None:
        self._name = name
        super().__init__(grant)
        self._brought = brought
        self._redeemed = redeemed
        self._is_sole = is_sole

    async def obtain(
        self, refresh_token: Secret | None, token: Secret | None = None, barred: str | None = None
    ) -> Granted:
        """By the refresh token that came last, else by the one of the configuration, else as the grant begins.

        Raises what the grant raises, and `StoreUnavailable`.
        """
        if refresh_token not in (None, self._brought):
            return await self._grant.obtain(refresh_token, token, barred)
        if self._redeemed is None:
            return await self._grant.obtain(self._brought, token, barred)
        is_open, is_ours = await self._begun(self._redeemed, barred, is_told=refresh_token is not None)
        if not is_open:
            return await self._grant.obtain(None, token, barred)
        try:
            granted = await self._grant.obtain(self._brought, token, barred)
        except CredentialError as error:
            is_undecided = isinstance(error, CredentialUnavailable) and error.undecided
            await self._ended(self._redeemed, getattr(error, "rotated", None), is_ours=is_ours and not is_undecided)
            raise
        await self._ended(self._redeemed, granted.refresh_token, is_ours=True)
        return granted

    async def _begun(self, redeemed: Redeemed, barred: str | None, *, is_told: bool) -> tuple[bool, bool]:
        """May it be redeemed now, and was it this process that noted that? Raises as `obtain` does."""
        can_begin = self._grant.begins_anew and barred is None
        try:
            state = await redeemed.state()
            if state is None:
                await redeemed.note(Redemption.BEGUN)
                # Whoever stood still here for longer than its turn finds what another one has noted meanwhile.
                state = await redeemed.state()
                if state is not Redemption.SPENT:
                    return True, True
        except StoreUnavailable as error:
            if can_begin:
                return False, False
            if not error.for_all:
                raise
            return True, False
        if state is Redemption.SPENT:
            if self._is_sole:
                raise self._spent()
            return False, False
        if not is_told:
            log.warning("token_rotation_lost", extra={"fields": {"credential": self._name, "anew": can_begin}})
        return not can_begin, False

    async def _ended(self, redeemed: Redeemed, came: Secret | None, *, is_ours: bool) -> None:
        """`came` is the refresh token of the answer. What cannot be noted now stays begun, which is told later."""
        with suppress(StoreUnavailable):
            if came not in (None, self._brought):
                await redeemed.note(Redemption.SPENT)
            elif is_ours:
                await redeemed.forget()

    def _spent(self) -> LoginRequired:
        return LoginRequired(
            f"The refresh_token of credential {self._name!r} was redeemed before, and what came in its place "
            "cannot be read here: take back what was changed of the credential, its upstreams or the store, or "
            "give it a new refresh_token."
        )
