"""A record as bytes, sealed or not, and back."""

import json
import math
from typing import Final

from proxy.redact import Secret
from proxy.stores.base import Missing, Record
from proxy.stores.seal import Ring

_VERSION: Final = 1
#: What is logged of a record that is there and does not open.
UNUSABLE: Final = {
    Missing.OTHER_KEY: "the stored token is sealed with a key that is not here: store.key must list those of "
    "all who share the store; the next token that is got here takes its place",
    Missing.UNREADABLE: "the stored token does not open: it was damaged, or got for another account or upstream; "
    "the next token that is got here takes its place",
}


def seal_record(ring: Ring, name: str, binding: bytes, record: Record) -> bytes:
    """A record of the credential `name`, to be opened with the same ring, name and binding."""
    return ring.seal(dump(record), _bound(name, binding))


def open_record(ring: Ring, name: str, binding: bytes, sealed: bytes) -> Record | Missing:
    """The record that was sealed, or why it does not open."""
    if ring.lacks_key_of(sealed):
        return Missing.OTHER_KEY
    content = ring.open(sealed, _bound(name, binding))
    record = None if content is None else parse(content)
    return Missing.UNREADABLE if record is None else record


def _bound(name: str, binding: bytes) -> bytes:
    """A record belongs to its credential as well: under another name it does not open."""
    return f"{len(name)}:{name}:".encode() + binding


def dump(record: Record) -> bytes:
    """JSON of a record, its secrets in the clear: seal it."""
    document = {
        "version": _VERSION,
        "generation": record.generation,
        "token": record.token.reveal(),
        "obtained_at": float(record.obtained_at),
        "expires_at": _float(record.expires_at),
        "refresh_token": None if record.refresh_token is None else record.refresh_token.reveal(),
        "refresh_expires_at": _float(record.refresh_expires_at),
        "redeeming": record.redeeming,
    }
    return json.dumps(document).encode("ascii")


def parse(content: bytes) -> Record | None:
    """The record that `dump` wrote, None for anything else; another version of this program may have sealed it."""
    try:
        found = json.loads(content)
        if _count(found["version"]) != _VERSION:
            return None
        refresh, refresh_ends = found["refresh_token"], found["refresh_expires_at"]
        return Record(
            _count(found["generation"]),
            Secret(_text(found["token"])),
            _instant(found["obtained_at"]),
            None if found["expires_at"] is None else _instant(found["expires_at"]),
            None if refresh is None else Secret(_text(refresh)),
            None if refresh_ends is None else _instant(refresh_ends),
            _flag(found["redeeming"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _instant(value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError
    return value
