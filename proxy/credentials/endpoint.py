"""Loads the client for token endpoints where a credential needs one: it takes as long to load as all the rest."""

from pathlib import Path

from proxy.credentials.grant import Endpoint


class LazyEndpoint:
    """One client for all credentials, made when the first asks for it; `ca` as `TokenEndpoint` takes it."""

    def __init__(self, *, ca: Path | None = None) -> None:
        self._ca = ca
        self._client: Endpoint | None = None

    def client(self) -> Endpoint:
        """The client; the first call takes as long as an import of aiohttp."""
        if self._client is None:
            from proxy.credentials.token_endpoint import TokenEndpoint  # noqa: PLC0415  see above

            self._client = TokenEndpoint(ca=self._ca)
        return self._client

    async def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            await self._client.close()
