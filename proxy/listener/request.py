"""A request as a client sent it."""

from proxy.body import RequestBody
from proxy.guard import Head
from proxy.http1.request import RequestSection


class Request(Head):
    """One request: its head, and its body (None: it has none). `client` is the address it came from, or `unix`."""

    __slots__ = ("body", "client")

    def __init__(
        self,
        method: str,
        target: bytes,
        section: RequestSection,
        *,
        body: RequestBody | None,
        client: str,
        port: int | None,
    ) -> None:
        super().__init__(method, target, section, port=port)
        self.body = body
        self.client = client

    @property
    def keep_alive(self) -> bool:
        """Does the client want the connection to live on (RFC 9112 section 9.3)?"""
        section = self.section
        if section.minor:
            return b"close" not in section.options
        return b"keep-alive" in section.options and b"close" not in section.options
