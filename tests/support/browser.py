"""A real browser: Debian's Chromium, driven by Playwright.

The browser's own protection of the local network is off: what keeps a page out here is the proxy alone (threat 8).
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

CHROMIUM: Final = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="this machine has no chromium")

#: A name that is not ours. It leads to this machine, as all others of `.test` do.
EVIL: Final = "evil.test"
#: Chromium's checks of the local network (156), which would stop most of what the tests try. The two others are of
#: those that Playwright turns off; of two such lists the last one counts.
_OFF: Final = (
    "LocalNetworkAccessChecks",
    "LocalNetworkAccessChecksWebSockets",
    "LocalNetworkAccessForFencedFrameNavigations",
    "LocalNetworkAccessForNavigations",
    "LocalNetworkAccessForSubframeNavigations",
    "LocalNetworkAccessForWorkers",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
)


@asynccontextmanager
async def chromium(public_port: int) -> AsyncIterator[Any]:
    """A browser (Playwright's `Browser`), to which what listens on `public_port` is not on the local network."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--host-resolver-rules=MAP *.test 127.0.0.1",
                f"--ip-address-space-overrides=127.0.0.1:{public_port}=public",
                f"--disable-features={','.join(_OFF)}",
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()
