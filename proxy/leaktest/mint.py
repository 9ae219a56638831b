"""Mints the secrets of a copy: each of a shape that fits its place, each known to the searcher by that place."""

import base64
import json
import random
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.leaktest.leaks import SHAPES, Canaries

#: A JWT in what a far end received: its signature is the part that was never anywhere before.
_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{20,})")
#: How long tokens of ours are good, in seconds.
LIFETIME: Final = 3600
_CURVES: Final[dict[str, Callable[[], ec.EllipticCurve]]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}


@dataclass
class Mint:
    """`canaries` are all that it made; `wall` gives epoch seconds."""

    canaries: Canaries = field(default_factory=Canaries)
    rng: random.Random = field(default_factory=random.SystemRandom)
    wall: Callable[[], float] = time.time
    _signatures: set[bytes] = field(default_factory=set)

    def secret(self, label: str, shape: str = "token") -> str:
        """A new one of one of the `SHAPES`; `label` is what a leak is reported as."""
        value = SHAPES[shape](self.rng)
        self.canaries.adopt(value, label, fixed=len("eyJhbGciOiJSUzI1NiIsImtpZCI6I") if shape == "jwt" else 0)
        return value

    def adopt(self, label: str, value: str) -> None:
        """Look for this one too, which the copy made."""
        self.canaries.adopt(value, label)

    def jwt(self, label: str) -> str:
        """One that says when it ends; only its signature is looked for, since its claims tell little."""
        claims: dict[str, Any] = {"sub": "leaktest", "exp": int(self.wall()) + LIFETIME}
        parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "none"}, claims)]
        return ".".join([*parts, self.secret(label)])

    def vanilla(self, label: str) -> str:
        """A token as Vanilla gives it, which carries its end."""
        end = _base64url(struct.pack("<I", int(self.wall()) + LIFETIME))
        return f"va.{self.secret(label)[:32]}.{end}.AAAAAAA"

    def store_key(self, label: str) -> str:
        """32 bytes in base64."""
        key = base64.b64encode(self.rng.randbytes(32)).decode()
        self.canaries.adopt(key, label)
        return key

    def private_key(self, label: str, algorithm: str) -> str:
        """A key in PEM; the second half of its text is looked for, the first is much like any other's."""
        made: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        if algorithm in _CURVES:
            made = ec.generate_private_key(_CURVES[algorithm]())
        elif algorithm == "EdDSA":
            made = ed25519.Ed25519PrivateKey.generate()
        else:
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        inside = "".join(pem.splitlines()[1:-1]).rstrip("=")
        self.canaries.adopt(inside[len(inside) // 2 :], label)
        return pem

    def seen(self, label: str, received: bytes) -> None:
        """Look for what the copy signed, too, now that a far end has received it."""
        for signature in _JWT.findall(received):
            if signature not in self._signatures:
                self._signatures.add(signature)
                self.canaries.adopt(signature.decode("ascii"), label)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
