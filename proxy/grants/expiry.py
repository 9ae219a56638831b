"""When a token ends, from the many ways in which vendors say it.

Instants are epoch seconds, durations float seconds. Nothing here raises for what a server may have sent: a value
that cannot be read is None.
"""

import base64
import binascii
import json
import math
import re
import struct
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Longer lifetimes are taken as this one: ten years, the default of Vanilla's personal tokens, fit in it.
LONGEST_LIFETIME: Final = 3660 * 86400.0
#: Epoch numbers from here on are milliseconds: as seconds this is the year 5138, as milliseconds 1973.
MILLISECONDS_FROM: Final = 1e11

_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ISO_LENGTH: Final = 40
#: Vanilla's `TokenSigningTrait`: random part, expiry as a little-endian uint32, signature, all base64url.
_VANILLA: Final = re.compile(r"va\.[A-Za-z0-9_-]{32}\.([A-Za-z0-9_-]{6})\.[A-Za-z0-9_-]{7}")


def number(value: object) -> float | None:
    """An int, a float or a decimal string as a finite float; None for everything else (booleans too)."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def instant(value: object) -> float | None:
    """An absolute time: ISO 8601, epoch seconds, epoch milliseconds, or a date (the end of that day in UTC).

    A time without a zone is UTC. Fractions of any length are taken (.NET writes seven digits), as is a space
    instead of the `T`.
    """
    epoch = number(value)
    if epoch is not None:
        return epoch if epoch < MILLISECONDS_FROM else epoch / 1000
    if not isinstance(value, str) or len(value) > _ISO_LENGTH or not value.isascii():
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() + (86400.0 if _DATE.fullmatch(value) else 0.0)


def http_date(value: str) -> float | None:
    """An HTTP-date in any of its three forms (RFC 9110 section 5.6.7)."""
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        # The parser is made for mail and fails in more ways than it documents.
        return None


def jwt_expiry(token: str) -> float | None:
    """The `exp` of a JWT (RFC 7519 section 4.1.4), unverified: the token is ours to send, not to trust."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(_base64url(parts[1]))
    except (ValueError, RecursionError):
        return None
    return number(claims.get("exp")) if isinstance(claims, dict) else None


def vanilla_expiry(token: str) -> float | None:
    """The expiry that a Vanilla access token (`va.….….…`) carries in its third part."""
    match = _VANILLA.fullmatch(token)
    if match is None:
        return None
    seconds: int = struct.unpack("<I", _base64url(match[1]))[0]
    return float(seconds)


def _base64url(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2); raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
