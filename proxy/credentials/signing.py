"""Signs JSON Web Tokens (RFC 7515, 7519): to prove who a client is, and for grants that redeem one."""

import base64
import hashlib
import logging
import secrets
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

from proxy.clock import Wall
from proxy.errors import ConfigError
from proxy.grants.reply import RejectedReply
from proxy.grants.request import Granted
from proxy.redact import Borrowed, Secret

log: Final = logging.getLogger("proxy.credentials")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"]
#: How long an assertion is good, in seconds: it is used at once (RFC 7523 section 3, item 4).
ASSERTION_SECONDS: Final = 120
#: So far may a server's clock be behind ours.
BEHIND_SECONDS: Final = 10
#: Clocks that differ by less fit already; a date that differs by more is no server's clock.
LEAST_SKEW: Final = float(BEHIND_SECONDS)
MOST_SKEW: Final = 86400.0
#: In a claim's text: the fingerprint of the public key, as Snowflake wants it.
_FINGERPRINT: Final = "$key_sha256"


class ServerClock:
    """The wall clock as the server has it that is shown the JWTs of credential `name`.

    It refuses what is dated in its future or past its end (RFC 7523 section 3, items 4 to 6), which is all that a
    machine with a wrong clock can sign; but its refusal says what time it has.
    """

    def __init__(self, name: str, clock: Wall) -> None:
        self._name = name
        self._clock = clock
        self._ahead = 0.0

    def wall(self) -> float:
        """Seconds since the epoch, as far as is known there."""
        return self._clock.wall() + self._ahead

    def learn(self, date: float | None) -> bool:
        """Go by the `date` of a refusal from now on; is that another time than the one that was signed?"""
        ahead = 0.0 if date is None else date - self._clock.wall()
        if date is None or abs(ahead) > MOST_SKEW:
            return False
        if abs(ahead) < LEAST_SKEW:
            ahead = 0.0
        if abs(ahead - self._ahead) < LEAST_SKEW:
            return False
        self._ahead = ahead
        log.warning("clock_skewed", extra={"fields": {"credential": self._name, "seconds": round(ahead)}})
        return True

    async def asked(
        self,
        ask: Callable[[], Awaitable[Granted]],
        *,
        repeats: Callable[[RejectedReply], bool] = lambda _error: True,
    ) -> Granted:
        """What `ask` gives; asked once more where our clock may be why a JWT of ours was refused.

        `repeats`: may it be, after this refusal? Raises what `ask` does.
        """
        try:
            return await ask()
        except RejectedReply as error:
            if not repeats(error) or not self.learn(error.date):
                raise
        return await ask()


class Signing:
    """Signs with one key: PEM for the asymmetric algorithms, any text for HS256 and its like.

    `key_id` is its name at the server (`kid`, RFC 7515 section 4.1.4). Raises `ConfigError` at once for a key that
    the algorithm cannot use.
    """

    def __init__(self, name: str, key: Secret, algorithm: Algorithm, key_id: str | None, clock: Wall) -> None:
        import jwt  # noqa: PLC0415  few credentials sign, and it takes as long to load as all the rest

        # Ours says so at load, without the path of a library in it.
        warnings.filterwarnings("ignore", category=jwt.warnings.InsecureKeyLengthWarning)
        self._jwt = jwt
        self._name = name
        self._secret = key
        self._algorithm = algorithm
        self._headers = None if key_id is None else {"kid": key_id}
        self._clock = clock
        self._key = None if isinstance(key, Borrowed) else self._prepared()

    def _prepared(self) -> Any:  # noqa: ANN401  each algorithm has a kind of its own
        try:
            key = self._jwt.get_algorithm_by_name(self._algorithm).prepare_key(self._secret.reveal())
            self._jwt.encode({}, key, algorithm=self._algorithm)  # a public key can be prepared as well
        except (ValueError, TypeError, AttributeError, self._jwt.InvalidKeyError):
            # From None: the text of the key may be in the exception.
            is_shared = self._algorithm.startswith("HS")
            wanted = "any text" if is_shared else "a private key as PEM, without a passphrase"
            sentence = f"Credential {self._name!r}: key does not fit {self._algorithm}: give {wanted}."
            raise ConfigError([sentence]) from None
        return key

    def _usable(self) -> Any:  # noqa: ANN401  as above
        """The key; one that is borrowed is another one each time."""
        return self._prepared() if self._key is None else self._key

    def sign(self, claims: Mapping[str, Any], *, seconds: float = ASSERTION_SECONDS) -> Secret:
        """A token with these claims, and with `iat`, `exp` and a `jti` of its own where they are not given."""
        now = int(self._clock.wall())
        whole = {
            "iat": now - BEHIND_SECONDS,
            "exp": now + int(seconds),
            "jti": secrets.token_hex(16),
            **{name: self._filled(value) for name, value in claims.items()},
        }
        for name in ("iss", "sub"):  # texts (RFC 7519 section 4.1); YAML reads the number of an app as a number
            if isinstance(whole.get(name), int):
                whole[name] = str(whole[name])
        return Secret(self._jwt.encode(whole, self._usable(), algorithm=self._algorithm, headers=self._headers))

    def _filled(self, value: object) -> object:
        if isinstance(value, Secret):
            return value.reveal()
        if not isinstance(value, str) or _FINGERPRINT not in value:
            return value
        return value.replace(_FINGERPRINT, self._fingerprint())

    def _fingerprint(self) -> str:
        """SHA-256 of the public key (DER of SubjectPublicKeyInfo) in base64."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  as jwt

        form, kind = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        public = self._usable().public_key().public_bytes(form, kind)
        return base64.b64encode(hashlib.sha256(public).digest()).decode()


class OAuthSigner:
    """The JWTs of one `oauth2` credential, made anew for each request: servers refuse one that comes again."""

    def __init__(
        self,
        client_id: Secret | str | None,
        claims: Mapping[str, Any],
        *,
        client: Signing | None,
        bearer: Signing | None,
        clock: ServerClock,
    ) -> None:
        #: By which they are dated.
        self.clock = clock
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
