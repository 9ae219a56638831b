"""What of the journal somebody asks for."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from proxy.admin.entries import Entry
from proxy.errors import BadRequest

_LISTED: Final = 200
#: As many of its digits as matter, an x for any one.
_STATUS: Final = re.compile(r"(?:[0-9][0-9x]{0,2})?")


class Filters:
    """What of the journal is asked for: `id`, `route`, `status` (404, 4xx), `method`, `text`, `before`, `limit`."""

    def __init__(self, query: bytes | None) -> None:
        """Raises `BadRequest` where the status is none."""
        given = dict(parse_qsl((query or b"").decode("latin-1"), max_num_fields=32))
        self._id = given.get("id")
        self._route = given.get("route")
        self._method = given.get("method", "").upper()
        self._status = given.get("status", "").lower()
        if not _STATUS.fullmatch(self._status):
            raise BadRequest("status takes 200, 404, 4xx and the like.")
        self._text = given.get("text", "").lower()
        self.before = int(given["before"]) if given.get("before", "").isdecimal() else None
        limit = given.get("limit", "")
        self.limit = int(limit) if limit.isdecimal() else _LISTED

    def lets(self, entry: Entry) -> bool:
        """Is it asked for? The text may stand anywhere in it."""
        summary = entry.summary
        return (
            self.lets_summary(summary, is_whole=False)
            and (self.before is None or summary["number"] < self.before)
            and (not self._text or _says(entry.detail, self._text))
        )

    def lets_summary(self, summary: Mapping[str, Any], *, is_whole: bool = True) -> bool:
        """The same of a summary alone."""
        return (
            self._id in (None, summary["id"])
            and self._route in (None, summary["route"])
            and self._method in ("", summary["method"])
            and all(
                wanted in ("x", digit) for wanted, digit in zip(self._status, str(summary["status"]), strict=False)
            )
            and (not is_whole or not self._text or _says(summary, self._text))
        )


def _says(value: object, text: str) -> bool:
    """Does this text, in lower case, stand in one of the values?"""
    if isinstance(value, Mapping):
        return any(_says(each, text) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_says(each, text) for each in value)
    return value is not None and text in str(value).lower()
