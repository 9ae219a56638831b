"""What the admin listener answers with."""

import json
from dataclasses import dataclass
from typing import Any, Final

_COMMON: Final = (b"Cache-Control: no-store", b"X-Content-Type-Options: nosniff")


@dataclass(frozen=True, slots=True)
class Document:
    """A whole answer; `more` are further field lines."""

    body: bytes
    content_type: str
    status: int = 200
    more: tuple[bytes, ...] = ()

    @property
    def lines(self) -> tuple[bytes, ...]:
        """Its field lines, less those that frame it."""
        return (b"Content-Type: %b" % self.content_type.encode(), *_COMMON, *self.more)


def as_json(document: Any, status: int = 200) -> Document:  # noqa: ANN401  whatever JSON takes
    """A JSON document in ASCII."""
    return raw_json(json.dumps(document).encode(), status)


def raw_json(text: bytes, status: int = 200) -> Document:
    """JSON that is written already."""
    return Document(text + b"\n", "application/json; charset=utf-8", status)
