"""Looks at the parameters of a raw query, and takes some out; every other byte stays as it came."""

import re
from urllib.parse import unquote_to_bytes


def strip_query(query: bytes | None, names: frozenset[bytes]) -> bytes | None:
    """`query` without the parameters `names`, every other byte as it came.

    A parameter counts however its name is escaped or spelled, and behind `;` too, since some servers split there
    (threats 31, 47).
    """
    if not query or not names:
        return query
    aliases = frozenset(map(_canonical, names))
    pieces = re.split(rb"([&;])", query)  # parameter, separator, parameter, …
    kept: list[bytes] = []
    for at in range(0, len(pieces), 2):
        if _canonical(_parameter_name(pieces[at])) not in aliases:
            kept.extend((pieces[at - 1], pieces[at]) if kept else (pieces[at],))
    return query if len(kept) == len(pieces) else b"".join(kept) or None


def _parameter_name(piece: bytes) -> bytes:
    return unquote_to_bytes(piece.partition(b"=")[0].replace(b"+", b" ")).strip()


def _canonical(name: bytes) -> bytes:
    """A name as PHP (`a.b`, `a b` and `a_b[]` are one variable) and ASP.NET (nor does case count) see it."""
    return name.partition(b"[")[0].replace(b".", b"_").replace(b" ", b"_").lower()


def query_values(query: bytes | None, name: bytes) -> list[bytes]:
    """The decoded values of the query parameter `name`."""
    pieces = re.split(rb"[&;]", query or b"")
    return [
        unquote_to_bytes(piece.partition(b"=")[2].replace(b"+", b" "))
        for piece in pieces
        if _parameter_name(piece) == name
    ]


def query_names(query: bytes, most: int) -> bytes:
    """The names of the first `most` parameters as they stand, with `&` between them, for the log."""
    return b"&".join([piece.partition(b"=")[0] for piece in query.split(b"&", most)[:most]])
