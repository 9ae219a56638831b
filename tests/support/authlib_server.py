"""An authorization server of Authlib and Flask, over TLS on loopback: another one that nobody here wrote.

Its tokens are canaries. Law: Authlib and Werkzeug log requests; that stays out of the product's log.
"""

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
import trustme
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import (
    ClientCredentialsGrant,
    RefreshTokenGrant,
    ResourceOwnerPasswordCredentialsGrant,
)
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, Response, jsonify
from joserfc import jwk
from werkzeug.serving import WSGIRequestHandler, make_server

#: Every way of Authlib, tried in this order; the third stands for both kinds of assertion.
METHODS: Final = ["client_secret_basic", "client_secret_post", "client_assertion_jwt", "none"]
LIFETIME: Final = 3600
SCOPES: Final = {"read", "write"}


@dataclass
class Client(ClientMixin):
    """A registered client; `key` is what its assertions are verified with."""

    client_id: str
    method: str
    grants: tuple[str, ...]
    secret: str = ""
    key: jwk.Key | None = None

    def get_client_id(self) -> str:
        """Its identifier."""
        return self.client_id

    def get_allowed_scope(self, scope: Any) -> str:
        """What it may have of what it asks for."""
        return " ".join(word for word in (scope or "").split() if word in SCOPES)

    def check_client_secret(self, client_secret: str) -> bool:
        """Is it this one?"""
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002  Authlib's contract
        """May it authenticate in this way?"""
        return method == self.method

    def check_grant_type(self, grant_type: str) -> bool:
        """May it use this grant?"""
        return grant_type in self.grants


@dataclass
class Issued(TokenMixin):
    """An issued token; its user is a name."""

    access_token: str
    refresh_token: str | None
    client: Client
    scope: str
    user: str | None
    is_dead: bool = False

    def check_client(self, client: Client) -> bool:
        """Was it issued to this one?"""
        return client.client_id == self.client.client_id

    def get_scope(self) -> str:
        """What it is good for."""
        return self.scope

    def get_expires_in(self) -> int:
        """Seconds."""
        return LIFETIME

    def is_expired(self) -> bool:
        """No test takes so long."""
        return False

    def is_revoked(self) -> bool:
        """By anybody."""
        return self.is_dead


@dataclass
class Records:
    """What the server knows, and what it was asked for."""

    clients: Mapping[str, Client]
    users: Mapping[str, str]
    mint: Callable[[], str]
    url: str = ""
    issued: list[Issued] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def find(self, value: str) -> Issued | None:
        """By access or refresh token."""
        return next((each for each in self.issued if value in (each.access_token, each.refresh_token)), None)

    def save(self, token: Mapping[str, Any], request: Any) -> None:
        """Keep an issued one."""
        self.issued.append(
            Issued(
                token["access_token"],
                token.get("refresh_token"),
                request.client,
                token.get("scope", ""),
                request.user,
            )
        )

    def is_new(self, identifier: str) -> bool:
        """Was no assertion with this identifier here before?"""
        is_new = identifier not in self.used
        self.used.add(identifier)
        return is_new


