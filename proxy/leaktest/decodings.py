"""Reads an artefact in every way a person or a program could: each reading is one decoding of another.

Law: the haystack is decoded, the needle is never encoded. A form nobody thought of is then found as soon as its
*decoder* is listed, and nothing here can share a mistake with the code that masks secrets.
"""

import binascii
import html
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

#: A token in a JSON string, in a query, in a compressed body: three layers; more has not been met.
DEPTH: Final = 3
#: What one compressed member may grow to; a canary further in is not looked for.
INFLATED_BYTES: Final = 16 * 2**20
#: A run shorter than this cannot hold a fragment that counts (12 characters, `leaks.FRAGMENT`).
SHORTEST_RUN: Final = 12

#: Control sequences of a terminal: CSI with its parameters, OSC up to BEL or ST (ECMA-48 sections 5.4, 8.3.89).
_ANSI: Final = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
#: Everything that a line wrap, a table or a pager may put between two characters. NUL stays: UTF-16 needs it.
_FILLERS: Final = bytes(range(1, 0x21)) + b"\x7f"

_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BACKSLASH: Final = re.compile(
    rb"\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|([0-7]{3})|([^0-9]))",
    re.DOTALL,
)
_CONTROL_ESCAPES: Final = {
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"f": b"\f",
    b"v": b"\v",
    b"a": b"\a",
    b"b": b"\b",
}
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_URL_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}[:-]?){12,}[0-9A-Fa-f]?")
#: gzip (RFC 1952 section 2.3.1) and zlib at its four usual levels (RFC 1950 section 2.2).
_COMPRESSED: Final = re.compile(rb"\x1f\x8b\x08|x[\x01\x5e\x9c\xda]")
#: With the NULs of UTF-16 and UTF-32.
_PRINTABLE: Final = re.compile(rb"(?:\x00{0,3}[\t\n\r\x1b -~]){%d,}" % SHORTEST_RUN)


def normal(data: bytes) -> bytes:
    """`data` without what may stand between two characters of a wrapped or coloured line."""
    if b"\x1b" in data:
        data = _ANSI.sub(b"", data)
    return data.translate(None, _FILLERS)


def readings(data: bytes, depth: int = DEPTH) -> Iterator[tuple[str, bytes]]:
    """Every reading of `data` in normal form with the decodings that led to it, the shallow ones first."""
    seen = {data}
    queue: deque[tuple[tuple[str, ...], bytes]] = deque([((), data)])
    while queue:
        path, raw = queue.popleft()
        plain = normal(raw)
        yield ">".join(path) or "raw", plain
        if len(path) == depth:
            continue
        for name, decode in DECODERS.items():
            for decoded in decode(raw if name == "compressed" else plain):
                if decoded not in seen:
                    seen.add(decoded)
                    queue.append(((*path, name), decoded))


def _percent(data: bytes) -> Iterator[bytes]:
    """Percent-encoding in any case, whole or in part (RFC 3986 section 2.1), and with `+` for a space."""
    yield _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), data)
    if b"+" in data:
        yield _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), data.replace(b"+", b""))


def _backslash(data: bytes) -> Iterator[bytes]:
    r"""`\"`, `\u0041`, `\x41`, `\101`: strings of JSON, JavaScript, C, and Python's `repr`."""
    if b"\\" in data:
        yield _BACKSLASH.sub(_unescape, data)


def _unescape(match: re.Match[bytes]) -> bytes:
    *hexadecimal, octal, letter = match.groups()
    if letter:
        return _CONTROL_ESCAPES.get(letter, letter)
    code = int(octal, 8) if octal else int(next(filter(None, hexadecimal)), 16)
    return bytes([code]) if code < 0x100 else b"?"


def _entities(data: bytes) -> Iterator[bytes]:
    """HTML and XML character references."""
    if b"&" in data:
        yield html.unescape(data.decode("latin-1")).encode("latin-1", "replace")


def _base64(data: bytes) -> Iterator[bytes]:
    """Base64 in both alphabets, from each of the four characters where a group may begin."""
    found: list[bytes] = []
    for run in _BASE64.findall(data):
        text = run.translate(_URL_ALPHABET)
        for begin in range(4):
            group = text[begin:]
            found += _sift(binascii.a2b_base64(group + b"A" * (-len(group) % 4)))
    yield b"|".join(found)


def _hex(data: bytes) -> Iterator[bytes]:
    """Pairs of hexadecimal digits, bare or with `:` or `-` between them, from each of the two digits."""
    found: list[bytes] = []
    for run in _HEX.findall(data):
        digits = run.translate(None, b":-")
        for begin in range(2):
            found += _sift(bytes.fromhex(digits[begin : begin + (len(digits) - begin) // 2 * 2].decode()))
    yield b"|".join(found)


def _sift(decoded: bytes) -> Iterator[bytes]:
    """The parts of `decoded` worth reading on: most words are *some* base64, and decode to noise."""
    yield from _PRINTABLE.findall(decoded)
    for match in _COMPRESSED.finditer(decoded):
        if len(_inflate(decoded[match.start() :])) >= SHORTEST_RUN:
            yield decoded[match.start() :]


def _wide(data: bytes) -> Iterator[bytes]:
    """UTF-16 and UTF-32 of ASCII text, in either order of bytes."""
    if b"\0" in data:
        yield data.replace(b"\0", b"")


def _compressed(data: bytes) -> Iterator[bytes]:
    """Members of gzip and zlib anywhere in `data`, also those cut short."""
    for match in _COMPRESSED.finditer(data):
        yield _inflate(data[match.start() :])


def _inflate(data: bytes) -> bytes:
    """What comes out before the end or the first error; that an error is near shows only byte by byte."""
    try:
        return _inflater().decompress(data, INFLATED_BYTES)
    except zlib.error:
        pass
    machine, out = _inflater(), bytearray()
    try:
        for byte in data:
            out += machine.decompress(bytes([byte]), INFLATED_BYTES)
    except zlib.error:
        pass
    return bytes(out)


def _inflater() -> "zlib._Decompress":
    return zlib.decompressobj(32 + zlib.MAX_WBITS)  # 32: the header says whether it is gzip or zlib


DECODERS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "percent": _percent,
    "backslash": _backslash,
    "entities": _entities,
    "base64": _base64,
    "hex": _hex,
    "wide": _wide,
    "compressed": _compressed,
}
