"""The words that call a value a secret, in names of members, parameters, elements and fields."""

import re
from collections.abc import Iterator
from heapq import merge
from typing import Final
from urllib.parse import unquote_plus

#: Lower case. Each begins with a letter that is given, so that a search need not try every character.
_WORDS: Final = re.compile(
    r"pass(?:word|wd|phrase|code|key)|pwd|secret(?!ar[iy])|token(?!i[sz])|authorization|cookie|credential|session|otp"
    r"|jwt|assertion|saml|csrf|xsrf|signature|code_verifier|device_code"
    r"|api[_.\x20-]?key|access[_.\x20-]?key|private[_.\x20-]?key|account[_.\x20-]?key|signing[_.\x20-]?key"
    r"|encryption[_.\x20-]?key|master[_.\x20-]?key"
    r"|p(?<![a-z]p)(?:ass|in)(?![a-z])|a(?<![a-z]a)uth(?![a-z])|s(?<![a-z]s)ig(?![a-z])|c(?<![a-z]c)v[vc](?![a-z])"
)
#: The short ones of these, later in a name in camel case: `userPass`, and neither `userPassed` nor `oAuth`.
_HUMPS: Final = re.compile(
    r"P(?<=[a-z0-9]P)(?:ass|in)(?![a-z])|A(?<=[a-np-z0-9]A)uth(?![a-z])|S(?<=[a-z0-9]S)ig(?![a-z])"
    r"|C(?<=[a-z0-9]C)v[vc](?![a-z])"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: What ends so is about a secret, and none: `token_type`, `tokenEndpoint`, `total_tokens`.
_ABOUT: Final = re.compile(
    r"(?:[_-](?:types?|endpoints?|(?:methods|algs?|values)?_?supported|ur[il]|count|expires(?:_in|_at)?|expiry|ttl|lifetime"
    r"|limit|enabled|required|details)|(?:prompt|completion|input|output|total|max|cached|reasoning)[_-]?tokens"
    r"|secret_scanning(?:_[a-z_]+)?)\s*\Z"
)
_LOWER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}

#: A user and a password in an address (RFC 3986 section 3.2.1): the latter goes, and a user that has none.
_USERINFO: Final = re.compile(r"""(://(?:[^\s/?#@:"'<>\\&]*+:)?)([^\s/?#"'<>\\&]+)@""")


def has_words(text: str) -> bool:
    """Is there anything in `text` that may call something a secret?"""
    return _WORDS.search(lower(text)) is not None or _HUMPS.search(text) is not None


def secret_words(text: str) -> Iterator[tuple[int, int]]:
    """Where such words begin and end in `text`."""
    return (word.span() for word in merge(_WORDS.finditer(lower(text)), _HUMPS.finditer(text), key=re.Match.start))


def lower(text: str) -> str:
    """`text` with small letters, of the same length: lower case of letters beyond ASCII may be longer."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def is_secret(name: str) -> bool:
    """Does this name, which may be percent-encoded (RFC 3986 section 2.1), call its value a secret?"""
    plain = unquote_plus(name) if "%" in name or "+" in name else name
    return has_words(plain) and _ABOUT.search(_HUMP.sub("_", plain).lower()) is None


def without_userinfo(text: str) -> str:
    """`text` with `***` in the place of passwords that stand in addresses."""
    return _USERINFO.sub(r"\1***@", text) if "@" in text and "://" in text else text