def _server(records: Records) -> Flask:  # noqa: C901  one class for each grant and endpoint
    """The server as Authlib's documentation builds one."""

    class Credentials(ClientCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    class Password(ResourceOwnerPasswordCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS

        def authenticate_user(self, username: str, password: str) -> str | None:
            return username if records.users.get(username) == password else None

    class Refresh(RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Any:
            found = records.find(refresh_token)
            return found if found is not None and not found.is_dead else None

        def authenticate_user(self, refresh_token: Issued) -> str | None:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: Any) -> None:
            refresh_token.is_dead = True

    class Bearer(JWTBearerGrant):
        def resolve_issuer_client(self, issuer: str) -> Client | None:
            return records.clients.get(issuer)

        def resolve_client_public_key(self, client: Client) -> jwk.Key | None:
            return client.key

        def authenticate_user(self, subject: str) -> str | None:
            return subject if subject in records.users else None

        def has_granted_permission(self, client: Client, user: str) -> bool:  # noqa: ARG002  Authlib's contract
            return True

        def get_audiences(self) -> list[str]:
            return [f"{records.url}/token"]

    class Assertion(JWTBearerClientAssertion):
        def get_audiences(self) -> list[str]:
            return [f"{records.url}/token"]

        def validate_jti(self, claims: object, jti: str) -> bool:  # noqa: ARG002  Authlib's contract
            return records.is_new(jti)

        def resolve_client_public_key(self, client: Client) -> jwk.Key | None:
            return client.key

    class Introspection(IntrospectionEndpoint):
        def query_token(self, token_string: str, token_type_hint: object) -> Issued | None:  # noqa: ARG002  same
            return records.find(token_string)

        def check_permission(self, token: Issued, client: Client, request: object) -> bool:  # noqa: ARG002  same
            return client.client_id == "observer"

        def introspect_token(self, token: Issued) -> dict[str, object]:
            return {"client_id": token.client.client_id, "scope": token.scope, "username": token.user}

    class Revocation(RevocationEndpoint):
        CLIENT_AUTH_METHODS = METHODS

        def query_token(self, token_string: str, token_type_hint: object) -> Issued | None:  # noqa: ARG002  same
            return records.find(token_string)

        def revoke_token(self, token: Issued, request: object) -> None:  # noqa: ARG002  same
            token.is_dead = True

    app = Flask("authlib-server")

    def mint(*_: object, **__: object) -> str:
        return records.mint()

    app.config["OAUTH2_ACCESS_TOKEN_GENERATOR"] = app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = mint
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = dict.fromkeys(("client_credentials", "password"), LIFETIME)
    app.config["OAUTH2_SCOPES_SUPPORTED"] = sorted(SCOPES)
    server: Any = AuthorizationServer(app, records.clients.get, records.save)
    for grant in (Credentials, Password, Refresh, Bearer):
        server.register_grant(grant)
    server.register_client_auth_method("client_assertion_jwt", Assertion())
    server.register_endpoint(Introspection)
    server.register_endpoint(Revocation)

    @app.post("/token")
    def issue() -> Any:
        return server.create_token_response()

    @app.post("/introspect")
    def introspect() -> Any:
        return server.create_endpoint_response("introspection")

    @app.post("/revoke")
    def revoke() -> Any:
        return server.create_endpoint_response("revocation")

    @app.get("/.well-known/oauth-authorization-server")
    def metadata() -> Response:
        return jsonify(issuer=records.url, token_endpoint=f"{records.url}/token")

    return app


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002  Werkzeug's contract
        """Nothing."""


@dataclass(frozen=True)
class AuthlibServer:
    """A running server."""

    records: Records
    ca: Path

    @property
    def url(self) -> str:
        """Its issuer."""
        return self.records.url

    def ask(self, path: str, token: str, client: tuple[str, str]) -> Any:
        """Introspect or revoke a token, as a client of its own."""
        answer = requests.post(
            f"{self.url}/{path}", data={"token": token}, auth=client, verify=str(self.ca), timeout=10
        )
        answer.raise_for_status()
        return answer.json()

    async def knows(self, token: str, client: tuple[str, str]) -> Any:
        """What it says of a token (RFC 7662)."""
        return await asyncio.to_thread(self.ask, "introspect", token, client)

    async def revoke(self, token: str, client: tuple[str, str]) -> None:
        """Revoke a token as the client that it was issued to (RFC 7009)."""
        await asyncio.to_thread(self.ask, "revoke", token, client)


@contextmanager
def authlib_server(
    folder: Path, clients: list[Client], users: Mapping[str, str], mint: Callable[[], str]
) -> Iterator[AuthlibServer]:
    """Serve it in a thread of its own."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca = folder / "authlib-ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    records = Records({client.client_id: client for client in clients}, users, mint)
    loggers = [logging.getLogger(name) for name in ("authlib", "werkzeug", "authlib-server")]
    for logger in loggers:
        logger.propagate = False
    server = make_server("localhost", 0, _server(records), ssl_context=context, request_handler=_Quiet)
    records.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield AuthlibServer(records, ca)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for logger in loggers:
            logger.propagate = True
