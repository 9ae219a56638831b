"""Who may see what the admin listener has: whoever shows its key, as a Bearer token or by a cookie made of it.

Law: the key itself never rests in a browser. Cookies know no ports: a server on another port of the same host is
sent them as well, so the cookie is worth what the page may do, and no more. A request that changes something is
opened by it only where it says that it comes from our own page (threats 21, 82).
"""

import base64
import hashlib
import hmac
from typing import Final

from proxy.errors import Rejected
from proxy.fields import cookie_values
from proxy.guard import Head
from proxy.query import query_values
from proxy.redact import Secret

COOKIE: Final = b"bearer_proxy_admin"
_SAFE: Final = frozenset({"GET", "HEAD"})


class AdminKeyRequired(Rejected):
    """The admin key was not sent, or is wrong."""

    status = 401
    code = "admin_key_required"
    title = "Admin key required"
    explanation = (
        "Send the admin key as Authorization: Bearer KEY, or open the page with /?key=KEY; it is admin.key, or "
        "stands in the run file, and `run` writes the whole address to a terminal."
    )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """A 401 names its scheme (RFC 9110 section 15.5.2)."""
        return (("WWW-Authenticate", 'Bearer realm="bearer-proxy admin"'),)


class Entrance:
    """Knows the admin key, and the cookie that is made of it."""

    def __init__(self, key: Secret) -> None:
        self._key = key
        made = hmac.digest(
            key.reveal().encode("utf-8", "surrogatepass"), b"bearer-proxy admin cookie", hashlib.sha256
        )
        self.cookie = Secret(base64.urlsafe_b64encode(made).decode().rstrip("="))

    def check(self, head: Head) -> None:
        """Raise `AdminKeyRequired` unless the key, or the cookie, came with it, each compared in constant time."""
        if not self._has_key(head) and not self._has_cookie(head):
            raise AdminKeyRequired

    def opens(self, query: bytes | None) -> bool:
        """Does the key stand in this query, as in the address that `run` shows?"""
        given = query_values(query, b"key")
        return len(given) == 1 and self._is_key(given[0])

    def cookie_line(self) -> bytes:
        """The field that hands the cookie out."""
        value = self.cookie.reveal().encode()
        return b"Set-Cookie: %b=%b; HttpOnly; SameSite=Strict; Path=/" % (COOKIE, value)

    def _has_key(self, head: Head) -> bool:
        # A second Authorization field is no second guess.
        values = head.section.values.get(b"authorization", [])
        scheme, _, given = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and self._is_key(given.strip())

    def _has_cookie(self, head: Head) -> bool:
        fields = head.section.values
        given = cookie_values(fields.get(b"cookie", ()), COOKIE)
        if not any(Secret(each.decode("latin-1")) == self.cookie for each in given):
            return False
        # The guard has looked at what they say; here it counts that one of them says something.
        return head.method in _SAFE or b"origin" in fields or b"sec-fetch-site" in fields

    def _is_key(self, given: bytes) -> bool:
        return Secret(given.decode("latin-1")) == self._key
