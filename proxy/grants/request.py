"""What is sent to a token endpoint and what comes back, as plain values."""

from dataclasses import dataclass

from proxy.redact import Secret


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One HTTP request to a token endpoint, ready to send. `headers` and `body` may hold secrets: no repr."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    def __repr__(self) -> str:
        return f"<TokenRequest {self.method}>"


@dataclass(frozen=True, slots=True)
class TokenReply:
    """One HTTP answer of a token endpoint: `status`, header fields as they came, and the whole body (bounded)."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return f"<TokenReply {self.status}>"


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token endpoint gave.

    `lifetime` is in seconds from when the request was sent; None where the reply does not say.
    `refresh_lifetime` likewise for the refresh token. `expires_at_wall` is kept beside it for people: epoch
    seconds as the vendor stated them, None where it did not. `contradicted` is a lifetime that the reply states
    and the token's own expiry does not bear out, None where they agree; `lifetime` is then the shorter one.
    `renewed`: it was got with a refresh token, so what is known of the end of the login still holds where
    `refresh_lifetime` says nothing.
    """

    token: Secret
    refresh_token: Secret | None = None
    lifetime: float | None = None
    refresh_lifetime: float | None = None
    expires_at_wall: float | None = None
    contradicted: float | None = None
    renewed: bool = False
