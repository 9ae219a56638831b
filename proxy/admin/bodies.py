"""What the inspector keeps of a body: text, masked, and of bytes those in which no secret can hide.

Law: bytes in which something may stand that cannot be read here (compressed, packed, cut pictures) are not kept,
since nobody could say what they hold (threat 82). What can be unpacked is unpacked first, up to the bound.
"""

import base64
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

from proxy.admin.effort import Effort, TooMuchError
from proxy.admin.members import without_members
from proxy.body import Piece
from proxy.redact import MASK, Redactor

#: What gzip, zip, zstd and zlib begin with, in base64.
_PACKED_TEXT: Final = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?:H4sI|UEsDB|KLUv|eJ|eN|eF|eAE)[A-Za-z0-9+/_-]{14,}={0,2}(?![A-Za-z0-9+/_-])"
)
#: A type is a word or two.
_TYPE_MOST: Final = 256
#: gzip (RFC 1952) and zlib (RFC 1950) by their window bits; some call a bare stream `deflate` (RFC 9110, 8.4.1.2).
_WINDOWS: Final = {b"gzip": (31,), b"x-gzip": (31,), b"deflate": (15, -15)}
_MEMBERS_MOST: Final = 16
#: zip and what is made of it, gzip, zstd, bzip2, xz, 7z, rar, lz4, cab, fonts, PDF, compressed Flash.
_PACKED: Final = re.compile(
    rb"PK\x03\x04|\x1f\x8b\x08|\x28\xb5\x2f\xfd|BZh[1-9]1AY&SY|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"
    rb"|\x04\x22\x4d\x18|MSCF\0|wOF[F2]|%PDF-|[CZ]WS[\x06-\x40]"
)
_ZLIB: Final = re.compile(rb"x[\x01\x5e\x9c\xda]")
_ZLIB_TRIED_MOST: Final = 64
#: Bytes that are compressed or encrypted have nearly as many different values as random ones.
_WINDOW: Final = 48
_WINDOW_LEAST: Final = 32
_DENSE: Final = 0.87
#: Pictures that are dense and that a browser shows: JPEG, GIF, WebP, AVIF.
_PICTURE: Final = re.compile(rb"\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
#: Chunks of a PNG that are its picture (PNG, section 11); the others are text, compressed or not, and left out.
_PNG_CHUNKS: Final = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"bKGD"}
)
#: What text may be in that holds more than ASCII, and how many bytes a character of it has at least.
_ENCODINGS: Final = {"utf-8": 1, "cp1252": 1, "utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
#: So much of what is unpacked only to be looked at.
_LOOKED_AT: Final = 1 << 20


def body(piece: Piece, content_type: bytes, content_encoding: bytes, redactor: Redactor) -> dict[str, Any]:
    """What was kept of a body: as text where it is some, else as bytes in base64.

    `note` says why nothing of it is shown. `kept` counts bytes as they were sent.
    """
    kept = piece.kept
    coding = content_encoding.strip().lower()
    shown: dict[str, Any] = {
        "bytes": piece.size,
        "kept": len(kept),
        "truncated": piece.is_cut or piece.size > len(kept),
        "type": _word(content_type, redactor),
        "encoding": _word(content_encoding, redactor) or None,
        "text": None,
        "base64": None,
        "note": None,
    }
    if not kept:
        return shown
    if coding not in (b"", b"identity"):
        unpacked = _unpacked(kept, coding, piece.most)
        if unpacked is None:
            return {**shown, "note": f"not kept: {shown['encoding']} cannot be read here, so not searched either"}
        kept, is_cut = unpacked
        shown["truncated"] = shown["truncated"] or is_cut
    return shown | part(kept, redactor, cut=shown["truncated"], content_type=content_type)


def part(data: bytes, redactor: Redactor, *, cut: bool, content_type: bytes = b"") -> dict[str, Any]:
    """Of these bytes `text` or `base64`, or the `note` that says why neither."""
    try:
        return _part(data, redactor, cut=cut, content_type=content_type)
    except TooMuchError:
        return {"text": None, "base64": None, "note": "not kept: searching it would take too long"}


def _part(data: bytes, redactor: Redactor, *, cut: bool, content_type: bytes) -> dict[str, Any]:
    """The same. Raises `TooMuchError`."""
    text = _text(data, cut=cut)
    effort = Effort()
    if text is not None:
        # What is known goes first: a name may stand in the middle of it.
        named = without_members(redactor.values(text), content_type, effort)
        # Also before what is packed is cut out: a credential may begin with the same letters.
        clean = redactor.text(_PACKED_TEXT.sub(MASK, redactor.text(named)))
        return {"text": clean, "base64": None, "note": None}
    reason = None
    if data.startswith(_PNG):
        data, reason = _picture(data, redactor, effort)
    elif content_type.lower().lstrip().startswith(b"multipart/"):
        reason = "not kept: some of its parts are no text"
    elif _hides(data):
        reason = "not kept: something packed or encrypted is in it, which cannot be searched"
    if reason is None and _knows(data, redactor, effort, content_type):
        reason = "not kept: these bytes hold something that is masked"
    return {"text": None, "base64": None if reason else base64.b64encode(data).decode(), "note": reason}


def _word(raw: bytes, redactor: Redactor) -> str:
    return redactor.line(raw[:_TYPE_MOST].decode("latin-1"))


def _knows(data: bytes, redactor: Redactor, effort: Effort, content_type: bytes = b"") -> bool:
    """Is something in it that would be masked, in UTF-16 or UTF-32 as well?"""
    texts = {data.decode("latin-1"), _without_nul(data)}
    if any(redactor.text(text) != text or without_members(text, content_type, effort) != text for text in texts):
        return True
    others = (data[start:].decode(name, "replace") for name, most in _ENCODINGS.items() for start in range(most))
    return any(redactor.values(text) != text for text in others)


def _without_nul(data: bytes) -> str:
    return data.replace(b"\0", b"").decode("latin-1")


# -- what is compressed


def _unpacked(kept: bytes, coding: bytes, most: int) -> tuple[bytes, bool] | None:
    """At most `most` bytes of what `kept` stands for, and whether there is more; None: it cannot be read."""
    for bits in _WINDOWS.get(coding, ()):
        try:
            return _inflated(kept, bits, most)
        except zlib.error:
            continue
    return None


def _inflated(data: bytes, bits: int, most: int) -> tuple[bytes, bool]:
    """The same of one kind of stream, or a few behind each other (RFC 1952 section 2.2). Raises `zlib.error`."""
    out = b""
    for _ in range(_MEMBERS_MOST):
        stream = zlib.decompressobj(bits)
        out += stream.decompress(data, most - len(out))
        if not stream.eof:
            return out, True
        data = stream.unused_data
        if not data or len(out) >= most:
            break
    return out, bool(data)


def _hides(data: bytes) -> bool:
    """May something stand in these bytes that nobody reads in them as they are?"""
    if _PACKED.search(data):
        return True
    starts = [match.start() for match in _ZLIB.finditer(data)]
    if len(starts) > _ZLIB_TRIED_MOST or any(_is_zlib(data[at:]) for at in starts):
        return True
    return _PICTURE.match(data) is None and any(map(_is_dense, _windows(data)))


def _is_zlib(data: bytes) -> bool:
    """Does a stream begin here? By chance one breaks soon."""
    stream = zlib.decompressobj()
    try:
        return bool(stream.decompress(data, _LOOKED_AT))
    except zlib.error:
        return False


def _windows(data: bytes) -> Iterator[bytes]:
    for at in range(0, max(1, len(data) - _WINDOW + 1), _WINDOW // 2):
        yield data[at : at + _WINDOW]
    yield data[-_WINDOW:]


def _is_dense(window: bytes) -> bool:
    if len(window) < _WINDOW_LEAST:
        return False
    different: float = 256 * (1 - (1 - 1 / 256) ** len(window))
    return len(set(window)) > _DENSE * different


def _picture(data: bytes, redactor: Redactor, effort: Effort) -> tuple[bytes, str | None]:
    """A PNG without all that is not its picture, or why it is not shown."""
    pieces, pixels = [_PNG], []
    at, is_whole = len(_PNG), False
    while not is_whole and at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        name, chunk = data[at + 4 : at + 8], data[at : at + 12 + size]
        at += 12 + size
        if name in _PNG_CHUNKS:
            pieces.append(chunk)
        if name == b"IDAT":
            pixels.append(chunk[8:-4])
        is_whole = name == b"IEND" and at <= len(data)
    if not is_whole:
        return b"", "not kept: this picture is cut, so it cannot be searched"
    try:
        drawn, is_cut = _inflated(b"".join(pixels), 15, _LOOKED_AT)
    except zlib.error:
        return b"", "not kept: this picture is broken, so it cannot be searched"
    if is_cut:
        return b"", "not kept: this picture is too large to be searched"
    if _knows(drawn, redactor, effort):
        return b"", "not kept: these bytes hold something that is masked"
    return b"".join(pieces), None


# -- what is text


def _text(kept: bytes, *, cut: bool) -> str | None:
    """Bytes as text, if they are some; a character that was cut through at the end counts as none."""
    try:
        text = kept.decode("utf-8")
    except UnicodeDecodeError as error:
        if not cut or error.start < len(kept) - 3:
            return None
        text = kept[: error.start].decode("utf-8")
    return None if "\0" in text else text
