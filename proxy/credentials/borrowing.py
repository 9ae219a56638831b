"""What stands on the tokens of other credentials: Vault's login with a Kubernetes token, two-stage vendors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.credentials.credential import Report, Source
from proxy.credentials.grant import AroundGrant, Grant
from proxy.errors import CredentialError, CredentialRejected, CredentialUnavailable
from proxy.grants.request import Granted
from proxy.lifecycle import Token
from proxy.redact import Borrowed, Secret

#: What was rejected may be taken with the lender's next token: it is tried again after so many seconds, at least.
AGAIN_SECONDS: Final = 60.0


class LentSource:
    """The source of another credential, `lender`, for a second place: the same tokens under another name.

    `fits`: can a token be sent in that place?
    """

    def __init__(self, name: str, lender: Callable[[], Source], *, fits: Callable[[str], bool]) -> None:
        self._name = name
        self._lender = lender
        self._fits = fits

    async def token(self, wait: float) -> Token:
        """The lender's token. Raises what the lender raises, and `CredentialUnavailable` where it does not fit."""
        token = await self._lender().token(wait)
        if not self._fits(token.value.reveal()):
            raise CredentialUnavailable(
                f"The token that {self._name!r} borrows holds characters that cannot be sent in its place."
            )
        return token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:
        """The lender's, where it fits."""
        token = await self._lender().newer_than(refused, wait=wait, ask=ask)
        return token if token is not None and self._fits(token.value.reveal()) else None

    async def refresh(self, wait: float) -> None:
        """Refresh the lender's. Raises what the lender raises."""
        await self._lender().refresh(wait)

    def report(self) -> Report:
        """The lender's state."""
        return replace(self._lender().report(), name=self._name)

    @property
    def problem(self) -> CredentialError | None:
        """The lender's."""
        return self._lender().problem

    async def close(self, wait: float) -> None:
        """Nothing to end: the lender ends by itself."""


class BorrowingGrant(AroundGrant):
    """Lends before each attempt what `grant` borrows; where that is rejected, the lenders may have newer ones.

    `sources` gives the lender's tokens by its name, `wait` is how many seconds each may take.
    """

    def __init__(
        self, grant: Grant, borrowed: tuple[Borrowed, ...], sources: Callable[[str], Source], *, wait: float
    ) -> None:
        super().__init__(grant)
        self._borrowed = borrowed
        self._sources = sources
        self._wait = wait

    async def obtain(
        self, refresh_token: Secret | None, token: Secret | None = None, barred: str | None = None
    ) -> Granted:
        """Obtain with the lenders' tokens of now. Raises what the grant raises, and what a lender does."""
        lent = {each.lender: await self._lent(each) for each in self._borrowed}
        try:
            return await self._grant.obtain(refresh_token, token, barred)
        except CredentialRejected as error:
            refusal = error
        if barred is not None or not await self._renewed(lent):
            raise CredentialRejected(refusal.detail, retry_after=AGAIN_SECONDS, said=refusal.said)
        try:
            return await self._grant.obtain(None, None)
        except CredentialRejected as error:
            raise CredentialRejected(error.detail, retry_after=AGAIN_SECONDS, said=error.said) from None

    async def _lent(self, borrowed: Borrowed) -> Token:
        """The lender's token. What keeps the lender from one is no fault of this credential, and may pass."""
        try:
            token = await self._sources(borrowed.lender).token(self._wait)
        except CredentialError as error:
            failure = type(error)(error.detail, retry_after=error.retry_after, said=error.said)
            failure.is_lenders = True
            raise failure from None
        borrowed.lend(token.value)
        return token

    async def _renewed(self, refused: dict[str, Token]) -> bool:
        """Lend newer tokens; False where there are none."""
        renewed = False
        for each in self._borrowed:
            newer = await self._sources(each.lender).newer_than(refused[each.lender], wait=self._wait, ask=True)
            if newer is not None:
                each.lend(newer.value)
                renewed = True
        return renewed
