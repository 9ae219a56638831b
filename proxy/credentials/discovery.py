"""Finds an authorization server's endpoints from its issuer (RFC 8414, OpenID Connect Discovery 1.0)."""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from proxy.config import addresses
from proxy.credentials.grant import Endpoint
from proxy.errors import CredentialUnavailable
from proxy.grants.reply import BODY_LIMIT
from proxy.grants.request import TokenRequest

_HEADERS: Final = (("Accept", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "bearer-proxy"))


def locations(issuer: str) -> tuple[str, str]:
    """Where the metadata may be: as OpenID Connect has it, then as RFC 8414 section 3.1 has it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
    )


class Discovery:
    """Asks `issuer` once, and remembers what it said.

    `secure`: an endpoint in plain HTTP is refused, unless it is on this machine. `mutual`: the client shows a
    certificate, for which a server may have endpoints of their own (RFC 8705 section 5).
    """

    def __init__(self, name: str, issuer: str, endpoint: Endpoint, *, secure: bool, mutual: bool = False) -> None:
        self._name = name
        self._issuer = issuer
        self._endpoint = endpoint
        self._secure = secure
        self._mutual = mutual
        self._found: dict[str, str | bool] | None = None

    async def url(self, member: str) -> str:
        """An endpoint by the name of its member in the metadata. Raises `CredentialUnavailable`."""
        url = await self.find(member)
        if url is None:
            raise self._failed(f"its metadata has no {member}; name the endpoint in the configuration")
        return url

    async def find(self, member: str) -> str | None:
        """The same; None where the metadata has no such member. Raises `CredentialUnavailable`."""
        url = (await self._metadata()).get(member)
        if not isinstance(url, str):
            return None
        # It may be shown at a terminal, and opened in a browser.
        try:
            origin, _ = addresses.url(url, query=True)
        except ValueError:
            raise self._failed(f"its {member} is no URL that can be used") from None
        if self._secure and origin.scheme == "http" and not addresses.is_loopback(origin.host):
            raise self._failed(f"its {member} is not https")
        return url

    async def names_itself(self) -> bool:
        """Does the server promise to name itself in each authorization answer (RFC 9207 section 3)?"""
        return (await self._metadata()).get("authorization_response_iss_parameter_supported") is True

    @property
    def issuer(self) -> str:
        """Whom it asks."""
        return self._issuer

    async def _metadata(self) -> dict[str, str | bool]:
        if self._found is None:
            self._found = await self._ask()
        return self._found

    async def _ask(self) -> dict[str, str | bool]:
        for location in locations(self._issuer):
            try:
                reply = await self._endpoint.send(TokenRequest("GET", location, _HEADERS, None))
            except CredentialUnavailable as error:
                raise CredentialUnavailable(f"Credential {self._name!r}, issuer: {error.detail}") from None
            if reply.status == 404:
                continue
            if reply.status != 200 or len(reply.body) > BODY_LIMIT:
                raise self._failed(f"its metadata cannot be had (status {reply.status})")
            try:
                document = json.loads(reply.body)
            except (ValueError, RecursionError):
                document = None
            # RFC 8414 section 3.3: or one server could speak for another.
            if not isinstance(document, dict) or document.get("issuer") != self._issuer:
                raise self._failed("its metadata is no JSON, or names another issuer; write the issuer as it does")
            aliases = document.get("mtls_endpoint_aliases") if self._mutual else None
            members = {**document, **(aliases if isinstance(aliases, dict) else {})}
            return {key: value for key, value in members.items() if isinstance(value, str | bool)}
        raise self._failed("it has no metadata; name token_url in the configuration")

    def _failed(self, reason: str) -> CredentialUnavailable:
        return CredentialUnavailable(f"Credential {self._name!r}, issuer: {reason}.")


class Endpoints:
    """Where a server is asked for what: as the configuration says, else as its metadata does.

    `known` are URLs by the names that they have in metadata.
    """

    def __init__(self, name: str, known: Mapping[str, str], discovery: Discovery | None) -> None:
        self._name = name
        self._known = known
        self._discovery = discovery

    async def url(self, member: str) -> str:
        """One that is needed. Raises `CredentialUnavailable`."""
        if member in self._known:
            return self._known[member]
        if self._discovery is None:
            raise CredentialUnavailable(
                f"Credential {self._name!r}: no {member} is known; name the issuer, or the endpoint itself."
            )
        return await self._discovery.url(member)

    async def find(self, member: str) -> str | None:
        """One that need not be there. Raises `CredentialUnavailable` where the metadata cannot be had."""
        if member in self._known:
            return self._known[member]
        return None if self._discovery is None else await self._discovery.find(member)

    async def issuer(self) -> tuple[str | None, bool]:
        """The server's own name where it is known, and whether it promises to give it in each answer (RFC 9207)."""
        if self._discovery is None:
            return None, False
        return self._discovery.issuer, await self._discovery.names_itself()
