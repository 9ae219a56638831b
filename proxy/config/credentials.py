"""The models of credentials: what each type holds, and the login description that follows from it."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.anycredential import AskingCredential, CommonCredential, digest_of
from proxy.config.fields import (
    Duration,
    ExpiryPointer,
    LoginFields,
    LoginHeaders,
    LoginValue,
    Method,
    Pointer,
    Scalar,
    SecretField,
    Section,
    Status,
    TokenPointer,
    TokenURL,
)
from proxy.config.oauth import OAuthCredential
from proxy.config.provided import ExecCredential, FileCredential, MetadataCredential
from proxy.config.secrets import SecretSource
from proxy.config.selfsigned import GitHubAppCredential, JWTCredential
from proxy.grants.login import LoginDescription, ResponseRules, Step, Value

#: A token of a static credential goes out as it is: printable ASCII, no spaces at its ends.
_SENDABLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _sendable(source: SecretSource) -> SecretSource:
    if source.kind != "credential" and not _SENDABLE.fullmatch(source.value.reveal()):
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


class LoginCredential(AskingCredential):
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

    def steps(self) -> dict[tuple[str | int, ...], StepConfig]:
        """Every step by its key path."""
        found: dict[tuple[str | int, ...], StepConfig] = {("login",): self.login}
        if self.refresh is not None:
            found["refresh",] = self.refresh
        return found | {("then", index): step for index, step in enumerate(self.then)}

    def urls(self) -> dict[tuple[str | int, ...], str]:
        """Every step's."""
        return {(*path, "url"): step.url for path, step in self.steps().items()}

    def logs_in_as(self) -> bytes:
        """Whoever logs in with the same texts and secrets; a number says which account of theirs is meant.

        With steps behind the login a rejection may be one of those, so that it says nothing of others.
        """
        if self.then:
            return self.digest()
        given = (self.login.fields, self.login.headers)
        texts = [
            {name: each for name, each in some.items() if isinstance(each, str | SecretSource)} for some in given
        ]
        return digest_of({"url": self.login.url, "texts": texts})

    def description(self) -> LoginDescription:
        """The login as the grant takes it."""
        return LoginDescription(
            login=self.login.step(),
            response=self.response.rules(),
            refresh=None if self.refresh is None else self.refresh.step(),
            then=tuple(step.step() for step in self.then),
        )


CredentialConfig = Annotated[
    StaticCredential
    | LoginCredential
    | OAuthCredential
    | FileCredential
    | ExecCredential
    | MetadataCredential
    | GitHubAppCredential
    | JWTCredential,
    Field(discriminator="type"),
]
#: The models by the word in `type`.
TYPES: Final[Mapping[str, type[CommonCredential]]] = {
    "static": StaticCredential,
    "login": LoginCredential,
    "oauth2": OAuthCredential,
    "file": FileCredential,
    "exec": ExecCredential,
    "metadata": MetadataCredential,
    "github_app": GitHubAppCredential,
    "jwt": JWTCredential,
}
