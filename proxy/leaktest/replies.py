"""What the copy's token endpoints answer where all is well: the reply that each credential looks for."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from proxy.config import (
    CredentialConfig,
    GitHubAppCredential,
    LoginCredential,
    MetadataCredential,
    OAuthCredential,
)
from proxy.grants.pointer import unescaped
from proxy.leaktest.farend import Heard, Played, http
from proxy.leaktest.mint import LIFETIME, Mint

JSON: Final = {"Content-Type": "application/json"}
_UNITS: Final = {"seconds": 1.0, "milliseconds": 0.001, "minutes": 60.0}


def granted(name: str, given: CredentialConfig, heard: Heard, mint: Mint) -> Played:
    """The answer to a request for a token of this credential."""
    if isinstance(given, OAuthCredential):
        return _oauth2(name, heard, mint)
    if isinstance(given, LoginCredential):
        return _login(name, given, heard, mint)
    if isinstance(given, MetadataCredential):
        return _metadata(name, given, mint)
    if isinstance(given, GitHubAppCredential):
        end = datetime.fromtimestamp(mint.wall() + LIFETIME, UTC).isoformat()
        return http("201 Created", JSON, _json({"token": mint.secret(token_of(name)), "expires_at": end}))
    return http("404 Not Found")


def token_of(name: str) -> str:
    """What a token of this credential is called in a report."""
    return f"credentials.{name}, its token"


def discovered(origin: str, name: str) -> Played:
    """The metadata of an authorization server (RFC 8414) whose issuer is `origin/name`."""
    issuer = f"{origin}/{name}"
    endpoints = {f"{each}_endpoint": f"{issuer}/{each}" for each in ("token", "authorization", "revocation")}
    document = {"issuer": issuer, "device_authorization_endpoint": f"{issuer}/device", **endpoints}
    return http("200 OK", JSON, _json(document))


def _oauth2(name: str, heard: Heard, mint: Mint) -> Played:
    if heard.target.endswith("/revocation"):
        return http("200 OK")
    reply = {
        "access_token": mint.jwt(token_of(name)),
        "token_type": "Bearer",
        "expires_in": LIFETIME,
        "refresh_token": mint.secret(f"credentials.{name}, its refresh token"),
        "id_token": mint.secret(f"credentials.{name}, its identity token", "jwt"),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    return http("200 OK", JSON, _json(reply))


def _metadata(name: str, given: MetadataCredential, mint: Mint) -> Played:
    google = {"Metadata-Flavor": "Google", **JSON}
    if given.audience is not None:
        return http("200 OK", google, mint.jwt(token_of(name)).encode())
    reply = {
        "access_token": mint.secret(token_of(name)),
        "expires_in": str(LIFETIME),
        "expires_on": str(int(mint.wall()) + LIFETIME),
        "token_type": "Bearer",
    }
    return http("200 OK", google, _json(reply))


def _login(name: str, given: LoginCredential, heard: Heard, mint: Mint) -> Played:
    rules, label = given.response, token_of(name)
    token = {"jwt": mint.jwt, "vanilla": mint.vanilla}.get(rules.expires or "", mint.secret)(label)
    document: dict[str, Any] = {}
    fields: dict[str, str] = {}
    body = None
    tokens = {rules.token: token}
    if rules.refresh_token is not None:
        tokens[rules.refresh_token] = mint.secret(f"credentials.{name}, its refresh token")
    for place, value in tokens.items():
        if place == "text":
            body = value.encode()
        elif place.startswith("header:"):
            fields[place.removeprefix("header:")] = value
        else:
            _put(document, place, value)
    end = datetime.fromtimestamp(mint.wall() + LIFETIME, UTC).isoformat()
    if rules.lifetime is not None:
        _put(document, rules.lifetime, LIFETIME / _UNITS[rules.lifetime_unit])
    for pointer in (rules.expires, rules.refresh_expires):
        if pointer is not None and pointer.startswith("/"):
            _put(document, pointer, end)
    for pointer, expected in rules.success.items():
        _put(document, pointer, expected)
    status = _step(given, heard).accept[0]
    return http(f"{status} OK", {**JSON, **fields}, _json(document) if body is None else body)


def _step(given: LoginCredential, heard: Heard) -> Any:  # noqa: ANN401  one of its steps
    """The step that this request is of; the last part of its path says so."""
    steps = {"-".join(map(str, path)): step for path, step in given.steps().items()}
    return steps.get(heard.target.partition("?")[0].rpartition("/")[2], given.login)


def _put(document: dict[str, Any], pointer: str, value: object) -> None:
    """Make the member of a JSON pointer (RFC 6901); numbers name members, too."""
    *above, last = [unescaped(each) for each in pointer.split("/")[1:]]
    for each in above:
        document = document.setdefault(each, {})
    document[last] = value


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
