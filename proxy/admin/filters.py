"""What of the journal somebody asks for."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from proxy.admin.entries import Entry

_LISTED: Final = 200


class Filters:
    """What of the journal is asked for: `id`, `route`, `status` (404, 4xx), `method`, `text`, `before`, `limit`."""

    def __init__(self, query: bytes | None) -> None:
        given = dict(parse_qsl((query or b"").decode("latin-1"), max_num_fields=32))
        self._id = given.get("id")
        self._route = given.get("route")
        self._method = given.get("method", "").upper()
        self._status = given.get("status", "").lower().replace("x", "")
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
            and (not self._text or self._text in json.dumps(entry.detail).lower())
        )

    def lets_summary(self, summary: Mapping[str, Any], *, is_whole: bool = True) -> bool:
        """The same of a summary alone."""
        return (
            self._id in (None, summary["id"])
            and self._route in (None, summary["route"])
            and self._method in ("", summary["method"])
            and str(summary["status"]).startswith(self._status)
            and (not is_whole or not self._text or self._text in json.dumps(summary).lower())
        )
