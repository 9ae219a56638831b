"""Serves a double on a free port for as long as a block lasts."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from proxy.demo.double import Double

#: Connections that may wait to be accepted: load tests open 500 at once, the default of 128 would refuse some.
BACKLOG: Final = 1024
#: Seconds that running handlers get at the end; every handler that waits for an event is released first.
DRAIN_SECONDS: Final = 1.0


@contextlib.asynccontextmanager
async def serving(
    served: Double[Any] | web.Application,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve `served` and give its base URL, without a trailing slash; port 0 takes a free one.

    Raises OSError if the address cannot be bound.
    """
    app = served if isinstance(served, web.Application) else served.app()
    # aiohttp would otherwise log request targets, and a token may stand in a query (threat 78).
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=BACKLOG).start()
        bound = runner.addresses[0][1]
        scheme = "http" if ssl_context is None else "https"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        await runner.cleanup()
