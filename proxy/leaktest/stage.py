"""A copy's surroundings: all far ends that it may reach, each ours, and one that it must never reach."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from proxy.config import (
    Config,
    CredentialConfig,
    GitHubAppCredential,
    LoginCredential,
    MetadataCredential,
    OAuthCredential,
)
from proxy.leaktest import faults
from proxy.leaktest.copying import Copy, Origins
from proxy.leaktest.farend import FarEnd, Heard, Played, tunnelling
from proxy.leaktest.mint import Mint
from proxy.leaktest.replies import discovered, granted

#: Those that ask a server for their token.
_ASKING: Final = (LoginCredential, OAuthCredential, MetadataCredential, GitHubAppCredential)
#: Where the environment may send what is not meant for it (threat 58).
_ENVIRONMENT_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, slots=True)
class Stage:
    """A copy with its text, the far ends by route and by credential, and the stranger that nobody may reach."""

    copy: Copy
    data: dict[str, Any] = field(repr=False)
    upstreams: Mapping[str, FarEnd]
    servers: Mapping[str, FarEnd]
    stranger: FarEnd

    @property
    def environ(self) -> dict[str, str]:
        """The copy's own variables."""
        return {**self.copy.environ, **dict.fromkeys(_ENVIRONMENT_PROXIES, self.stranger.origin)}

    def unreached(self) -> list[str]:
        """The far ends that nobody asked, by key path."""
        routes = [f"routes.{name}: its upstream" for name, far in self.upstreams.items() if not far.count]
        return routes + [f"credentials.{name}: its server" for name, far in self.servers.items() if not far.count]


@asynccontextmanager
async def staged(config: Config, folder: Path, mint: Mint, style: str) -> AsyncIterator[Stage]:
    """Everything in `folder`, and on free ports of loopback; the copy logs in `style`."""
    async with AsyncExitStack() as stack:
        upstreams, servers = {}, {}
        for number, route in enumerate(config.routes):
            far = FarEnd(faults.UPSTREAM[0].play, partial(_seen, mint, f"routes.{route.name}"))
            socket = None if route.upstream_origin.socket is None else folder / f"up-{number}.sock"
            upstreams[route.name] = await stack.enter_async_context(far.listening(socket))
        for name, given in config.credentials.items():
            if isinstance(given, _ASKING):
                server = FarEnd(lambda _heard: Played(), partial(_seen, mint, f"credentials.{name}"))
                server.play = _good(name, given, server, mint)
                servers[name] = await stack.enter_async_context(server.listening())
        stranger = FarEnd(lambda _heard: Played(end="reset"), lambda _heard: None)
        await stack.enter_async_context(stranger.listening())
        origins = Origins(
            routes={name: far.origin for name, far in upstreams.items()},
            credentials={name: far.origin for name, far in servers.items()},
            via=await stack.enter_async_context(tunnelling()),
        )
        copy = Copy(config, folder, mint, origins)
        yield Stage(copy, copy.written(style), upstreams, servers, stranger)


def _seen(mint: Mint, whose: str, heard: Heard) -> None:
    mint.seen(f"{whose}, what the proxy signed", heard.head + heard.body)


def _good(name: str, given: CredentialConfig, server: FarEnd, mint: Mint) -> Callable[[Heard], Played]:
    def play(heard: Heard) -> Played:
        if isinstance(given, OAuthCredential) and ".well-known/" in heard.target:
            return discovered(server.origin, name)
        return granted(name, given, heard, mint)

    return play
