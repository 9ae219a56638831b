"""Obtains the machine's own token from the cloud's metadata service."""

from proxy.credentials.asking import Asking
from proxy.credentials.grant import AnewGrant
from proxy.grants.metadata import Metadata
from proxy.grants.request import Granted
from proxy.redact import Secret


class MetadataGrant(AnewGrant):
    """Asks as `metadata` describes; `asking` judges by it, too."""

    def __init__(self, metadata: Metadata, asking: Asking) -> None:
        self._metadata = metadata
        self._asking = asking

    async def obtain(
        self, _refresh_token: Secret | None, _token: Secret | None = None, _barred: str | None = None
    ) -> Granted:
        """One request. Raises `CredentialUnavailable`."""
        return await self._asking.ask(self._metadata.request(), self._metadata.rules, "metadata service")
