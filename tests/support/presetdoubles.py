"""A far end for each preset: its token endpoint and its API in one, as `facts` of the preset say they behave.

They are ours, so they prove that preset and documented facts agree, and no more.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import jwt
from aiohttp import web

from tests.support.api import Seen
from tests.support.harness import HeldClock
from tests.support.leaks import Canaries

LIFETIME: Final = 1200
_BEARER: Final = [("header", "Authorization", "Bearer TOKEN")]


@dataclass
class Far:
    """One far end: `live` are the tokens that its API takes, `complaints` what is wrong with a token request."""

    clock: HeldClock
    canaries: Canaries
    folder: Path
    private_key: str
    public_key: Any
    url: str = ""
    live: set[str] = field(default_factory=set)
    issued: list[str] = field(default_factory=list)
    refresh_tokens: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    rejecting: bool = False

    def secret(self, name: str, kind: str = "password") -> str:
        """A canary in the environment, and its value."""
        return self.environ.setdefault(name, self.canaries.mint(kind))

    def mint(self) -> str:
        """A new token, the only one that the API takes."""
        token = self.canaries.mint("token")
        self.issued.append(token)
        self.live = {token}
        return token

    def rotated(self) -> str:
        """A new refresh token; the ones before are used up."""
        self.refresh_tokens.append(self.canaries.mint("token"))
        return self.refresh_tokens[-1]

    def wants(self, what: str, found: object, expected: object = True) -> None:  # noqa: FBT002  the usual wish
        """Note where a token request is not as documented; never a value."""
        if found != expected:
            self.complaints.append(what)

    def iso(self, seconds: float) -> str:
        """So many seconds from now."""
        return datetime.fromtimestamp(self.clock.wall() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def date(self) -> str:
        """What the held clock says."""
        return formatdate(self.clock.wall(), usegmt=True)

    def reply(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        """JSON, dated by the held clock."""
        dated = {"Date": self.date(), **(headers or {})}
        return web.json_response(document, status=status, headers=dated)


def form(seen: Seen) -> dict[str, str]:
    """The fields of a form."""
    return dict(parse_qsl(seen.body.decode(), keep_blank_values=True))


def query(seen: Seen) -> dict[str, str]:
    """The fields of a query."""
    return dict(parse_qsl(urlsplit(seen.target).query, keep_blank_values=True))


def header(seen: Seen, name: str) -> str:
    """The one value of a header."""
    return ", ".join(seen.all(name))


#: Answers a token request; None: the request is one for the API.
Answer = Callable[[Seen, Far], web.Response | None]


def _none(_seen: Seen, _far: Far) -> web.Response | None:
    return None


@dataclass(frozen=True)
class Double:
    """What one preset is held to.

    `keys` are what a user writes, `answer` is the token endpoint, `places` where the token stands in a request for
    the API. `refusal` is the API's answer to a bad token. `denied` are requests that never reach it. `renews`: can
    a newer token be had; `rejected` is the status and code for clients where the endpoint says no. `mirror` is what
    brings a newer token where nobody is asked for it, `others` are credentials that this one stands on, `preset` is
    its name where the entry is a variant.
    """

    keys: Callable[[Far], Mapping[str, Any]]
    answer: Answer = _none
    places: list[tuple[str, str, str]] = field(default_factory=lambda: list(_BEARER))
    refusal: tuple[int, Any, Mapping[str, str]] = (401, {"message": "Unauthorized"}, {})
    denied: tuple[tuple[str, str], ...] = ()
    constants: tuple[tuple[str, str], ...] = ()
    renews: bool = True
    rejected: tuple[int, str] = (502, "credential_rejected")
    mirror: Callable[[Far], None] | None = None
    others: Callable[[Far], Mapping[str, Any]] = lambda _far: {}
    preset: str | None = None


# -- the token endpoints


def _oauth(path: str, check: Callable[[Seen, Far], None], **more: object) -> Answer:
    def answer(seen: Seen, far: Far) -> web.Response | None:
        if urlsplit(seen.target).path != path:
            return None
        check(seen, far)
        if far.rejecting:
            return far.reply({"error": "invalid_client", "error_description": "no"}, 401)
        return far.reply({"access_token": far.mint(), "token_type": "Bearer", "expires_in": LIFETIME, **more})

    return answer


def _basic_client(seen: Seen, far: Far) -> None:
    given = base64.b64decode(header(seen, "Authorization").removeprefix("Basic ")).decode()
    name, _, secret = given.partition(":")
    plain = dict(parse_qsl(f"n={name}&s={secret}"))
    far.wants("Basic", (plain.get("n"), plain.get("s")), ("tool", far.secret("CLIENT_SECRET")))
    far.wants("grant_type", form(seen), {"grant_type": "client_credentials"})


def _entra_client(seen: Seen, far: Far) -> None:
    expected = {
        "grant_type": "client_credentials",
        "client_id": "tool",
        "client_secret": far.secret("CLIENT_SECRET"),
        "scope": "https://graph.microsoft.com/.default",
    }
    far.wants("form", form(seen), expected)
    far.wants("no Basic", seen.all("Authorization"), [])


def _google_assertion(seen: Seen, far: Far) -> None:
    fields = form(seen)
    far.wants("grant_type", fields.get("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer")
    claims = _verified(fields.get("assertion", ""), far, far.url + "/token")
    far.wants("iss", claims.get("iss"), "tool@project.example.com")
    far.wants("scope", claims.get("scope"), "https://www.googleapis.com/auth/cloud-platform")
    far.wants("an hour at most", claims.get("exp", 0) - claims.get("iat", 0) <= 3600)


def _verified(token: str, far: Far, audience: str | None) -> dict[str, Any]:
    """The claims of a JWT, its signature and times checked on the held clock."""
    try:
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": audience is not None}
        claims = jwt.decode(token, far.public_key, algorithms=["RS256"], audience=audience, options=options)
    except jwt.InvalidTokenError as error:
        far.complaints.append(f"JWT: {type(error).__name__}")
        return {}
    far.wants("times", claims["iat"] <= far.clock.wall() < claims["exp"])
    return dict(claims)


def _amadeus(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/v1/security/oauth2/token":
        return None
    expected = {
        "grant_type": "client_credentials",
        "client_id": far.secret("CLIENT_ID", "key"),
        "client_secret": far.secret("CLIENT_SECRET"),
    }
    far.wants("form", form(seen), expected)
    if far.rejecting:
        return far.reply({"state": "expired", "access_token": ""})
    return far.reply(
        {
            "type": "amadeusOAuth2Token",
            "token_type": "Bearer",
            "access_token": far.mint(),
            "expires_in": LIFETIME,
            "state": "approved",
            "scope": "",
        }
    )


def _pair(login: str, refresh: str, name: str, wrap: Callable[[str, str], Any], extra: dict[str, str]) -> Answer:
    """A login with e-mail and password, and a refresh token (called `name`) that is good for one use."""

    def answer(seen: Seen, far: Far) -> web.Response | None:
        path = urlsplit(seen.target).path
        if path not in (login, refresh):
            return None
        if far.rejecting:
            return far.reply({"title": "Unauthorized"}, 401)
        given = json.loads(seen.body)
        if path == refresh:
            far.wants("refresh", given, {name: far.refresh_tokens[-1], **extra})
        else:
            far.wants("login", given, {"email": "ann@example.com", "password": far.secret("PASSWORD"), **extra})
        return far.reply(wrap(far.mint(), far.rotated()))

    return answer


def _vault(seen: Seen, far: Far) -> web.Response | None:
    path = urlsplit(seen.target).path
    if path not in ("/v1/auth/approle/login", "/v1/auth/token/renew-self"):
        return None
    far.wants("X-Vault-Request", seen.all("X-Vault-Request"), ["true"])
    if path.endswith("renew-self"):
        if header(seen, "X-Vault-Token") not in far.live or far.rejecting:
            return far.reply({"errors": ["permission denied"]}, 403)
        token = header(seen, "X-Vault-Token")
    else:
        given = json.loads(seen.body)
        far.wants(
            "login", given, {"role_id": far.secret("ROLE", "uuid"), "secret_id": far.secret("SECRET_ID", "uuid")}
        )
        if far.rejecting:
            return far.reply({"errors": ["invalid role or secret ID"]}, 400)
        token = far.mint()
    auth = {"client_token": token, "accessor": "a", "lease_duration": LIFETIME, "renewable": True}
    return far.reply({"auth": auth, "lease_duration": 0})


def _vault_jwt(seen: Seen, far: Far) -> web.Response | None:
    """The same with a pod's token; its renewal is the same endpoint."""
    if urlsplit(seen.target).path != "/v1/auth/kubernetes/login":
        return _vault(seen, far)
    far.wants(
        "login", json.loads(seen.body), {"role": far.secret("ROLE", "uuid"), "jwt": far.secret("POD", "token")}
    )
    if far.rejecting:
        return far.reply({"errors": ["permission denied"]}, 403)
    auth = {"client_token": far.mint(), "lease_duration": LIFETIME, "renewable": True}
    return far.reply({"auth": auth, "lease_duration": 0})


