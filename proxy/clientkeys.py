"""The keys that clients show: where they stand in a request, whose they are, and what each may be used for."""

import hmac
from collections.abc import Iterable

from proxy.fields import Fields, basic_password, cookie_values
from proxy.headers import CLIENT_KEY_COOKIE, CLIENT_KEY_HEADER
from proxy.redact import Secret
from proxy.routes import Policy


class ClientKey:
    """One key. `name` is the client's in the log, empty for the key that all share.

    `policy` is about the paths that the client asks for, before a route takes its prefix off.
    """

    __slots__ = ("name", "policy", "secret")

    def __init__(self, name: str, secret: Secret, policy: Policy) -> None:
        self.name = name
        self.secret = secret
        self.policy = policy

    def at(self, address: str) -> str:
        """Who asks, as the log has it."""
        return f"{self.name}@{address}" if self.name else address


class ClientKeys:
    """Finds keys in requests. Whatever is shown is compared with all of them, each in constant time."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[ClientKey]) -> None:
        self._keys = [(each.secret.reveal().encode(), each) for each in keys]

    def shown(self, value: bytes) -> ClientKey | None:
        """Whose key is this?"""
        found: ClientKey | None = None
        for key, each in self._keys:
            if hmac.compare_digest(value, key):
                found = each
        return found

    def stands_in(self, value: bytes) -> bool:
        """Does a key stand somewhere in this field value?"""
        return any(key in value for key, _ in self._keys)

    def in_header(self, fields: Fields) -> ClientKey | None:
        """The key that a request shows in the header that is made for it."""
        return next(filter(None, map(self.shown, fields.get(CLIENT_KEY_HEADER, ()))), None)

    def in_cookie(self, fields: Fields) -> ClientKey | None:
        """The key that a request shows in a cookie of ours."""
        values = cookie_values(fields.get(b"cookie", ()), CLIENT_KEY_COOKIE)
        return next(filter(None, map(self.shown, values)), None)

    def in_authorization(self, fields: Fields) -> ClientKey | None:
        """The key that a request shows as a Bearer token or as the password of Basic."""
        return next(filter(None, map(self._authorizes, fields.get(b"authorization", ()))), None)

    def _authorizes(self, value: bytes) -> ClientKey | None:
        scheme, _, rest = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            return self.shown(rest.strip())
        password = basic_password(value)
        return None if password is None else self.shown(password)
