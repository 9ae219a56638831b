"""The inspector's page in a tab of a real browser."""

from pathlib import Path
from typing import Any, Final

from tests.support.harness import Proxy
from tests.support.inspectorfake import Inspector

ROOT: Final = Path(__file__).parents[2]
#: Kept by CI; those in docs/images are copies of what tests/test_inspector_live.py made.
SHOTS: Final = ROOT / ".artefacts" / "screenshots"
#: A browser says this of any answer that is no success; whether the page says something better is tested.
REFUSED: Final = "the server responded with a status of 409"


class Page:
    """The page in a tab, and what it complained of."""

    def __init__(self, tab: Any, inspector: Inspector | None = None) -> None:
        self.tab = tab
        self.inspector = inspector or Inspector()
        self.complaints: list[str] = []
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and REFUSED not in message.text:
            self.complaints.append(message.text)

    async def opens(self, url: str = "") -> None:
        """It is there, and listens."""
        await self.tab.goto(url or f"{self.inspector.url}/")
        await self.says("#link", "live")
        await self.says("#count", "exchanges")

    async def enters(self, proxy: Proxy) -> None:
        """The same, before a real proxy: its key does not stay in the address."""
        await self.opens(f"{proxy.instance.admin_url}/?key={proxy.instance.admin_key.reveal()}")
        assert "key=" not in self.tab.url

    async def says(self, where: str, text: str) -> None:
        """Something there says this, sooner or later."""
        await self.tab.locator(where, has_text=text).first.wait_for(state="attached")

    async def text(self, where: str) -> str:
        """What stands there."""
        return str(await self.tab.locator(where).first.inner_text())

    async def paths(self) -> list[str]:
        """Of the rows, from the top."""
        # What changes is drawn with the next frame.
        await self.tab.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        rows = await self.tab.evaluate(
            """() => [...document.querySelectorAll('.space .row')].sort((one, other) =>
                one.getAttribute('aria-rowindex') - other.getAttribute('aria-rowindex'))
                .map(row => row.querySelector('.c-path').textContent)"""
        )
        return list(rows)

    async def attempts(self) -> list[str]:
        """What the open exchange says above each of its attempts."""
        return list(await self.tab.locator(".attempt h4").all_inner_texts())

    async def keeps_bodies(self) -> None:
        """Switch them on where one is missed."""
        await self.tab.locator(".keep").first.click()
        await self.says("#bodies", "Bodies: on")

    async def press(self, *keys: str) -> None:
        """One after another."""
        for key in keys:
            await self.tab.keyboard.press(key)

    async def shot(self, name: str) -> None:
        """Keep a picture of it."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await self.tab.screenshot(path=SHOTS / f"{name}.png")
