"""Lets a real process die at a chosen point of a refresh: on its path, Python runs this before everything else.

`FAIL_AT` names the point. A process that only logs in is let live: the points count from the first refresh on.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

#: The exit status by which a test knows that the point was reached.
REACHED = 77


def _die() -> None:
    os._exit(REACHED)


def _arm(point: str) -> None:  # noqa: C901  six points, one after another
    from proxy.credentials.keeping import Keeping
    from proxy.credentials.login import LoginGrant
    from proxy.stores import files

    refreshing: list[bool] = []
    redeem: Callable[[Keeping], Awaitable[None]] = Keeping.redeem
    obtain: Callable[..., Awaitable[Any]] = LoginGrant.obtain
    save: Callable[..., Awaitable[None]] = Keeping.save
    replace = Path.replace

    async def redeemed(self: Keeping) -> None:
        refreshing.append(True)
        if point == "before the note":
            _die()
        await redeem(self)
        if point == "after the note":
            _die()

    async def obtained(self: LoginGrant, refresh_token: Any, token: Any = None) -> Any:
        granted = await obtain(self, refresh_token, token)
        if refreshing and point == "after the answer":
            _die()
        return granted

    async def saved(self: Keeping, token: Any) -> None:
        refreshing.append(False)
        await save(self, token)
        if len(refreshing) > 2 and point == "after the record":
            _die()

    def replaced(self: Path, target: Any) -> Path:
        is_record = refreshing[-2:] == [True, False]
        if is_record and point == "before the rename":
            _die()
        found = replace(self, target)
        if is_record and point == "after the rename":
            _die()
        return found

    Keeping.redeem, Keeping.save = redeemed, saved  # type: ignore[method-assign]  # a test puts its own in place
    LoginGrant.obtain = obtained  # type: ignore[method-assign]  # a test puts its own in place
    files.Path.replace = replaced  # type: ignore[method-assign,assignment,attr-defined]  # a test puts its own in place


if os.environ.get("FAIL_AT"):
    _arm(os.environ["FAIL_AT"])
