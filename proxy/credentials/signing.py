"""Signs JSON Web Tokens (RFC 7515, 7519): for clients that prove themselves by one, and for grants that redeem one."""

import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal

from proxy.clock import Clock
from proxy.errors import ConfigError
from proxy.redact import Secret

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA", "HS256"]
#: How long an assertion is good, in seconds: it is used at once (RFC 7523 section 3, item 4).
ASSERTION_SECONDS: Final = 120.0


class Signing:
    """Signs with one key: PEM for the asymmetric algorithms, any text for HS256.

    `headers` are added to the JOSE header, such as `kid` (RFC 7515 section 4.1.4). Raises `ConfigError` at once for
    a key that the algorithm cannot use.
    """

    def __init__(self, name: str, key: Secret, algorithm: Algorithm, headers: Mapping[str, str], clock: Clock) -> None:
        import jwt  # noqa: PLC0415  few credentials sign, and it takes as long to load as all the rest

        self._jwt = jwt
        self._algorithm = algorithm
        self._headers = dict(headers)
        self._clock = clock
        try:
            self._key = jwt.get_algorithm_by_name(algorithm).prepare_key(key.reveal())
        except (ValueError, TypeError, jwt.InvalidKeyError):
            # From None: the text of the key may be in the exception.
            wanted = "any text" if algorithm == "HS256" else "a private key as PEM, without a passphrase"
            raise ConfigError([f"Credential {name!r}: key does not fit {algorithm}: give {wanted}."]) from None

    def sign(self, claims: Mapping[str, Any], *, lifetime: float = ASSERTION_SECONDS, skew: float = 0.0) -> Secret:
        """A token with these claims, and with `iat`, `exp` and a `jti` of its own where they are not given.

        It is good for `lifetime` seconds and was issued `skew` seconds ago, for servers whose clocks are behind.
        """
        now = int(self._clock.wall() - skew)
        whole = {"iat": now, "exp": int(now + lifetime + skew), "jti": secrets.token_hex(16), **claims}
        return Secret(self._jwt.encode(whole, self._key, algorithm=self._algorithm, headers=self._headers or None))
