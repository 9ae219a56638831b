"""Sends one token request and reads its reply: what every grant of a token endpoint does."""

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from proxy.clock import Clock
from proxy.credentials.grant import Endpoint
from proxy.errors import CredentialUnavailable
from proxy.grants.login import ResponseRules, Step, build
from proxy.grants.oauth2 import OAuthError, error_of
from proxy.grants.reply import (
    InvalidReply,
    RejectedReply,
    Verdict,
    classify,
    date,
    is_from_between,
    read,
    retry_after,
)
from proxy.grants.request import Granted, TokenReply
from proxy.grants.undecided import is_undecided, rotated
from proxy.redact import Secret

log: Final = logging.getLogger("proxy.credentials")

_DOUBTFUL: Final = (
    "The token's own expiry and the lifetime in the reply differ by more than twice: is it another unit "
    "(response.lifetime_unit), or is a clock wrong?"
)

#: What a reply to a step means, and the code that the server gives for it, if it gives one.
Judge = Callable[[TokenReply, Step], tuple[Verdict, str]]


def by_status(reply: TokenReply, step: Step) -> tuple[Verdict, str]:
    """What the status alone says."""
    return classify(reply.status, step.accept), ""


def random_boundary() -> str:
    """What parts a multipart body."""
    return secrets.token_hex(16)


class Asking:
    """Asks for one credential, `name`.

    `register` is given every token as soon as it is read, before anything else happens to it (invariant 4).
    `hidden` are the secrets of the credential, which a server may quote where it says what is wrong.
    """

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        clock: Clock,
        register: Callable[[Iterable[Secret]], None],
        boundary: Callable[[], str] = random_boundary,
        judge: Judge = by_status,
        hidden: tuple[Secret, ...] = (),
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._clock = clock
        self._register = register
        self._boundary = boundary
        self._judge = judge
        self._hidden = hidden
        #: The lifetimes do not fit each other: said once, not with every token.
        self._doubted = False

    async def ask(
        self,
        step: Step,
        rules: ResponseRules,
        place: str,
        *,
        access_token: Secret | None = None,
        refresh_token: Secret | None = None,
        bearer: bool = False,
    ) -> Granted:
        """One request and its reply; `place` says in a sentence which. The tokens are those of the step before.

        Raises `RejectedReply`, `CredentialUnavailable`.
        """
        reply = await self.send(step, place, access_token=access_token, refresh_token=refresh_token, bearer=bearer)
        try:
            return self._judged(reply, step, rules, place)
        except (CredentialUnavailable, RejectedReply) as failure:
            sent = [token for token in (access_token, refresh_token) if token is not None]
            failure.said = tuple(self.error_of(reply, *sent).fields.items())
            if isinstance(failure, RejectedReply):
                failure.date = date(reply.headers)
            raise

    def tell_of_refusal(self, refusal: RejectedReply) -> None:
        """A refresh token was refused: it was over, or had been redeemed before."""
        log.warning("refresh_token_refused", extra={"fields": {"credential": self._name, **dict(refusal.said)}})

    def error_of(self, reply: TokenReply, *sent: Secret) -> OAuthError:
        """What the server says is wrong, without the secrets that it was sent."""
        return error_of(reply, (*self._hidden, *sent))

    def _judged(self, reply: TokenReply, step: Step, rules: ResponseRules, place: str) -> Granted:
        verdict, code = self._judge(reply, step)
        said = f", {code}" if code else ""
        if verdict == "accepted":
            return self.read(reply, rules, place)
        if verdict == "rejected" and is_from_between(reply):
            verdict = "transient"
        if verdict == "rejected":
            raise RejectedReply(f"The token endpoint answered that it rejects the request{said}.", code)
        failure = CredentialUnavailable(
            f"Credential {self._name!r}, {place}: the token endpoint answered with status {reply.status}{said}: "
            f"{_mend(reply.status)}."
        )
        if verdict == "transient":
            failure = CredentialUnavailable(
                f"Credential {self._name!r}, {place}: the token endpoint is not available now "
                f"(status {reply.status}{said}); it is asked again later.",
                retry_after=retry_after(reply.headers, self._clock.wall()),
            )
        if not is_undecided(reply):
            raise failure
        raise self._undecided(failure, rotated(reply, rules, now_wall=self._clock.wall()))

    def _undecided(self, failure: CredentialUnavailable, refresh_token: Secret | None) -> CredentialUnavailable:
        """`failure`, of a request that may have been done; `refresh_token` came with it."""
        failure.undecided, failure.rotated = True, refresh_token
        if refresh_token is not None:
            self._register([refresh_token])
        return failure

    async def send(
        self,
        step: Step,
        place: str,
        *,
        access_token: Secret | None = None,
        refresh_token: Secret | None = None,
        bearer: bool = False,
    ) -> TokenReply:
        """One request and what came back, whatever it means. Raises `CredentialUnavailable`."""
        request = build(
            step,
            access_token=access_token,
            refresh_token=refresh_token,
            boundary=self._boundary(),
            bearer=bearer,
        )
        try:
            return await self._endpoint.send(request)
        except CredentialUnavailable as error:
            named = CredentialUnavailable(f"Credential {self._name!r}, {place}: {error.detail}")
            named.undecided = error.undecided
            raise named from None

    def read(self, reply: TokenReply, rules: ResponseRules, place: str) -> Granted:
        """The token in an accepted reply. Raises `RejectedReply`, `CredentialUnavailable`."""
        try:
            granted = read(reply, rules, now_wall=self._clock.wall())
        except InvalidReply as error:
            useless = CredentialUnavailable(f"Credential {self._name!r}, {place}: {error}")
            raise self._undecided(useless, error.refresh_token) from None
        self._register([granted.token] + ([granted.refresh_token] if granted.refresh_token else []))
        if granted.contradicted is not None and not self._doubted:
            self._doubted = True
            fields = {"credential": self._name, "stated": granted.contradicted, "lifetime": granted.lifetime}
            log.warning("token_lifetime_doubtful", extra={"fields": {**fields, "detail": _DOUBTFUL}})
        return granted


def _mend(status: int) -> str:
    """What to change where a status says that the description does not fit the server."""
    if 300 <= status <= 399:
        return "redirects are not followed, since they would carry the secrets elsewhere; set the final address"
    return {
        404: "nothing is there; check its address, and the ids in it",
        405: "it does not take this method; check its address (of a login: the method)",
        415: "it does not take this encoding; of a login, check encoding",
    }.get(status, "that is no status that is taken here; check its address (of a login: fields and accept, too)")
