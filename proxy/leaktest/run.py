"""The whole test: two copies side by side, one with a log in text and `-X dev`, one in JSON; then the search."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from proxy.config import Config
from proxy.findings import Finding
from proxy.leaktest import faults, process
from proxy.leaktest.acts import Acts
from proxy.leaktest.attempts import ATTEMPTS, IMPROPER
from proxy.leaktest.evidence import Evidence
from proxy.leaktest.mint import Mint
from proxy.leaktest.stage import staged

#: The log's style, and whether Python runs in its development mode, which says more.
_COPIES: Final = (("text", True), ("json", False))


async def tried(config: Config, mint: Mint) -> AsyncIterator[Finding]:
    """Every finding about a configuration that was loaded unread; `mint` makes its secrets. Raises `CopyFailed`."""
    evidence = Evidence()
    with tempfile.TemporaryDirectory(prefix="bearer-proxy-leaktest-") as folder:
        tasks = [asyncio.create_task(_copy(config, Path(folder), mint, evidence, style)) for style in _COPIES]
        try:
            rows = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for finding in dict.fromkeys(each for found, _counts in rows for each in found):
            yield finding
        yield _done(rows)
        for finding in await asyncio.to_thread(lambda: list(evidence.judged(mint.canaries))):
            yield finding


async def _copy(
    config: Config, above: Path, mint: Mint, evidence: Evidence, style: tuple[str, bool]
) -> tuple[list[Finding], dict[str, int]]:
    """Do everything to one copy; what is to be said of how that went."""
    log, development = style
    folder = above / log
    for name in ("", "home", "seen"):
        (folder / name).mkdir(mode=0o700)
    async with staged(config, folder, mint, log) as stage:
        path = folder / "config.yaml"
        path.touch(0o600)
        path.write_text(stage.copy.text(stage.data), "utf-8")
        environ = process.environment(folder, stage.environ)
        async with process.running(folder, path, environ, development=development) as running:
            acts = Acts(config, stage, running, evidence, commands=not development)
            await acts.all()
        found = [Finding("warning", "copy", each) for each in stage.copy.notes]
        found += [
            Finding("warning", "copy", f"{each} was never asked, so it is untested") for each in stage.unreached()
        ]
        if stage.stranger.count:
            detail = "it asked what HTTP_PROXY and its like name, which nothing may: please report it"
            found.append(Finding("failure", "environment", detail))
        return found, acts.counts


def _done(rows: list[tuple[list[Finding], dict[str, int]]]) -> Finding:
    """What was tried in all."""
    total: dict[str, int] = {}
    for _found, counts in rows:
        for what, count in counts.items():
            total[what] = total.get(what, 0) + count
    kinds = f"{len(ATTEMPTS) + len(IMPROPER)} kinds of requests, {len(faults.UPSTREAM)} of answers"
    tried = ", ".join(f"{count} {what}" for what, count in total.items())
    return Finding("ok", "tried", f"{tried} ({kinds}); {len(_COPIES)} copies, at debug")
