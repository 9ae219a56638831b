"""Signed JSON Web Tokens, verified with the public key by a library that did not make them up."""

import traceback
from collections.abc import Mapping
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from proxy.credentials.signing import (
    ASSERTION_SECONDS,
    BEHIND_SECONDS,
    Algorithm,
    OAuthSigner,
    ServerClock,
    Signing,
)
from proxy.errors import ConfigError
from proxy.redact import Secret
from tests.support.harness import HeldClock

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
URL: Final = "https://id.example.com/token"
TEXT: Final = "a shared text of forty characters, no less"


def _keys() -> dict[str, PrivateKey]:
    return {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ed448": ed448.Ed448PrivateKey.generate(),
    }


KEYS: Final = _keys()


def pem(
    name: str,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> str:
    """A private key as text."""
    return KEYS[name].private_bytes(Encoding.PEM, form, encryption or NoEncryption()).decode()


def public_pem(name: str) -> str:
    """Its public half."""
    return KEYS[name].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signing(key: str, algorithm: Algorithm, clock: HeldClock, key_id: str | None = None) -> Signing:
    """Of a credential called `billing`."""
    return Signing("billing", Secret(key), algorithm, key_id, clock)


def verified(token: Secret, key: str, algorithm: str, audience: str | None = None) -> Mapping[str, Any]:
    """The claims, if the signature holds; times are looked at by the tests, which hold the clock."""
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": audience is not None}
    claims: Mapping[str, Any] = jwt.decode(
        token.reveal(), key, algorithms=[algorithm], audience=audience, options=options
    )
    return claims


PAIRS: Final[list[tuple[Algorithm, str]]] = [
    ("RS256", "rsa"),
    ("PS256", "rsa"),
    ("ES256", "p256"),
    ("EdDSA", "ed25519"),
    ("EdDSA", "ed448"),
]


@pytest.mark.parametrize(("algorithm", "key"), PAIRS)
def test_a_signature_holds_against_the_public_key(algorithm: Algorithm, key: str, clock: HeldClock) -> None:
    """But not for other claims; the header names algorithm and key."""
    token = signing(pem(key), algorithm, clock, f"key-{key}").sign({"aud": URL, "n": 7})
    assert verified(token, public_pem(key), algorithm, URL)["n"] == 7
    assert jwt.get_unverified_header(token.reveal()) == {"alg": algorithm, "kid": f"key-{key}", "typ": "JWT"}
    parts, others = (each.reveal().split(".") for each in (token, signing(pem(key), algorithm, clock).sign({})))
    with pytest.raises(jwt.InvalidSignatureError):
        verified(Secret(".".join([*parts[:2], others[2]])), public_pem(key), algorithm)


def test_a_shared_text_signs_too(clock: HeldClock) -> None:
    """For client_secret_jwt; without an identifier there is no `kid`."""
    token = signing(TEXT, "HS256", clock).sign({})
    verified(token, TEXT, "HS256")
    assert "kid" not in jwt.get_unverified_header(token.reveal())
    with pytest.raises(jwt.InvalidSignatureError):
        verified(token, TEXT[::-1], "HS256")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("around", ["{}", "\n\n{}\n", "# the key of ann\n{}"])
def test_a_private_key_is_taken_in_the_forms_that_tools_write(
    form: PrivateFormat, around: str, clock: HeldClock
) -> None:
    """PKCS 8, and what OpenSSL wrote before; with text around it."""
    pairs: list[tuple[Algorithm, str]] = [("RS256", "rsa"), ("ES256", "p256")]
    for algorithm, key in pairs:
        token = signing(around.format(pem(key, form)), algorithm, clock).sign({})
        verified(token, public_pem(key), algorithm)


def test_times_are_those_of_the_wall(clock: HeldClock) -> None:
    """Good for two minutes, and already so for a server whose clock is ten seconds behind (RFC 7523 section 3)."""
    clock.move(0.75)
    claims = verified(signing(pem("rsa"), "RS256", clock).sign({}), public_pem("rsa"), "RS256")
    now = int(clock.wall())
    assert (claims["iat"], claims["exp"]) == (now - BEHIND_SECONDS, now + ASSERTION_SECONDS)
    assert isinstance(claims["iat"], int)


def test_no_two_tokens_have_the_same_identifier(clock: HeldClock) -> None:
    """Servers refuse one that comes again, and the clock may stand still between two."""
    signs = signing(pem("rsa"), "RS256", clock)
    found = {verified(signs.sign({}), public_pem("rsa"), "RS256")["jti"] for _ in range(20)}
    assert len(found) == 20
    assert {len(each) for each in found} == {32}


def test_given_claims_win(clock: HeldClock) -> None:
    """A server may want a longer life, or an identifier of its own making."""
    given = {"iat": 1, "exp": 2, "jti": "mine", "scope": ["a", "b"], "nested": {"é": None}}
    token = signing(pem("ed25519"), "EdDSA", clock).sign(given)
    assert verified(token, public_pem("ed25519"), "EdDSA") == given


ASYMMETRIC: Final[tuple[Algorithm, ...]] = ("RS256", "PS256", "ES256", "EdDSA")


def test_a_number_becomes_a_text_where_the_standard_wants_one(clock: HeldClock) -> None:
    """YAML reads the identifier of an app as a number; other claims stay what they are."""
    token = signing(pem("ed25519"), "EdDSA", clock).sign({"iss": 12345, "sub": 7, "n": 8})
    claims = verified(token, public_pem("ed25519"), "EdDSA")
    assert (claims["iss"], claims["sub"], claims["n"]) == ("12345", "7", 8)


BAD_KEYS: Final[list[tuple[Algorithm, str]]] = [
    ("RS256", pem("p256")),
    ("RS256", pem("ed25519")),
    ("RS256", public_pem("rsa")),
    ("PS256", public_pem("rsa")),
    ("ES256", pem("rsa")),
    ("ES256", pem("p384")),
    ("ES256", public_pem("p256")),
    ("EdDSA", pem("p256")),
    ("EdDSA", public_pem("ed25519")),
    ("HS256", pem("rsa")),
    ("HS256", public_pem("rsa")),
    ("HS256", ""),
    *(
        (algorithm, key)
        for algorithm in ASYMMETRIC
        for key in (
            "",
            "kanarie-0123456789",
            "\udcff",
            "ssh-rsa AAAAkanarie-0123456789",
            "-----BEGIN PRIVATE KEY-----\nkanarie\n-----END PRIVATE KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nkanarie\n-----END CERTIFICATE-----\n",
            pem("rsa", encryption=BestAvailableEncryption(b"phrase")),
            pem("ed25519", encryption=BestAvailableEncryption(b"phrase")),
            pem("rsa")[:400],
        )
    ),
]


@pytest.mark.parametrize(("algorithm", "key"), BAD_KEYS, ids=map(str, range(len(BAD_KEYS))))
def test_a_key_that_cannot_sign_is_told_at_the_start(algorithm: Algorithm, key: str, clock: HeldClock) -> None:
    """Which credential, which algorithm and what is wanted; never a part of the key, in no traceback either."""
    with pytest.raises(ConfigError) as caught:
        signing(key, algorithm, clock)
    wanted = "any text" if algorithm == "HS256" else "a private key as PEM, without a passphrase"
    assert caught.value.problems == [f"Credential 'billing': key does not fit {algorithm}: give {wanted}."]
    shown = "".join(traceback.format_exception(caught.value))
    assert "kanarie" not in shown
    assert not any(line in shown for line in key.splitlines() if len(line) > 20)


def test_a_signer_shows_no_key(clock: HeldClock) -> None:
    """When it is printed."""
    made = signing(TEXT, "HS256", clock)
    signer = OAuthSigner("id", {}, client=made, bearer=None, clock=ServerClock("c", clock))
    assert TEXT not in f"{made!r}{signer!r}{made.sign({})!r}"


def test_a_client_proves_who_it_is_to_one_server(clock: HeldClock) -> None:
    """Issuer and subject are the client, the audience the token URL (RFC 7523 section 3)."""
    signer = OAuthSigner(
        "tool",
        {"sub": "ann"},
        client=signing(pem("p256"), "ES256", clock),
        bearer=None,
        clock=ServerClock("c", clock),
    )
    token = signer.client_assertion(URL)
    assert token is not None
    claims = verified(token, public_pem("p256"), "ES256", URL)
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("tool", "tool", URL)
    assert signer.client_assertion(URL) != token
    assert signer.assertion(URL) is None


@pytest.mark.parametrize(
    ("given", "audience", "expected"),
    [
        ({"iss": "ann", "scope": "a b"}, URL, {"iss": "ann", "scope": "a b", "aud": URL}),
        ({"aud": "https://login.example.com"}, "https://login.example.com", {"aud": "https://login.example.com"}),
    ],
)
def test_a_bearer_assertion_has_the_configured_claims(
    given: dict[str, Any], audience: str, expected: dict[str, Any], clock: HeldClock
) -> None:
    """Some servers want another audience than their token URL (Salesforce)."""
    signer = OAuthSigner(
        None, given, client=None, bearer=signing(pem("rsa"), "PS256", clock), clock=ServerClock("c", clock)
    )
    token = signer.assertion(URL)
    assert token is not None
    claims = verified(token, public_pem("rsa"), "PS256", audience)
    assert {key: value for key, value in claims.items() if key not in {"iat", "exp", "jti"}} == expected
    assert signer.client_assertion(URL) is None
