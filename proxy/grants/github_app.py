"""GitHub Apps: the proof of the app, and the request for an installation's token (docs.github.com, apps)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from proxy.grants.login import ResponseRules, Step, Value
from proxy.redact import Secret

REPLY: Final = ResponseRules(token="/token", expires="/expires_at")  # noqa: S106  a JSON pointer, no secret
#: How long a proof may be good: ten minutes at most, and GitHub's clock may be behind.
PROOF_SECONDS: Final = 540


@dataclass(frozen=True, slots=True)
class GitHubApp:
    """One installation; `repositories` and `permissions` narrow its token where they are given."""

    app_id: Secret | str | None
    installation_id: Secret | str | None
    base_url: str
    repositories: tuple[str, ...] = ()
    permissions: Mapping[str, str] = field(default_factory=dict)

    def request(self) -> Step:
        """The request for a token; the proof goes along as its bearer."""
        fields: dict[str, Value] = {f"/repositories/{at}": name for at, name in enumerate(self.repositories)}
        fields |= {f"/permissions/{name}": level for name, level in self.permissions.items()}
        named = self.installation_id
        installation = quote(named.reveal() if isinstance(named, Secret) else named or "", safe="")
        return Step(
            f"{self.base_url}/app/installations/{installation}/access_tokens",
            encoding="json",
            fields=fields,
            headers={"Accept": "application/vnd.github+json"},
            accept=(201,),
        )
