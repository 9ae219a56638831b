"""The words that call a value a secret, in names of members, parameters, elements and fields."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

#: Lower case. Each begins with a letter that is given, so that a search need not try every character.
_WORDS: Final = re.compile(
    r"pass(?:word|wd|phrase|code|key)|pwd|secret|token|authorization|cookie|credential|session|otp|jwt|assertion"
    r"|saml|csrf|xsrf|signature|code_verifier|device_code"
    r"|api[_.\x20-]?key|access[_.\x20-]?key|private[_.\x20-]?key|account[_.\x20-]?key|signing[_.\x20-]?key"
    r"|encryption[_.\x20-]?key|master[_.\x20-]?key"
    r"|p(?<![a-z]p)(?:ass|in)(?![a-z])|a(?<![a-z]a)uth(?![a-z])|s(?<![a-z]s)ig(?![a-z])|c(?<![a-z]c)v[vc](?![a-z])"
)
#: What ends so is about a secret, and none: `token_type`, `token_endpoint`, `total_tokens`.
_ABOUT: Final = re.compile(
    r"(?:[_-](?:types?|endpoints?|(?:methods|algs?|values)?_?supported|ur[il]|count|expires(?:_in|_at)?|expiry|ttl|lifetime"
    r"|limit|enabled|required|details)|(?:prompt|completion|input|output|total|max|cached|reasoning)[_-]?tokens)\s*\Z"
)
_LOWER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def secret_words(text: str) -> Iterator[tuple[int, int]]:
    """Where such words begin and end in `text`."""
    # Lower case of other letters may be longer.
    lower = text.lower() if text.isascii() else text.translate(_LOWER)
    return (word.span() for word in _WORDS.finditer(lower))


def is_secret(name: str) -> bool:
    """Does this name, which may be percent-encoded (RFC 3986 section 2.1), call its value a secret?"""
    plain = unquote_plus(name) if "%" in name or "+" in name else name
    return next(secret_words(plain), None) is not None and _ABOUT.search(plain.lower()) is None
