"""Who is told of token requests."""

from typing import Protocol


class Events(Protocol):
    """Who wants to know: metrics. Every call is one event of one credential."""

    def token_requested(self, credential: str) -> None:
        """A token request is about to be sent."""
        ...

    def token_obtained(self, credential: str) -> None:
        """It gave a token."""
        ...

    def token_failed(self, credential: str, code: str) -> None:
        """It failed."""
        ...
