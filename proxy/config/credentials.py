"""The models of credentials: what each type holds, and the login description that follows from it."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.config.fields import (
    AllowedOrigin,
    Duration,
    ExpiryPointer,
    HeaderName,
    HeaderValue,
    LoginFields,
    LoginHeaders,
    LoginValue,
    Method,
    Places,
    Pointer,
    Scalar,
    SecretField,
    Section,
    Status,
    Statuses,
    TokenPointer,
    TokenURL,
    TokenWord,
)
from proxy.config.secrets import SecretSource
from proxy.grants.login import LoginDescription, ResponseRules, Step, Value
from proxy.injection import Place
from proxy.lifecycle import DEFAULT_MARGIN

#: A token of a static credential goes out as it is: printable ASCII, no spaces at its ends.
_SENDABLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class UnlessConfig(Section):
    """What makes a rule of `expired` not hold."""

    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Header name: case-insensitive glob on the whole value."""


class ExpiredRuleConfig(Section):
    """One way in which an upstream answer says that the token is expired; all that is given must hold."""

    statuses: Statuses = None
    """Statuses, or the word any; absent: the route's refresh_on."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Header name: case-insensitive glob on the whole value."""
    body: dict[Pointer, Scalar] = Field(default_factory=dict)
    """JSON pointer: value."""
    unless: UnlessConfig = Field(default_factory=UnlessConfig.model_construct)
    """Wins over the rest."""

    @model_validator(mode="after")
    def _not_everything(self) -> Self:
        if self.statuses == "any" and not self.headers and not self.body:
            raise ValueError(
                "this rule takes every answer for an expired token: add headers or body, or name statuses"
            )
        return self


class CommonCredential(Section):
    """What all credentials take."""

    place: Places = (Place("header", "Authorization", "Bearer"),)
    """Where the token goes: {header: NAME, scheme: WORD}, {query: NAME}, {cookie: NAME}, or a list of them."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Constants sent along, such as X-GitHub-Api-Version."""
    margin: Duration = DEFAULT_MARGIN
    """Refresh this long before the expiry; never more than a tenth of the lifetime."""
    origins: tuple[AllowedOrigin, ...] = ()
    """Further origins that may get this token."""
    expired: tuple[ExpiredRuleConfig, ...] | None = None
    """What expiry looks like on an upstream answer; one of the rules must hold."""
    strip_query: tuple[TokenWord, ...] = ()
    """Query parameters of the client that are never forwarded with this credential."""
    strip_headers: tuple[HeaderName, ...] = ()
    """Headers of the client that are never forwarded with this credential."""


def _sendable(source: SecretSource) -> SecretSource:
    if not _SENDABLE.fullmatch(source.value.reveal()):
        raise ValueError(
            "the token holds line breaks, spaces at its ends or characters beyond ASCII: correct it there"
        )
    return source


class StaticCredential(CommonCredential):
    """A token that somebody made by hand and that the proxy cannot renew."""

    type: Literal["static"]
    """static: a fixed token."""
    token: Annotated[SecretField, AfterValidator(_sendable)]
    """The token."""
    expires: Literal["jwt", "vanilla"] | None = None
    """How to read the expiry that the token itself carries."""


class StepConfig(Section):
    """One request of a login."""

    url: TokenURL
    """Where it is sent."""
    method: Method = "POST"
    """The request method."""
    encoding: Literal["form", "json", "multipart", "query"] = "form"
    """How the fields are sent."""
    fields: LoginFields = Field(default_factory=dict)
    """Name: text, number, reference to a secret, or the words $access_token and $refresh_token."""
    headers: LoginHeaders = Field(default_factory=dict)
    """Further headers; values as in fields."""
    accept: tuple[Status, ...] = (200,)
    """Statuses that mean success."""

    def step(self) -> Step:
        """The request as the grant builds it."""
        return Step(
            url=self.url,
            method=self.method,
            encoding=self.encoding,
            fields=_values(self.fields),
            headers=_values(self.headers),
            accept=self.accept,
        )

    def uses(self, substitute: str) -> bool:
        """Does a field or header hold this word, `$access_token` or `$refresh_token`?"""
        return substitute in [*self.fields.values(), *self.headers.values()]


def _values(given: Mapping[str, LoginValue]) -> dict[str, Value]:
    return {name: each.value if isinstance(each, SecretSource) else each for name, each in given.items()}


class ResponseConfig(Section):
    """Where the parts of a token reply stand."""

    token: TokenPointer = "/access_token"  # noqa: S105  a JSON pointer, no secret
    """The access token: JSON pointer, header:NAME or text."""
    refresh_token: TokenPointer | None = None
    """The refresh token, where there is one."""
    lifetime: Pointer | None = None
    """How long the token is good."""
    lifetime_unit: Literal["seconds", "milliseconds", "minutes"] = "seconds"
    """The unit of lifetime."""
    expires: ExpiryPointer | None = None
    """When the token ends; used only where no lifetime is given. A JSON pointer, or the words jwt and vanilla."""
    default_lifetime: Duration | None = None
    """The lifetime where the answer says nothing."""
    refresh_expires: Pointer | None = None
    """When the refresh token ends."""
    success: dict[Pointer, Scalar] = Field(default_factory=dict)
    """JSON pointer: value that must hold, else the login failed."""

    def rules(self) -> ResponseRules:
        """The same for the grant."""
        return ResponseRules(**{name: getattr(self, name) for name in type(self).model_fields})


class LoginCredential(CommonCredential):
    """Any "post credentials, get a token" API."""

    type: Literal["login"]
    """login: post credentials, get a token."""
    login: StepConfig
    """The request that logs in."""
    refresh: StepConfig | None = None
    """The request that refreshes; absent: log in again."""
    then: tuple[StepConfig, ...] = ()
    """Further steps after login, each with the bearer of the step before."""
    response: ResponseConfig = Field(default_factory=ResponseConfig.model_construct)
    """Where the parts of the reply stand."""
    insecure_http: bool = False
    """true: send passwords in plain http to something that is not loopback."""

    def steps(self) -> dict[tuple[str | int, ...], StepConfig]:
        """Every step by its key path."""
        found: dict[tuple[str | int, ...], StepConfig] = {("login",): self.login}
        if self.refresh is not None:
            found["refresh",] = self.refresh
        return found | {("then", index): step for index, step in enumerate(self.then)}

    def description(self) -> LoginDescription:
        """The login as the grant takes it."""
        return LoginDescription(
            login=self.login.step(),
            response=self.response.rules(),
            refresh=None if self.refresh is None else self.refresh.step(),
            then=tuple(step.step() for step in self.then),
        )


CredentialConfig = Annotated[StaticCredential | LoginCredential, Field(discriminator="type")]
