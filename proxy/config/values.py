"""Reads the small values of a configuration: durations, sizes, names, header fields, pointers.

Law: every function is pure, takes what YAML gave, and raises `ValueError` with a sentence that says what to write
instead. The sentence never repeats the value, since a value in the wrong place may be a secret.
"""

import math
import re
from typing import Final, Literal

#: What stands for no user at all (chown(2)).
NO_UID: Final = (1 << 32) - 1
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)?")
_SECONDS: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d{1,15})(B|KiB|MiB|GiB)?")
_BYTES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: RFC 9110 section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")

#: Header fields that frame a message or belong to one connection: they are the proxy's own (threat 51).
FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: The cookies and the key header of the proxy itself; they never cross to an upstream.
OWN_COOKIES: Final = "bearer_proxy_"


def duration(value: object) -> float:
    """Seconds from a number or from `30s`, `5m`, `1h`, `29d`, `250ms`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration: a number of seconds, or 30s, 5m, 1h, 29d")
    return float(match[1]) * _SECONDS[match[2]]


def positive_duration(value: object) -> float:
    """A `duration` above zero: a time limit of nothing would refuse everything."""
    seconds = duration(value)
    if not seconds:
        raise ValueError("write a duration above zero, such as 30s")
    return seconds


def size(value: object) -> int:
    """Bytes from a whole number or from `64KiB`, `1MiB`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size: a number of bytes, or 64KiB, 1MiB, 1GiB")
    return int(match[1]) * _BYTES[match[2]]


def name(value: str) -> str:
    """A name of a route or credential: it stands in logs, metrics and file names."""
    if not _NAME.fullmatch(value) or set(value) <= {"."}:
        raise ValueError("write a name of letters, digits, '_', '.' and '-'")
    return value


def variable(value: str) -> str:
    """The name of an environment variable (POSIX.1-2024, Base Definitions, section 8.1)."""
    if not _VARIABLE.fullmatch(value):
        raise ValueError("write the name of an environment variable: letters, digits and '_'")
    return value


def token_word(value: str) -> str:
    """A word in the sense of RFC 9110 section 5.6.2."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("write one word of letters, digits and hyphens, without spaces or colons")
    return value


def header_name(value: str) -> str:
    """A header field name that the configuration may set or remove."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("this is not a header name: write letters, digits and hyphens, without spaces or colons")
    if value.lower() in FRAMING:
        raise ValueError("this header frames the message and belongs to the proxy: remove it here")
    return value


def header_value(value: str) -> str:
    """A header field value in printable ASCII, without spaces at its ends."""
    if not _FIELD_VALUE.fullmatch(value):
        raise ValueError("write a header value in printable ASCII, without line breaks or spaces at its ends")
    return value


def method(value: str) -> str:
    """A request method; methods are case-sensitive (RFC 9110 section 9.1)."""
    if not _TOKEN.fullmatch(value) or value != value.upper():
        raise ValueError("write a method in capital letters, such as GET")
    return value


def pointer(value: str) -> str:
    """A JSON pointer (RFC 6901)."""
    if not value.startswith("/") or re.search(r"~(?![01])", value):
        raise ValueError("write a JSON pointer, such as /access_token or /data/token")
    return value


def token_pointer(value: str) -> str:
    """A JSON pointer, `header:NAME` or `text`."""
    if value == "text":
        return value
    if value.startswith("header:"):
        if not _TOKEN.fullmatch(value.removeprefix("header:")):
            raise ValueError("write header: and a header name, such as header:X-Auth-Token")
        return value
    return pointer(value)


def expiry_pointer(value: str) -> str:
    """A JSON pointer, or the words `jwt` and `vanilla` for a token that carries its own expiry."""
    return value if value in {"jwt", "vanilla"} else pointer(value)


def peer_uids(value: object) -> Literal["any"] | tuple[int | Literal["self"], ...] | None:
    """Users by their numbers, `self` for the proxy's own; `any`: everybody; None: as is fit."""
    if value is None:
        return None
    if value == "any":
        return "any"
    users = value if isinstance(value, tuple | list) else ()
    if not users or not all(user == "self" or (type(user) is int and 0 <= user < NO_UID) for user in users):
        raise ValueError("write any, or a list of self and of users' numbers, such as [self, 1000]")
    return tuple(users)


def status(value: object) -> int:
    """A status of a final answer (RFC 9110 section 15)."""
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise ValueError("write a status between 200 and 599, such as 401")
    return value
