"""The metadata services of clouds: the request for the machine's own token, and what the answers mean.

GCP: the server of Compute Engine, GKE, Cloud Run (google-auth, `_metadata`). Azure: the Instance Metadata Service,
and the local endpoint of App Service (Microsoft Learn, managed identities).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from proxy.grants.login import ResponseRules, Step, Value
from proxy.grants.reply import Verdict
from proxy.grants.request import TokenReply
from proxy.redact import Secret

Cloud = Literal["gcp", "azure"]

_GCP: Final = "http://metadata.google.internal"
_IMDS: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
#: All numbers of Azure are text; `expires_on` is epoch seconds.
_REPLY: Final = ResponseRules(lifetime="/expires_in", expires="/expires_on")
#: What else such a status may mean.
_HINTS: Final[Mapping[Cloud, str]] = {
    "gcp": "account may be the wrong one, or the machine has none",
    "azure": "resource or client_id may be wrong, or the machine has no identity",
}
#: An identity token comes as bare text, and only itself says when it ends.
_IDENTITY: Final = ResponseRules(token="text", expires="jwt")  # noqa: S106  a word, no secret


@dataclass(frozen=True, slots=True)
class Metadata:
    """Which token of which service; see `config/provided.py` for the parts."""

    cloud: Cloud
    endpoint: str | None = None
    identity_header: Secret | None = None
    resource: Secret | str | None = None
    client_id: Secret | str | None = None
    account: str = "default"
    scope: tuple[str, ...] = ()
    audience: Secret | str | None = None

    def request(self) -> Step:
        """The token request."""
        if self.cloud == "gcp":
            return self._gcp()
        asked: dict[str, Value] = {"resource": self.resource, "client_id": self.client_id}
        if self.identity_header is not None and self.endpoint is not None:
            fields = {"api-version": "2019-08-01", **asked}
            return Step(self.endpoint, "GET", "query", fields, {"X-IDENTITY-HEADER": self.identity_header})
        fields = {"api-version": "2018-02-01", **asked}
        return Step(self.endpoint or _IMDS, "GET", "query", fields, {"Metadata": "true"})

    def _gcp(self) -> Step:
        account = f"{self.endpoint or _GCP}/computeMetadata/v1/instance/service-accounts/{self.account}"
        flavor: dict[str, Value] = {"Metadata-Flavor": "Google"}
        if self.audience is not None:
            # `full`: Cloud Run and IAP look at the claims that are left out otherwise.
            fields: dict[str, Value] = {"audience": self.audience, "format": "full"}
            return Step(f"{account}/identity", "GET", "query", fields, flavor)
        return Step(f"{account}/token", "GET", "query", {"scopes": ",".join(self.scope) or None}, flavor)

    @property
    def rules(self) -> ResponseRules:
        """Where the parts of the answer stand."""
        return _REPLY if self.audience is None else _IDENTITY

    def judge(self, reply: TokenReply, _step: Step) -> tuple[Verdict, str]:
        """What an answer means.

        Nothing here is ever rejected for good: there is no password that could be wrong, and 400, 404 and 410 are
        answers of a service that is being updated, or of a machine that gets its identity in a minute.
        """
        if reply.status != 200:
            return "transient", _HINTS[self.cloud] if reply.status in {400, 403, 404} else ""
        if self.cloud == "gcp" and not _is_google(reply):
            # There is no TLS that would show who answers (google-auth looks at this, too).
            return "misconfigured", "and no Metadata-Flavor, so it is no metadata server"
        return "accepted", ""


def _is_google(reply: TokenReply) -> bool:
    return any(name.lower() == "metadata-flavor" and value == "Google" for name, value in reply.headers)