def _entra_federated(seen: Seen, far: Far) -> None:
    expected = {
        "grant_type": "client_credentials",
        "client_id": "tool",
        "client_assertion": far.secret("POD", "token"),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "scope": "api://x/.default",
    }
    far.wants("form", form(seen), expected)


def _github(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/app/installations/99/access_tokens":
        return None
    claims = _verified(header(seen, "Authorization").removeprefix("Bearer "), far, None)
    far.wants("iss", claims.get("iss"), "4711")
    far.wants("ten minutes at most", claims.get("exp", 0) - far.clock.wall() <= 600)
    far.wants("repositories", json.loads(seen.body), {"repositories": ["tools"]})
    if far.rejecting:
        return far.reply({"message": "Bad credentials"}, 401)
    return far.reply({"token": far.mint(), "expires_at": far.iso(LIFETIME), "permissions": {}}, 201)


def _gcp(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/computeMetadata/v1/instance/service-accounts/default/token":
        return None
    far.wants("Metadata-Flavor", seen.all("Metadata-Flavor"), ["Google"])
    if far.rejecting:
        return far.reply({"error": "not found"}, 404)
    answer = {"access_token": far.mint(), "expires_in": LIFETIME, "token_type": "Bearer"}
    return far.reply(answer, headers={"Metadata-Flavor": "Google"})


def _gcp_identity(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/computeMetadata/v1/instance/service-accounts/default/identity":
        return None
    far.wants("query", query(seen), {"audience": "https://api.example.com", "format": "full"})
    if far.rejecting:
        return web.Response(status=404)
    claims = {"aud": "https://api.example.com", "exp": int(far.clock.wall()) + LIFETIME, "n": len(far.issued)}
    token = jwt.encode(claims, far.private_key, algorithm="RS256")
    far.canaries.adopt(token, "jwt", fixed=token.rindex(".") + 1)
    far.issued.append(token)
    far.live = {token}
    return web.Response(text=token, headers={"Metadata-Flavor": "Google", "Date": far.date()})


def _app_service(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/msi/token":
        return None
    far.wants("header", seen.all("X-IDENTITY-HEADER"), [far.secret("IDENTITY_HEADER", "uuid")])
    far.wants("query", query(seen), {"api-version": "2019-08-01", "resource": "https://vault.azure.net"})
    if far.rejecting:
        return far.reply({"statusCode": 500}, 500)
    return far.reply({"access_token": far.mint(), "expires_on": str(int(far.clock.wall()) + LIFETIME)})


def _azure(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/metadata/identity/oauth2/token":
        return None
    far.wants("Metadata", seen.all("Metadata"), ["true"])
    far.wants("query", query(seen), {"api-version": "2018-02-01", "resource": "https://management.azure.com/"})
    if far.rejecting:
        return far.reply({"error": "invalid_request"}, 400)
    return far.reply(
        {
            "access_token": far.mint(),
            "refresh_token": "",
            "expires_in": str(LIFETIME),
            "expires_on": str(int(far.clock.wall()) + LIFETIME),
            "token_type": "Bearer",
        }
    )


def _tracker(seen: Seen, far: Far) -> web.Response | None:
    path = urlsplit(seen.target).path
    if path not in ("/auth/login", "/auth/refresh"):
        return None
    if far.rejecting:
        return far.reply({"success": False}, 401)
    if path == "/auth/refresh":
        far.wants("refresh", form(seen), {"refresh_token": far.refresh_tokens[-1]})
    else:
        far.wants("login", form(seen), {"username": "ann", "password": far.secret("PASSWORD")})
    return far.reply(
        {
            "success": True,
            "token": far.mint(),
            "tokenLifetime": LIFETIME,
            "tokenExpiration": far.iso(-86400),
            "refreshToken": far.rotated(),
            "refreshTokenExpiration": far.iso(29 * 86400),
        }
    )


def _brainer(seen: Seen, far: Far) -> web.Response | None:
    if urlsplit(seen.target).path != "/token":
        return None
    expected = {
        "userName": "ann@example.com",
        "password": far.secret("PASSWORD"),
        "privateToken": far.secret("PRIVATE_TOKEN", "uuid"),
    }
    far.wants("login", json.loads(seen.body), expected)
    if far.rejecting:
        return far.reply(None, 401)
    return far.reply({"access_token": far.mint(), "token_type": "Bearer", "expires_in": LIFETIME // 60})


# -- tokens that no endpoint gives


def _key_file(far: Far) -> str:
    path = far.folder / "account.json"
    path.write_text(json.dumps({"private_key": far.private_key, "client_email": "tool@project.example.com"}))
    path.chmod(0o600)
    return str(path)


def _token_file(far: Far) -> str:
    path = far.folder / "token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(far.mint() + "\n")
    return str(path)


def _rewrite(far: Far) -> None:
    if not far.rejecting:
        new = far.folder / "token.new"
        new.touch(mode=0o600)
        new.write_text(far.mint())
        new.replace(far.folder / "token")


def _forum_token(far: Far) -> str:
    """A token of Vanilla's form, as `proxy/demo/vanilla_tokens.py` explains it."""
    random, expiry = far.canaries.mint("token")[:32], base64.urlsafe_b64encode(b"\xff\xff\xff\x7f").decode()[:6]
    token = f"va.{random}.{expiry}.abcdefg"
    far.live = {token}
    far.issued.append(token)
    return far.environ.setdefault("TOKEN", token)


def _fixed(far: Far) -> Mapping[str, Any]:
    if "TOKEN" not in far.environ:
        far.environ["TOKEN"] = far.mint()
    return {"token": {"env": "TOKEN"}}


def _snowflake(seen: Seen, far: Far) -> web.Response | None:
    """Takes every proper JWT that it did not see revoked: nobody issues these."""
    token = header(seen, "Authorization").removeprefix("Bearer ")
    if token in far.issued or far.rejecting:
        return None
    claims = _verified(token, far, None)
    account, user, fingerprint = str(claims.get("iss")).split(".")
    far.wants("account and user", (account, user, claims.get("sub")), ("ACME", "ANN", "ACME.ANN"))
    far.wants("fingerprint", fingerprint.startswith("SHA256:"))
    far.issued.append(token)
    far.canaries.adopt(token, "jwt", fixed=token.rindex(".") + 1)
    far.live = {token}
    return None


def _app_service_keys(far: Far) -> Mapping[str, Any]:
    far.secret("IDENTITY_HEADER", "uuid")
    far.environ["IDENTITY_ENDPOINT"] = f"{far.url}/msi/token"
    return {"resource": "https://vault.azure.net"}


def _pod(far: Far) -> Mapping[str, Any]:
    """The credential of a pod, as somebody else keeps it fresh."""
    path = far.folder / "pod"
    path.touch(mode=0o600)
    path.write_text(far.secret("POD", "token"))
    return {"pod": {"type": "file", "path": str(path)}}


_SECRET: Final = {"client_id": "tool", "client_secret": {"env": "CLIENT_SECRET"}}
_MAIL: Final = {"email": "ann@example.com", "password": {"env": "PASSWORD"}}

DOUBLES: Final[Mapping[str, Double]] = {
    "amadeus": Double(
        keys=lambda far: {
            "base_url": far.url,
            "client_id": {"env": "CLIENT_ID"},
            "client_secret": {"env": "CLIENT_SECRET"},
        },
        answer=_amadeus,
        denied=(("POST", "/v1/security/oauth2/token"), ("GET", "/v1/security/oauth2/token/x")),
    ),
    "aspnet-identity": Double(
        keys=lambda far: {"base_url": far.url, **_MAIL},
        answer=_pair(
            "/login",
            "/refresh",
            "refreshToken",
            lambda token, refresh: {
                "tokenType": "Bearer",
                "accessToken": token,
                "expiresIn": LIFETIME,
                "refreshToken": refresh,
            },
            {},
        ),
        denied=(("POST", "/login"), ("POST", "/refresh"), ("POST", "/Manage/2fa")),
    ),
    "azure-imds": Double(
        keys=lambda far: {
            "resource": "https://management.azure.com/",
            "endpoint": f"{far.url}/metadata/identity/oauth2/token",
        },
        answer=_azure,
        denied=(("GET", "/metadata/identity/oauth2/token"),),
        rejected=(503, "credential_unavailable"),
    ),
    "directus": Double(
        keys=lambda far: {"base_url": far.url, **_MAIL},
        answer=_pair(
            "/auth/login",
            "/auth/refresh",
            "refresh_token",
            lambda token, refresh: {
                "data": {"access_token": token, "expires": LIFETIME * 1000, "refresh_token": refresh}
            },
            {"mode": "json"},
        ),
        refusal=(403, {"errors": [{"message": "x", "extensions": {"code": "INVALID_TOKEN"}}]}, {}),
        denied=(("POST", "/auth/login"), ("POST", "/auth/refresh")),
    ),
    "entra": Double(
        keys=lambda far: {"base_url": far.url, "tenant": "acme", **_SECRET},
        answer=_oauth("/acme/oauth2/v2.0/token", _entra_client),
        denied=(("POST", "/acme/oauth2/v2.0/token"),),
    ),
    "gcp-metadata": Double(
        keys=lambda far: {"endpoint": far.url},
        answer=_gcp,
        denied=(("GET", "/computeMetadata/v1/instance/service-accounts/default/token"),),
        rejected=(503, "credential_unavailable"),
    ),
    "github-app": Double(
        keys=lambda far: {
            "base_url": far.url,
            "app_id": 4711,
            "installation_id": 99,
            "private_key": {"env": "PRIVATE_KEY"},
            "repositories": ["tools"],
        },
        answer=_github,
        denied=(("POST", "/app/installations/99/access_tokens"),),
        constants=(("X-GitHub-Api-Version", "2022-11-28"),),
    ),
    "gitlab": Double(
        keys=_fixed,
        renews=False,
        denied=(
            ("POST", "/api/v4/personal_access_tokens/self/rotate"),
            ("POST", "/api/v4/user/personal_access_tokens"),
            ("POST", "/api/v4/users/3/impersonation_tokens"),
            ("POST", "/api/v4/projects/1/access_tokens"),
            ("POST", "/oauth/token"),
        ),
    ),
    "google-service-account": Double(
        keys=lambda far: {"key_file": _key_file(far), "token_url": f"{far.url}/token"},
        answer=_oauth("/token", _google_assertion),
        denied=(("POST", "/token"),),
    ),
    "kubernetes-file": Double(
        keys=lambda far: {"path": _token_file(far)},
        mirror=_rewrite,
        denied=(("POST", "/api/v1/namespaces/n/serviceaccounts/a/token"),),
        rejected=(401, ""),
    ),
    "mainbrainer": Double(
        keys=lambda far: {
            "base_url": far.url,
            "username": "ann@example.com",
            "password": {"env": "PASSWORD"},
            "private_token": {"env": "PRIVATE_TOKEN"},
        },
        answer=_brainer,
        denied=(("POST", "/token"),),
    ),
    "paypal": Double(
        keys=lambda far: {"base_url": far.url, **_SECRET},
        answer=_oauth("/v1/oauth2/token", _basic_client, scope="", nonce="n"),
        denied=(("POST", "/v1/oauth2/token"),),
    ),
    "snowflake": Double(
        keys=lambda _far: {"account": "ACME", "user": "ANN", "private_key": {"env": "PRIVATE_KEY"}},
        answer=_snowflake,
        denied=(("POST", "/oauth/token-request"),),
        constants=(("X-Snowflake-Authorization-Token-Type", "KEYPAIR_JWT"),),
        rejected=(401, ""),
    ),
    "spotify": Double(
        keys=lambda far: {"token_url": f"{far.url}/api/token", **_SECRET},
        answer=_oauth("/api/token", _basic_client),
        denied=(("POST", "/api/token"),),
    ),
    "teletracker": Double(
        keys=lambda far: {"base_url": far.url, "username": "ann", "password": {"env": "PASSWORD"}},
        answer=_tracker,
        places=[("header", "Authorization", "Bearer TOKEN"), ("header", "Authentication", "Bearer TOKEN")],
        refusal=(403, {"success": False}, {}),
        denied=(("POST", "/auth/login"), ("POST", "/auth/refresh")),
    ),
    "vanilla": Double(
        keys=lambda far: {"token": {"env": "TOKEN"}} if _forum_token(far) else {},
        refusal=(200, {"guest": True}, {"X-WWW-Authenticate": 'error="invalid_token"'}),
        renews=False,
        denied=(("POST", "/api/v2/tokens"),),
    ),
    "vault": Double(
        keys=lambda far: {"base_url": far.url, "role": {"env": "ROLE"}, "secret_id": {"env": "SECRET_ID"}},
        answer=_vault,
        places=[("header", "X-Vault-Token", "TOKEN")],
        refusal=(403, {"errors": ["permission denied"]}, {}),
        denied=(
            ("POST", "/v1/auth/approle/login"),
            ("POST", "/v1/auth/token/renew-self"),
            ("GET", "/v1/team/auth/token/lookup-self"),
        ),
        constants=(("X-Vault-Request", "true"),),
    ),
    # -- variants
    "azure-imds in App Service": Double(
        preset="azure-imds",
        keys=_app_service_keys,
        answer=_app_service,
        denied=(("GET", "/msi/token"),),
        rejected=(503, "credential_unavailable"),
    ),
    "entra with a federated token": Double(
        preset="entra",
        keys=lambda far: {
            "base_url": far.url,
            "tenant": "acme",
            "client_id": "tool",
            "client_assertion": {"credential": "pod"},
            "scope": "api://x/.default",
        },
        answer=_oauth("/acme/oauth2/v2.0/token", _entra_federated),
        others=_pod,
        denied=(("POST", "/acme/oauth2/v2.0/token"),),
    ),
    "gcp-metadata with an identity token": Double(
        preset="gcp-metadata",
        keys=lambda far: {"endpoint": far.url, "audience": "https://api.example.com"},
        answer=_gcp_identity,
        denied=(("GET", "/computeMetadata/v1/instance/service-accounts/default/identity"),),
        rejected=(503, "credential_unavailable"),
    ),
    "gitlab in PRIVATE-TOKEN": Double(
        preset="gitlab",
        keys=lambda far: {**_fixed(far), "in": "private-token"},
        places=[("header", "PRIVATE-TOKEN", "TOKEN")],
        renews=False,
        denied=(("GET", "/api/v4/personal_access_tokens"),),
    ),
    "gitlab in the query": Double(
        preset="gitlab",
        keys=lambda far: {**_fixed(far), "in": "query"},
        places=[("target", "", "/thing?page=2&private_token=TOKEN")],
        renews=False,
        denied=(("GET", "/api/v4/personal_access_tokens/self"),),
    ),
    "vanilla in the query": Double(
        preset="vanilla",
        keys=lambda far: {"token": {"env": "TOKEN"}, "in": "query"} if _forum_token(far) else {},
        places=[("target", "", "/thing?page=2&access_token=TOKEN")],
        refusal=(200, {"guest": True}, {"X-WWW-Authenticate": 'error="invalid_token"'}),
        renews=False,
        denied=(("DELETE", "/api/v2/tokens/1"),),
    ),
    "vault with a pod's token": Double(
        preset="vault",
        keys=lambda far: {
            "base_url": far.url,
            "mount": "kubernetes",
            "role": {"env": "ROLE"},
            "jwt": {"credential": "pod"},
        },
        answer=_vault_jwt,
        others=_pod,
        places=[("header", "X-Vault-Token", "TOKEN")],
        refusal=(403, {"errors": ["permission denied"]}, {}),
        denied=(("POST", "/v1/auth/kubernetes/login"),),
        constants=(("X-Vault-Request", "true"),),
    ),
}
