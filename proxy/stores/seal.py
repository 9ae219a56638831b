"""Seals what rests outside of the process: backups, synced folders and lost disks hold no token (threat 131).

Law: what was not sealed here, by a key of the ring and for this very binding, opens as None; nothing is raised.

A sealed text is one line of ASCII, `bearer-proxy 1 KEYID`, and behind its end a nonce of 12 bytes and AES-256-GCM's
output with its tag of 16 (NIST SP 800-38D). Associated data is that line and the binding: neither the version, nor
the key, nor what the content belongs to can be exchanged (threat 132).
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
#: 96 random bits: with one key they repeat after some 2**32 writes at the earliest (SP 800-38D section 8.3).
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_MAGIC: Final = b"bearer-proxy 1 "
_KEY_ID_DIGITS: Final = 16
_HEADER_BYTES: Final = len(_MAGIC) + _KEY_ID_DIGITS + 1
_HEADER: Final = re.compile(rb"%b[0-9a-f]{%d}\n" % (_MAGIC, _KEY_ID_DIGITS))


class Ring:
    """The keys of a store, 32 bytes each: the first one seals, all of them open (threat 133).

    `random` gives that many random bytes.
    """

    def __init__(self, keys: Sequence[bytes], *, random: Callable[[int], bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a ring takes at least one key, each of {KEY_BYTES} bytes")
        self._ciphers = {_header(key): AESGCM(key) for key in keys}
        self._first = _header(keys[0])
        self._random = random

    def seal(self, content: bytes, binding: bytes) -> bytes:
        """`content` such that only this ring can read it, and only with the same `binding`."""
        nonce = self._random(NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, content, self._first + binding)
        return self._first + nonce + sealed

    def lacks_key_of(self, sealed: bytes) -> bool:
        """Does its header name a key that is not in the ring? What never was sealed has none."""
        header = sealed[:_HEADER_BYTES]
        return _HEADER.fullmatch(header) is not None and header not in self._ciphers

    def open(self, sealed: bytes, binding: bytes) -> bytes | None:
        """What was sealed; None where it was damaged, is none of ours, or was sealed for another binding."""
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header)
        if cipher is None or len(rest) < NONCE_BYTES + _TAG_BYTES:
            return None
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], header + binding)
        except InvalidTag:
            return None


def _header(key: bytes) -> bytes:
    """The first line. Its key id is a digest; of 32 random bytes it tells nothing."""
    digest = hashlib.sha256(b"bearer-proxy key id" + key).hexdigest()
    return _MAGIC + digest[:_KEY_ID_DIGITS].encode("ascii") + b"\n"
