"""A request as a client sent it."""

from dataclasses import dataclass

from proxy.body import RequestBody
from proxy.guard import Head


@dataclass(slots=True, repr=False, eq=False)
class Request(Head):
    """One request: its head, and its body (None: it has none). `client` is the address it came from, or `unix`."""

    body: RequestBody | None = None
    client: str = "unix"

    @property
    def keep_alive(self) -> bool:
        """Does the client want the connection to live on (RFC 9112 section 9.3)?"""
        section = self.section
        if section.minor:
            return b"close" not in section.options
        return b"keep-alive" in section.options and b"close" not in section.options
