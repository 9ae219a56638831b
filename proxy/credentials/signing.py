"""Signs JSON Web Tokens (RFC 7515, 7519): to prove who a client is, and for grants that redeem one."""

import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal

from proxy.clock import Clock
from proxy.errors import ConfigError
from proxy.redact import Secret

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA", "HS256"]
#: How long an assertion is good, in seconds: it is used at once (RFC 7523 section 3, item 4).
ASSERTION_SECONDS: Final = 120
#: So far may a server's clock be behind ours.
BEHIND_SECONDS: Final = 10


class Signing:
    """Signs with one key: PEM for the asymmetric algorithms, any text for HS256.

    `key_id` is its name at the server (`kid`, RFC 7515 section 4.1.4). Raises `ConfigError` at once for a key that
    the algorithm cannot use.
    """

    def __init__(self, name: str, key: Secret, algorithm: Algorithm, key_id: str | None, clock: Clock) -> None:
        import jwt  # noqa: PLC0415  few credentials sign, and it takes as long to load as all the rest

        self._jwt = jwt
        self._algorithm = algorithm
        self._headers = None if key_id is None else {"kid": key_id}
        self._clock = clock
        try:
            self._key = jwt.get_algorithm_by_name(algorithm).prepare_key(key.reveal())
            jwt.encode({}, self._key, algorithm=algorithm)  # a public key can be prepared as well
        except (ValueError, TypeError, AttributeError, jwt.InvalidKeyError):
            # From None: the text of the key may be in the exception.
            wanted = "any text" if algorithm == "HS256" else "a private key as PEM, without a passphrase"
            raise ConfigError([f"Credential {name!r}: key does not fit {algorithm}: give {wanted}."]) from None

    def sign(self, claims: Mapping[str, Any]) -> Secret:
        """A token with these claims, and with `iat`, `exp` and a `jti` of its own where they are not given."""
        now = int(self._clock.wall())
        whole = {
            "iat": now - BEHIND_SECONDS,
            "exp": now + ASSERTION_SECONDS,
            "jti": secrets.token_hex(16),
            **claims,
        }
        return Secret(self._jwt.encode(whole, self._key, algorithm=self._algorithm, headers=self._headers))


class OAuthSigner:
    """The JWTs of one `oauth2` credential, made anew for each request: servers refuse one that comes again."""

    def __init__(
        self,
        client_id: str | None,
        claims: Mapping[str, Any],
        *,
        client: Signing | None,
        bearer: Signing | None,
    ) -> None:
        self._client_id = client_id
        self._claims = claims
        self._client = client
        self._bearer = bearer

    def client_assertion(self, audience: str) -> Secret | None:
        """Authenticates the client to `audience`, a token URL (RFC 7523 section 3)."""
        if self._client is None:
            return None
        return self._client.sign({"iss": self._client_id, "sub": self._client_id, "aud": audience})

    def assertion(self, audience: str) -> Secret | None:
        """What the grant `jwt_bearer` redeems; the configured claims win."""
        return None if self._bearer is None else self._bearer.sign({"aud": audience, **self._claims})
