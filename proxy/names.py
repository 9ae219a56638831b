"""Shows what stands where a name was meant: a name, or `***` where it may be a secret that was put in its place.

`--token-env $TOKEN` and a key that was pasted into the wrong place are ordinary slips (threats 75, 125).
"""

import re
from typing import Final

from proxy.patterns import PATTERNS
from proxy.redact import MASK

#: Names of variables, keys, credentials, clients, header fields, and the JSON pointers that name fields.
_NAME: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
#: A shorter run is not looked at: of the two bounds below the smaller one.
_RUN: Final = re.compile(r"[A-Za-z0-9]{12,}")
#: Between words and a line's punctuation.
_WORD: Final = re.compile(r"[^\s'\"(),;:=]+")
#: No shorter one is taken for made, and no text without one of the patterns' hints for what they know.
_LONG_WORD: Final = re.compile(r"[^\s'\"(),;:=]{12,}")
_HINTED: Final = re.compile("|".join(sorted({re.escape(hint) for pattern in PATTERNS for hint in pattern.hints})))
#: A longer run of letters and digits is no word and no version; with capitals and small letters it is sooner none.
_MIXED_MOST: Final = 15
_CASES_MOST: Final = 11
#: Base64 for addresses has `-` and `_` in it, and so have UUIDs: what they divide is looked at as a whole, too.
_UUID: Final = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_LENGTH: Final = 36
_TURN: Final = re.compile(r"(?<=[A-Za-z])[0-9]|(?<=[0-9])[A-Za-z]|(?<=[a-z])[A-Z]")
_WHOLE_LEAST: Final = 12
#: What is shorter is neither made nor known to any of the patterns.
_SHORTEST: Final = 10
_TURNS_MOST: Final = 4
#: No word of letters alone is longer.
_LETTERS_MOST: Final = 31


def looks_like_a_name(text: str) -> bool:
    """Is `text` a name, and nothing that a generator of secrets may have made?"""
    return (
        _NAME.fullmatch(text) is not None
        and not any(pattern.regex.search(text) for pattern in PATTERNS)
        and not _is_made(text)
    )


def _is_made(text: str) -> bool:
    """By one run of it, or by how often letters and digits, small letters and capitals follow each other in all."""
    if len(text) >= _UUID_LENGTH and _UUID.search(text):
        return True
    if any(map(_is_random, _RUN.findall(text))):
        return True
    whole = text.replace("-", "").replace("_", "")
    return len(whole) >= _WHOLE_LEAST and len(_TURN.findall(whole)) > max(_TURNS_MOST, len(whole) // 5)


def _is_random(run: str) -> bool:
    if run.isalpha():
        return len(run) > _LETTERS_MOST
    if run.isdigit():
        return len(run) > _MIXED_MOST
    return len(run) > (_MIXED_MOST if run.islower() or run.isupper() else _CASES_MOST)


def shown(text: str) -> str:
    """`text` where it is a name, else `***`."""
    return text if looks_like_a_name(text) else MASK


def shown_variable(text: str) -> str:
    """`text` where it is a name in capitals, as those of variables are, else `***`: a word may be a secret, too."""
    return shown(text) if _VARIABLE.fullmatch(text) else MASK


def shown_path(text: str) -> str:
    """A path without those of its parts that a generator of secrets may have made."""
    return "/".join(map(shown_words, text.split("/")))


def shown_words(sentence: str) -> str:
    """A sentence that may quote somebody's words, without those that a generator of secrets may have made."""
    if len(sentence) < _SHORTEST:
        return sentence
    is_plain = sentence.isascii() and _HINTED.search(sentence.lower()) is None
    if is_plain and not any(map(_is_made, _LONG_WORD.findall(sentence))):
        return sentence
    return _WORD.sub(lambda word: MASK if _is_secret(word[0]) else word[0], sentence)


def _is_secret(word: str) -> bool:
    return any(pattern.regex.search(word) for pattern in PATTERNS) or _is_made(word)
