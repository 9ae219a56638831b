"""Obtains tokens from any "post credentials, get a token" API, as its description says."""

from dataclasses import replace

from proxy.credentials.asking import Asking, random_boundary
from proxy.errors import ConfigError, CredentialRejected
from proxy.grants.login import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    LoginDescription,
    Step,
    build,
    references,
)
from proxy.grants.reply import RejectedReply
from proxy.grants.request import Granted
from proxy.redact import Secret


class LoginGrant:
    """The `login` grant: log in, take the steps after it; refresh where the API can.

    Raises `ConfigError` at once if a request of the description cannot be built.
    """

    def __init__(self, *, name: str, description: LoginDescription, asking: Asking) -> None:
        self._name = name
        self._description = description
        self._asking = asking
        _check(name, description)

    @property
    def begins_anew(self) -> bool:
        """It always does."""
        return True

    def can_refresh(self, refresh_token: Secret | None, token: Secret | None) -> bool:
        """Where there is a step for that, and all that it sends: a refresh token, or the access token itself."""
        step = self._description.refresh
        at_hand = {ACCESS_TOKEN: token, REFRESH_TOKEN: refresh_token}
        return step is not None and all(at_hand[reference] is not None for reference in references(step))

    async def obtain(
        self, refresh_token: Secret | None, token: Secret | None = None, barred: str | None = None
    ) -> Granted:
        """Refresh if there is something to refresh with, else (or if that is rejected) log in.

        A refresh that ends in anything but an answer is not followed by a login: it may have been redeemed, and a
        password is not for bridging an outage. Raises `CredentialRejected`, `CredentialUnavailable`.
        """
        granted = await self._refresh(refresh_token, token)
        if granted is None and barred is not None:
            raise CredentialRejected(barred)
        return granted or await self._log_in()

    async def _refresh(self, refresh_token: Secret | None, token: Secret | None) -> Granted | None:
        """A refreshed token; None if that is not possible, or is rejected."""
        step = self._description.refresh
        if step is None or not self.can_refresh(refresh_token, token):
            return None
        try:
            granted = await self._asking.ask(
                step, self._description.response, "refresh", access_token=token, refresh_token=refresh_token
            )
        except RejectedReply as error:
            self._asking.tell_of_refusal(error)
            return None
        return _keeping(refresh_token, granted)

    async def _log_in(self) -> Granted:
        """Log in and take the steps after it, each with the tokens of the one before."""
        place = "login"
        try:
            granted = await self._asking.ask(self._description.login, self._description.response, place)
            for count, step in enumerate(self._description.then, start=1):
                place = f"step {count} after login"
                latest = await self._asking.ask(
                    step,
                    self._description.response,
                    place,
                    access_token=granted.token,
                    refresh_token=granted.refresh_token,
                    bearer=True,
                )
                if latest.refresh_token is None:
                    latest = replace(latest, refresh_lifetime=granted.refresh_lifetime)
                granted = _keeping(granted.refresh_token, latest)
        except RejectedReply as error:
            raise CredentialRejected(
                f"The token endpoint rejects the credential {self._name!r} ({place}): "
                f"change the secret and restart, or run `bearer-proxy token {self._name} --refresh`.",
                said=error.said,
            ) from None
        return granted


def _keeping(refresh_token: Secret | None, granted: Granted) -> Granted:
    """A reply without a refresh token leaves the earlier one in use (RFC 6749 section 6)."""
    return granted if granted.refresh_token is not None else replace(granted, refresh_token=refresh_token)


def _check(name: str, description: LoginDescription) -> None:
    """Build every request once, so that what cannot be sent is found at the start and not at the first expiry."""
    sample = Secret("sample")
    refresh = () if description.refresh is None else (description.refresh,)
    problems = []
    for step in (*refresh, *description.then):
        problems += _problems(step, sample)
    problems += _problems(description.login, None)
    if description.refresh is not None and not references(description.refresh):
        problems.append("The refresh step sends neither $refresh_token nor $access_token; put one into its fields.")
    if problems:
        raise ConfigError([f"Credential {name!r}: {problem}" for problem in problems])


def _problems(step: Step, token: Secret | None) -> list[str]:
    try:
        build(step, access_token=token, refresh_token=token, boundary=random_boundary(), bearer=True)
    except ConfigError as error:
        return error.problems
    return []
