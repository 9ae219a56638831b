"""The authorization code grant of a program on somebody's machine: where the browser goes, and what it brings back.

RFC 6749 section 4.1, PKCE (RFC 7636), loopback redirects (RFC 8252 section 7.3), `iss` (RFC 9207).
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode

from proxy.errors import BearerProxyError
from proxy.grants.oauth2 import shown
from proxy.redact import Secret

#: Bytes of randomness in each value that nobody may guess (RFC 7636 section 7.1).
_ENTROPY: Final = 32
#: More parameters than any server sends.
_MOST_PARAMETERS: Final = 64
_CODE: Final = re.compile(r"[\x20-\x7e]{1,4096}")


class Fault(Enum):
    """All that can be wrong with a callback, as complete sentences."""

    FOREIGN = "It does not answer this login: its state is missing, or another one."
    MIXED_UP = "It names another server (iss), or none although the server promises to: nothing was sent there."
    DENIED = "The server, or the person there, did not agree"
    NO_CODE = "It holds no code, or several, or one with odd characters."


class InvalidCallback(BearerProxyError):  # noqa: N818  the name says what happened, as in errors.py
    """What came back is no code for this login. Only a `FOREIGN` one leaves the real one to be waited for."""

    def __init__(self, fault: Fault, code: str = "") -> None:
        super().__init__(f"{fault.value}, {code}." if code else fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Attempt:
    """What ties an answer to our question: each is made for one login, and used once."""

    verifier: Secret
    state: Secret

    def parameters(self) -> dict[str, str | None]:
        """What the server is shown beforehand: of `verifier` only the digest (S256, RFC 7636 section 4.2)."""
        challenge = _unpadded(hashlib.sha256(self.verifier.reveal().encode("ascii")).digest())
        return {"state": self.state.reveal(), "code_challenge": challenge, "code_challenge_method": "S256"}


def attempt(random: Callable[[int], bytes]) -> Attempt:
    """A new one; `random` gives so many unguessable bytes."""
    return Attempt(Secret(_unpadded(random(_ENTROPY))), Secret(_unpadded(random(_ENTROPY))))


def redirect_uri(port: int, path: str) -> str:
    """Where the browser is sent back to: not `localhost`, which may mean another address (RFC 8252 section 8.3)."""
    return f"http://127.0.0.1:{port}{path}"


def authorization_url(url: str, parameters: Mapping[str, str | None]) -> str:
    """`url` with our parameters. Its own query is kept, but for names that are ours (RFC 6749 section 3.1)."""
    ours = {name: value for name, value in parameters.items() if value is not None}
    base, _, query = url.partition("?")
    kept = [pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in ours]
    return f"{base}?{'&'.join([*kept, urlencode(ours, quote_via=quote)])}"


def read_callback(query: str, made: Attempt, *, issuer: str | None, promised: bool) -> Secret:
    """The code in the query that the browser brought.

    `issuer` is the server's, None where it is not known; `promised`: its metadata says that it names itself.
    Raises `InvalidCallback`:

    1. Without our state, once, it is somebody else's, and nothing in it counts (RFC 9700 section 4.7).
    2. Named by another server, it would carry this server's code there (RFC 9207 section 2.4).
    3. An error of the server, or a person who does not agree.
    4. No proper code.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        pairs = []
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    states = given.get("state", [])
    if len(states) != 1 or Secret(states[0]) != made.state:
        raise InvalidCallback(Fault.FOREIGN)
    if issuer is not None and given.get("iss", [] if promised else [issuer]) != [issuer]:
        raise InvalidCallback(Fault.MIXED_UP)
    if "error" in given:
        raise InvalidCallback(Fault.DENIED, shown(given["error"][0]))
    codes = given.get("code", [])
    if len(codes) != 1 or not _CODE.fullmatch(codes[0]):
        raise InvalidCallback(Fault.NO_CODE)
    return Secret(codes[0])


def _unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")
