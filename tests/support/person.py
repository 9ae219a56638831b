"""Somebody who logs in, as a test has them behave."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Somebody:
    """Hears what is told; `opens` is what their browser does with a page, None where they have none.

    What they type is put into `lines`, None for the end; `types`: is there a terminal at all?
    """

    opens: Callable[[str], object] | None = None
    types: bool = False
    told: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    lines: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    shown: asyncio.Event = field(default_factory=asyncio.Event)
    browsing: list[asyncio.Future[Any]] = field(default_factory=list)

    @property
    def has_browser(self) -> bool:
        """Is there one?"""
        return self.opens is not None

    @property
    def can_paste(self) -> bool:
        """Is there a terminal?"""
        return self.types

    @property
    def text(self) -> str:
        """All that was said."""
        return "\n".join(self.told)

    def tell(self, text: str) -> None:
        """Hear it."""
        self.told.append(text)
        if self._pages():
            self.shown.set()

    def open(self, url: str) -> None:
        """In a thread, as a browser is another program."""
        assert self.opens is not None
        self.opened.append(url)
        self.browsing.append(asyncio.get_running_loop().run_in_executor(None, self.opens, url))

    async def paste(self) -> str | None:
        """What was put into `lines`."""
        return await self.lines.get()

    async def page(self) -> str:
        """The address that was told."""
        await self.shown.wait()
        return self._pages()[0]

    def _pages(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip().startswith("http")]
