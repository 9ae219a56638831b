"""OAuth 2.0 token requests as steps, and what their errors mean (RFC 6749, 7521, 7523, 8628, 8693, 8707).

Nothing is signed or fetched here: an assertion that a request needs is handed in.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote

from proxy.grants.login import ResponseRules, Step, Value
from proxy.grants.reply import BODY_LIMIT, Verdict, classify
from proxy.grants.request import TokenReply
from proxy.redact import MASK, Secret

GrantName = Literal[
    "client_credentials",
    "refresh_token",
    "password",
    "jwt_bearer",
    "token_exchange",
    "authorization_code",
    "device_code",
]
ClientAuth = Literal["basic", "post", "private_key_jwt", "client_secret_jwt", "tls", "none"]
#: These need a person, once: `bearer-proxy login`.
INTERACTIVE: Final[frozenset[GrantName]] = frozenset({"authorization_code", "device_code"})
#: These authenticate the client by a JWT of its own.
ASSERTING: Final[frozenset[ClientAuth]] = frozenset({"private_key_jwt", "client_secret_jwt"})

#: As they stand in `grant_type`.
_GRANT_TYPES: Final[Mapping[GrantName, str]] = {
    "client_credentials": "client_credentials",
    "refresh_token": "refresh_token",
    "password": "password",
    "jwt_bearer": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "token_exchange": "urn:ietf:params:oauth:grant-type:token-exchange",
    "authorization_code": "authorization_code",
    "device_code": "urn:ietf:params:oauth:grant-type:device_code",
}
_JWT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: What a token reply looks like (RFC 6749 section 5.1); Keycloak and GitHub tell the refresh token's life as well.
REPLY: Final = ResponseRules(
    token="/access_token",  # noqa: S106  a JSON pointer, no secret
    refresh_token="/refresh_token",  # noqa: S106  same
    lifetime="/expires_in",
    expires="jwt",
    refresh_lifetimes=("/refresh_expires_in", "/refresh_token_expires_in"),
)

#: The codes that are registered (RFC 6749, 7009, 8628, 8693, 8707, OpenID Connect Core 3.1.2.6). Any other is
#: somebody's own, and is not shown in a sentence of ours.
_REJECTED: Final = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
        *("invalid_scope", "invalid_target", "access_denied", "expired_token", "unsupported_response_type"),
        "unsupported_token_type",
        *("interaction_required", "login_required", "account_selection_required", "consent_required"),
    }
)
#: Of these the client is guilty, and a new login would mend nothing.
CLIENT_ERRORS: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type"})
_TRANSIENT: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down", "authorization_pending"})
#: More of a code, or of a description, tells a reader nothing.
_CODE_LIMIT: Final = 60
_DESCRIPTION_LIMIT: Final = 300
#: What is shorter than this stands in every second word.
_SHORTEST_QUOTED: Final = 4
#: What servers quote in a description: the code or the token that they were given. Words of people, and the names
#: of parameters, have lower-case letters only where they are this long.
_OPAQUE: Final = re.compile(r"(?![a-z_./-]+(?![A-Za-z0-9_~+/.%=-]))[A-Za-z0-9_~+/.%-]{16,}=*")


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks for the token, and how it proves that (RFC 6749 section 2.3, RFC 7523 section 2.2, RFC 8705).

    `encoding`: of identifier and password in the Basic scheme. The standard says `form`; `raw` is for servers that
    do not decode it.
    """

    client_id: Secret | str | None
    auth: ClientAuth = "basic"
    secret: Secret | None = None
    encoding: Literal["form", "raw"] = "form"

    def proof(self, assertion: Secret | None) -> tuple[dict[str, Value], dict[str, Value]]:
        """The fields and the headers that authenticate a token request; `assertion` where `auth` needs one."""
        if self.client_id is None:
            return {}, {}
        if self.auth == "basic" and self.secret is not None:
            return {}, {"Authorization": self._basic(self.secret)}
        fields: dict[str, Value] = {"client_id": self.client_id}
        if self.auth == "post":
            fields["client_secret"] = self.secret
        elif self.auth in ASSERTING:
            fields |= {"client_assertion_type": _JWT_ASSERTION, "client_assertion": assertion}
        return fields, {}

    def _basic(self, secret: Secret) -> Secret:
        parts = [revealed(self.client_id) or "", secret.reveal()]
        if self.encoding == "form":
            # A space as %20: every server reads that, and some do not read the + (RFC 6749 appendix B).
            parts = [quote(part, safe="", errors="surrogateescape") for part in parts]
        # A secret from a file or the environment may hold any bytes.
        return Secret("Basic " + base64.b64encode(":".join(parts).encode("utf-8", "surrogateescape")).decode())


def revealed(text: Secret | str | None) -> str | None:
    """A text that may have come by reference."""
    return text.reveal() if isinstance(text, Secret) else text


