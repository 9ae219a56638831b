"""Lets a real process fail at a chosen point of a refresh: on its path, Python runs this before everything else.

`FAIL_AT` names the point; there it dies, or stands still once where `FAIL_BY` is `SIGSTOP`. One that only logs in
is let live: the points count from the first refresh on.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

#: The exit status by which a test knows that the point was reached.
REACHED = 77


def _fail() -> None:
    if "FAIL_BY" not in os.environ:
        os._exit(REACHED)
    number = os.environ["FAIL_BY"]
    if number:
        os.environ["FAIL_BY"] = ""
        os.kill(os.getpid(), signal.Signals[number])


def _arm(point: str) -> None:  # noqa: C901  six points, one after another
    from proxy.credentials.keeping import Keeping
    from proxy.credentials.login import LoginGrant
    from proxy.credentials.oauth2 import OAuthGrant
    from proxy.stores import files

    refreshing: list[bool] = []
    redeem: Callable[..., Awaitable[None]] = Keeping.redeem
    save: Callable[..., Awaitable[None]] = Keeping.save
    replace = Path.replace

    async def redeemed(self: Keeping, *, sole: bool) -> None:
        refreshing.append(True)
        if point == "before the note":
            _fail()
        await redeem(self, sole=sole)
        if point == "after the note":
            _fail()

    def obtaining(obtain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def obtained(*given: Any) -> Any:
            granted = await obtain(*given)
            if refreshing and point == "after the answer":
                _fail()
            return granted

        return obtained

    async def saved(self: Keeping, token: Any) -> None:
        refreshing.append(False)
        await save(self, token)
        if refreshing[-2:] == [True, False] and point == "after the record":
            _fail()

    def replaced(self: Path, target: Any) -> Path:
        is_record = refreshing[-2:] == [True, False]
        if is_record and point == "before the rename":
            _fail()
        found = replace(self, target)
        if is_record and point == "after the rename":
            _fail()
        return found

    Keeping.redeem, Keeping.save = redeemed, saved  # type: ignore[method-assign]  # a test puts its own in place
    for grant in (LoginGrant, OAuthGrant):
        grant.obtain = obtaining(grant.obtain)  # type: ignore[method-assign,assignment]  # same
    files.Path.replace = replaced  # type: ignore[method-assign,assignment,attr-defined]  # a test puts its own in place


if os.environ.get("FAIL_AT"):
    _arm(os.environ["FAIL_AT"])
