"""A request as a client sent it."""

from dataclasses import dataclass

from proxy.body import RequestBody
from proxy.guard import Head
from proxy.http1.request import RequestSection


@dataclass(slots=True, repr=False, eq=False)
class Request:
    """One request: its head, and its body (None: it has none).

    `client` is the address it came from, or `unix`. No repr: a head may hold the client key.
    """

    method: str
    target: bytes
    section: RequestSection
    body: RequestBody | None
    client: str
    unix: bool

    @property
    def minor(self) -> int:
        """The minor number of its HTTP version."""
        return self.section.minor

    @property
    def keep_alive(self) -> bool:
        """Does the client want the connection to live on (RFC 9112 section 9.3)?"""
        options = self.section.options
        if self.section.minor:
            return b"close" not in options
        return b"keep-alive" in options and b"close" not in options

    @property
    def head(self) -> Head:
        """What the guard looks at."""
        return Head(self.method, self.target, self.section, self.unix)
