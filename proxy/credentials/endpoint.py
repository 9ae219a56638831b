"""The clients for token endpoints, made where a credential needs one: they take as long to load as all the rest."""

from pathlib import Path
from typing import NamedTuple

from proxy.credentials.grant import Endpoint


class Trust(NamedTuple):
    """What a client trusts and shows: files in PEM, as `client_context` takes them."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Clients:
    """One client for each `Trust`; `ca` is the bundle of those that name none (None: the machine's)."""

    def __init__(self, *, ca: Path | None = None) -> None:
        self._ca = ca
        self._clients: dict[Trust, Endpoint] = {}

    def client(self, trust: Trust = Trust()) -> Endpoint:  # noqa: B008  it does not change
        """The client; the first call takes as long as an import of aiohttp.

        Raises `OSError` or `ssl.SSLError` for files that cannot be used.
        """
        known = self._clients.get(trust)
        if known is None:
            from proxy.credentials.token_endpoint import TokenEndpoint  # noqa: PLC0415  see above

            known = self._clients[trust] = TokenEndpoint(ca=trust.ca or self._ca, cert=trust.cert, key=trust.key)
        return known

    async def close(self) -> None:
        """Close all clients."""
        for client in self._clients.values():
            await client.close()
