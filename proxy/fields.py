"""Reads values out of raw header fields; forwards and decides nothing."""

import base64
from collections.abc import Iterable, Mapping
from typing import Final

#: A field as it came: its lower-case name, its value without white space around it, its whole line without the end.
Field = tuple[bytes, bytes, bytes]
#: The values of each field by its lower-case name.
Fields = Mapping[bytes, list[bytes]]

_CANONICAL: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_.", b"abcdefghijklmnopqrstuvwxyz--")


def canonical(name: bytes) -> bytes:
    """A field name as upstreams that map names to variables see it: `X_Api.Key` is `x-api-key` (threat 47)."""
    return name.translate(_CANONICAL)


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """The lower-case tokens of all Connection fields (RFC 9110 section 7.6.1)."""
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b",") if token)


def cookie_values(values: Iterable[bytes], name: bytes) -> list[bytes]:
    """The values of the cookie `name` in these Cookie fields."""
    pairs = (pair.partition(b"=") for value in values for pair in value.split(b";"))
    return [value.strip(b' \t"') for key, mark, value in pairs if mark and key.strip(b" \t") == name]


def basic_password(value: bytes) -> bytes | None:
    """The password of a `Basic` Authorization value (RFC 7617), None where it is none."""
    scheme, _, encoded = value.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        _, mark, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return password if mark else None


def without_scheme(value: bytes) -> bytes:
    """The part of an Authorization-like value behind its scheme word, or all of it."""
    return value.strip().partition(b" ")[2].strip() or value.strip()