@dataclass(frozen=True, slots=True)
class OAuthDescription:
    """A credential of type `oauth2`, as far as requests need it.

    `parameters` are those of its grant besides `grant_type`; `common` what goes with every token request but a
    refresh: scope, audience, resource; `extra` goes with every one. `refresh_token` is one that somebody brought
    from elsewhere, for the first time. `refresh_lifetime`: seconds that the login is good, however often the token
    is refreshed; None: as the server says.
    """

    grant: GrantName
    client: Client
    refresh_token: Secret | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    common: Mapping[str, Value] = field(default_factory=dict)
    extra: Mapping[str, Value] = field(default_factory=dict)
    refresh_lifetime: float | None = None

    @property
    def interactive(self) -> bool:
        """Does it take a person to get the first token?"""
        return self.grant in INTERACTIVE

    def request(
        self,
        token_url: str,
        grant: GrantName,
        parameters: Mapping[str, Value],
        *,
        assertion: Secret | None = None,
    ) -> Step:
        """The token request of `grant` with its `parameters`; `assertion` authenticates the client."""
        # A refresh gets what the login got (RFC 6749 section 6); where there was none here, what is wished is said.
        common = {} if grant == "refresh_token" and self.grant != "refresh_token" else self.common
        if grant in INTERACTIVE:
            # The person was asked for the rest; a resource is named again (RFC 8707 section 2.2).
            common = {"resource": common.get("resource")}
        own = self.parameters if grant == self.grant else {}
        proof, headers = self.client.proof(assertion)
        fields = {"grant_type": _GRANT_TYPES[grant], **own, **parameters, **common, **proof, **self.extra}
        return Step(url=token_url, fields=fields, headers=headers)

    def call(self, url: str, fields: Mapping[str, Value], *, assertion: Secret | None = None) -> Step:
        """A request to any endpoint where the client authenticates as it does at the token endpoint."""
        proof, headers = self.client.proof(assertion)
        return Step(url=url, fields={**fields, **proof}, headers=headers)


@dataclass(frozen=True, slots=True)
class OAuthError:
    """What a server says is wrong (RFC 6749 section 5.2).

    `code`: a registered one; `error` for any other; empty where it says nothing. `stated` and `description` are
    the server's own words, for the log alone: printable, cut, and without anything that looks like a secret.
    """

    code: str = ""
    stated: str = ""
    description: str = ""

    def __str__(self) -> str:
        return f", {self.code}" if self.code else ""

    @property
    def fields(self) -> dict[str, str]:
        """The server's words as fields of a log event; what it did not say is left out."""
        found = {"oauth_error": self.stated, "oauth_error_description": self.description}
        return {name: text for name, text in found.items() if text}


def error_of(reply: TokenReply, hidden: Iterable[Secret] = ()) -> OAuthError:
    """The error in a reply, whatever its status: some servers say 200 and `error`.

    `hidden` are the secrets of the request, which a server may quote.
    """
    if len(reply.body) > BODY_LIMIT:
        return OAuthError()
    try:
        document = json.loads(reply.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return OAuthError()
    if not isinstance(document, dict):
        return OAuthError()
    code, description = (_string(document.get(name)) for name in ("error", "error_description"))
    quoted = _quoted(hidden)
    return OAuthError(
        shown(code) if code else "",
        _shown(code, _CODE_LIMIT, quoted),
        _shown(description, _DESCRIPTION_LIMIT, quoted),
    )


def _quoted(hidden: Iterable[Secret]) -> re.Pattern[str] | None:
    """The forms in which servers quote what they were given: as it came, escaped for HTML, doubled for SQL."""
    forms = set[str]()
    for value in (secret.reveal() for secret in hidden):
        if len(value) >= _SHORTEST_QUOTED:
            escaped = {html.escape(value), html.escape(value, quote=False), json.dumps(value)[1:-1]}
            forms |= {value, value.replace("'", "''"), value.replace("'", "&#39;"), *escaped}
    # The longest first, or a part of one would be masked and its rest shown.
    words = sorted(map(re.escape, forms), key=len, reverse=True)
    return re.compile("|".join(words), re.IGNORECASE) if words else None


def _string(found: object) -> str:
    return found if isinstance(found, str) else ""


def _shown(text: str, limit: int, quoted: re.Pattern[str] | None) -> str:
    """Somebody else's words as they may stand in a log (threats 79, 80). Masked first: half a secret is one."""
    text = "".join(filter(str.isprintable, text))
    text = text if quoted is None else quoted.sub(MASK, text)
    return _OPAQUE.sub(MASK, text)[:limit]


def shown(code: str) -> str:
    """A code as a sentence of ours may show it."""
    return code if code in _REJECTED | _TRANSIENT else "error"


def verdict(reply: TokenReply, error: OAuthError) -> Verdict:
    """What a reply means: what `error` says, else what the status says."""
    if error.code in _TRANSIENT:
        return "transient"
    by_status = classify(reply.status, (200, 201))
    if by_status == "accepted" and error.code:
        return "rejected"
    return by_status
