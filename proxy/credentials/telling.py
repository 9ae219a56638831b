"""What the log says of a credential's token requests."""

import logging
from typing import Final

from proxy.errors import CredentialError
from proxy.lifecycle import Token

log: Final = logging.getLogger("proxy.credentials")


def tell_of_token(name: str, token: Token) -> None:
    """That one was got, and for how long."""
    # Rounded: a difference of two instants of a clock that has run for long.
    lifetime = None if token.expires_at is None else round(token.expires_at - token.obtained_at, 3)
    fields = {"credential": name, "generation": token.generation, "lifetime": lifetime}
    log.info("token_refreshed", extra={"fields": fields})


def tell_of_failure(name: str, error: CredentialError, retry_in: float | None) -> None:
    """Why none was got; `retry_in`: the seconds until it is tried again, None: not by itself."""
    event = error.code if retry_in is None else "token_refresh_failed"
    fields = {"credential": name, "error": error.code, "detail": error.detail, "retry_in": retry_in}
    log.warning(event, extra={"fields": {**fields, **dict(error.said)}})
