"""Shows what stands where a name was meant: a name, or `***` where it may be a secret that was put in its place.

`--token-env $TOKEN` and a key that was pasted into the wrong place are ordinary slips (threats 75, 125).
"""

import re
from typing import Final

from proxy.patterns import PATTERNS
from proxy.redact import MASK

#: Names of variables, keys, credentials, clients, header fields, and the JSON pointers that name fields.
_NAME: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]{0,63}")
_RUN: Final = re.compile(r"[A-Za-z0-9]+")
#: Between words and a line's punctuation.
_WORD: Final = re.compile(r"[^\s'\"(),;:=]+")
#: A longer run of letters and digits is no word and no version; with capitals and small letters it is sooner none.
_MIXED_MOST: Final = 15
_CASES_MOST: Final = 11
#: No word of letters alone is longer.
_LETTERS_MOST: Final = 31


def looks_like_a_name(text: str) -> bool:
    """Is `text` a name, and nothing that a generator of secrets may have made?"""
    return (
        _NAME.fullmatch(text) is not None
        and not any(pattern.regex.search(text) for pattern in PATTERNS)
        and not any(map(_is_random, _RUN.findall(text)))
    )


def _is_random(run: str) -> bool:
    if run.isalpha():
        return len(run) > _LETTERS_MOST
    if run.isdigit():
        return len(run) > _MIXED_MOST
    return len(run) > (_MIXED_MOST if run.islower() or run.isupper() else _CASES_MOST)


def shown(text: str) -> str:
    """`text` where it is a name, else `***`."""
    return text if looks_like_a_name(text) else MASK


def shown_words(sentence: str) -> str:
    """A sentence that may quote somebody's words, without those that a generator of secrets may have made."""
    return _WORD.sub(lambda word: MASK if _is_secret(word[0]) else word[0], sentence)


def _is_secret(word: str) -> bool:
    return any(pattern.regex.search(word) for pattern in PATTERNS) or any(map(_is_random, _RUN.findall(word)))
