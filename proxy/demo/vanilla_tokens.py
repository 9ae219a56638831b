"""The personal access tokens of the Vanilla double: signed text, and the table that knows who each one speaks for.

The form `va.RANDOM.EXPIRY.SIGNATURE`, the checks, their order and their sentences are those of the product's
`TokenSigningTrait` and `AccessTokenModel`.
"""

import base64
import dataclasses
import hashlib
import hmac
import struct
from datetime import UTC, datetime


class InvalidTokenError(Exception):
    """A token that is not taken; the text is the vendor's sentence and never holds the token."""


def sign(random: bytes, expires_at: int, secret: str) -> str:
    """The token of 24 random bytes that ends at the epoch second `expires_at`."""
    signed = f"va.{_encode(random)}.{_encode(struct.pack('<I', expires_at))}"
    return f"{signed}.{_signature(signed, secret)}"


def verify(token: str, secret: str, now: float) -> None:
    """Check form, expiry against epoch seconds, and signature.

    Raises InvalidTokenError.
    """
    if not token:
        raise InvalidTokenError("Missing access token.")
    parts = token.split(".")
    if len(parts) != 4:
        raise InvalidTokenError("Your access token missing parts.")
    try:
        (expires_at,) = struct.unpack("<I", base64.urlsafe_b64decode(f"{parts[2]}=="))
    except (ValueError, struct.error):
        raise InvalidTokenError("Your access token has an invalid expiry date.") from None
    if expires_at <= now:
        raise InvalidTokenError("Your access token has expired.")
    if not hmac.compare_digest(_signature(token.rpartition(".")[0], secret).encode(), parts[3].encode()):
        raise InvalidTokenError("Your access token has an invalid signature.")


def _signature(signed: str, secret: str) -> str:
    return _encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))[:7]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclasses.dataclass(slots=True)
class Row:
    """One token as the server's table has it; instants in epoch seconds."""

    token_id: int
    user_id: int
    name: str
    value: str = dataclasses.field(repr=False)
    inserted_at: float
    expires_at: float
    revoked: bool = False

    def complaint(self, now: float) -> str | None:
        """Why this token is not taken at `now`, in the words that follow "access token"; None if it is."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires_at <= now else None

    def public(self) -> dict[str, object]:
        """What a listing shows: everything but the value."""
        inserted = datetime.fromtimestamp(self.inserted_at, UTC).isoformat(timespec="seconds")
        return {"accessTokenID": self.token_id, "name": self.name, "dateInserted": inserted}


class TokenTable:
    """The tokens that were issued, signed with `secret`. All instants are epoch seconds, given by the caller."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._rows: list[Row] = []

    def insert(self, user_id: int, name: str, *, random: bytes, now: float, lifetime: int) -> Row:
        """Issue a token of `user_id` for `lifetime` seconds."""
        expires_at = int(now) + lifetime
        value = sign(random, expires_at, self._secret)
        row = Row(len(self._rows) + 1, user_id, name, value, inserted_at=now, expires_at=expires_at)
        self._rows.append(row)
        return row

    def user_of(self, token: str, now: float) -> int:
        """Whom `token` speaks for.

        Raises InvalidTokenError.
        """
        verify(token, self._secret, now)
        row = next((row for row in self._rows if row.value == token), None)
        if row is None:
            raise InvalidTokenError("Access token not found.")
        match row.complaint(now):
            case "revoked":
                raise InvalidTokenError("Your access token was revoked.")
            case "expired":
                raise InvalidTokenError("Your access token has expired.")
        return row.user_id

    def of(self, user_id: int) -> list[Row]:
        """The tokens of one user, oldest first, those that are no longer good included."""
        return [row for row in self._rows if row.user_id == user_id]

    def expire(self, now: float) -> int:
        """End all tokens that are good at `now`, and say how many; their text still names the later expiry."""
        live = [row for row in self._rows if row.complaint(now) is None]
        for row in live:
            row.expires_at = now
        return len(live)
