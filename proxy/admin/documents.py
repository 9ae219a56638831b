"""What the admin listener answers with."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.listener.answer import ClientAnswer
from proxy.listener.request import Request

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
    return Document(json.dumps(document).encode() + b"\n", "application/json; charset=utf-8", status)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is asked for, by whom: `name` is the variable segment of the path, where it has one."""

    request: Request
    out: ClientAnswer
    query: bytes | None
    name: str = ""


#: Answers; None: it has done so by itself.
Answering = Callable[[Asked], Awaitable[Document | None]]
#: What answers, by the segments of the path (`*`: any) and the method.
Paths = Mapping[tuple[str, ...], Mapping[str, Answering]]


def found(paths: Paths, path: str) -> tuple[Mapping[str, Answering], str] | None:
    """What answers `path`, by method, and its variable segment."""
    segments = tuple(path.split("/")[1:])
    for wanted, methods in paths.items():
        pairs = list(zip(wanted, segments, strict=False))
        if len(wanted) == len(segments) and all(one in ("*", other) for one, other in pairs):
            return methods, next((other for one, other in pairs if one == "*"), "")
    return None
