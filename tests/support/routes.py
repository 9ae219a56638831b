"""Short configurations around a static token, and the head of a request as an upstream received it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


@dataclass(frozen=True)
class Keyed:
    """A static credential `default`: what a configuration says of it, its environment, and its value."""

    token: str = field(repr=False)

    @property
    def environ(self) -> dict[str, str]:
        """Where the token is."""
        return {"TOKEN": self.token}

    def credential(self, **more: Any) -> dict[str, Any]:
        """The credential; `more` are further keys."""
        return {"type": "static", "token": {"env": "TOKEN"}, **more}

    def config(self, upstream: object, *, top: Mapping[str, Any] | None = None, **route: Any) -> dict[str, Any]:
        """One route to `upstream` with this credential; `route` are further keys of it, `top` of the whole."""
        given = {"prefix": "/", "upstream": str(upstream), "credential": "default", **route}
        return {"routes": [given], "credentials": {"default": self.credential()}, **(top or {})}


@dataclass(frozen=True)
class Received:
    """One request head as it arrived, byte for byte in latin-1."""

    method: str
    target: str
    fields: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def names(self) -> list[str]:
        """The field names in their order, as they were written."""
        return [name for name, _ in self.fields]


def received(data: bytes | bytearray) -> Received:
    """The first request head in `data`."""
    first, *lines = bytes(data).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]
    return Received(method, target, pairs)
