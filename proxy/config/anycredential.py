"""What all credentials take, and how an upstream's answer says that a token is expired."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, model_validator

from proxy.config.clienttls import ClientTLS
from proxy.config.fields import (
    AllowedOrigin,
    Duration,
    HeaderName,
    HeaderValue,
    Places,
    Pointer,
    Scalar,
    Section,
    Statuses,
    TokenWord,
)
from proxy.config.secrets import SecretSource
from proxy.injection import Place
from proxy.lifecycle import DEFAULT_MARGIN
from proxy.redact import Borrowed


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

    #: Keys of a type that do not matter for which token is got, or whether one is.
    INCIDENTAL: ClassVar[frozenset[str]] = frozenset()

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

    def urls(self) -> dict[tuple[str | int, ...], str]:
        """Where its secrets are sent, by key path; nowhere, where nothing else is said."""
        return {}

    def digest(self) -> bytes:
        """A digest of all that a token is got with: what is corrected there makes it another one.

        Where the token goes, and what expiry looks like, is no part of it. What is borrowed counts with its present
        value. It is a fast hash over secrets: keep it in memory.
        """
        got_with = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name not in CommonCredential.model_fields and name not in self.INCIDENTAL
        }
        return digest_of(got_with)


def digest_of(value: Mapping[str, object]) -> bytes:
    """A fast hash of a part of a model, and of the secrets in it."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode("utf-8", "surrogateescape")).digest()


def _plain(value: object) -> Any:  # noqa: ANN401  JSON
    """A part of a model as JSON, its secrets revealed."""
    if isinstance(value, SecretSource):
        return (
            [value.value.lender, value.value.reveal()]
            if isinstance(value.value, Borrowed)
            else value.value.reveal()
        )
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


class AskingCredential(CommonCredential):
    """What those take besides that send secrets to a token endpoint."""

    tls: ClientTLS = Field(default_factory=ClientTLS.model_construct)
    """How the token endpoint is verified, and what it is shown."""
    insecure_http: bool = False
    """true: send secrets in plain http to something that is not loopback."""

    def logs_in_as(self) -> bytes:
        """A digest of who logs in, and where: credentials that share it are rejected together.

        As `digest`, unless a type can tell what does not matter for that.
        """
        return self.digest()
