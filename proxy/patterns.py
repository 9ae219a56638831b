"""What credentials look like in general, to catch those that never were ours (threat 76)."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

#: Nearly all that is masked for each request.
SHORT_TEXT: Final = 256


class Pattern(NamedTuple):
    """What credentials of some kind look like; what the first group of `regex` matches stays.

    `regex` looks at nothing outside a match but whether a word ends there: what matches in a text matches in every
    longer one that keeps words apart. One of `hints` stands in every match in ASCII, which is looked for in lower
    case: where none does, the expression need not be tried.
    """

    regex: re.Pattern[str]
    hints: frozenset[str]


class Patterns:
    """Several of them; what they match becomes `mask`."""

    __slots__ = ("_hinted", "_mask", "_patterns")

    def __init__(self, patterns: Iterable[Pattern], mask: str) -> None:
        self._patterns = tuple(patterns)
        self._mask = mask
        hints = sorted({re.escape(hint) for pattern in self._patterns for hint in pattern.hints})
        self._hinted: Callable[[str], re.Match[str] | None] = re.compile("|".join(hints) or "(?!)").search

    def masked(self, text: str) -> str:
        """`text` with everything that looks like a credential masked."""
        # Of a path one expression is the cheaper look, of pages the words one by one.
        if len(text) <= SHORT_TEXT and text.isascii() and self._hinted(text.lower()) is None:
            return text
        for pattern in self._likely(text):
            text = pattern.regex.sub(self._mask_match, text)
        return text

    def _likely(self, text: str) -> Sequence[Pattern]:
        """Those that may match in `text`."""
        if not text.isascii():
            return self._patterns
        lower = text.lower()
        return [each for each in self._patterns if any(map(lower.__contains__, each.hints))]

    def _mask_match(self, match: re.Match[str]) -> str:
        return f"{match[1]}{self._mask}"


#: What credentials look like in general. Each is linear: one bounded character class after a fixed word.
PATTERNS: Final = (
    Pattern(
        re.compile(r"(?i)(\b(?:bearer|basic|integrator)\s+)[A-Za-z0-9._~+/=-]{8,}"),
        frozenset({"bearer", "basic", "integrator"}),
    ),
    Pattern(
        re.compile(r"()\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"),
        frozenset({"eyj"}),
    ),
    Pattern(
        re.compile(
            r"(?i)((?:access_token|refresh_token|id_token|client_secret|private_token|privatetoken|password|refreshtoken)"
            r"""\\*["']?\s*[=:]\s*\\*["']?)(?:\\*[^\s"'&,;}\\\x00-\x1f])+"""
        ),
        frozenset({"token", "password", "client_secret"}),
    ),
    Pattern(
        re.compile(r"()\bva\.[A-Za-z0-9_-]{32}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{7}"),
        frozenset({"va."}),
    ),
    Pattern(
        re.compile(
            r"()\b(?:vnla_sys\.|gh[pousr]_|github_pat_|glpat-|hv[sbr]\.|xox[abeprs]-|ya29\.)[A-Za-z0-9._-]{8,}"
        ),
        frozenset({"vnla_sys.", "gh", "github_pat_", "glpat-", "hv", "xox", "ya29."}),
    ),
    Pattern(
        re.compile(r"(/~)[A-Za-z0-9_-]{16,}"),
        frozenset({"/~"}),
    ),
)
