"""What credentials look like in general, to catch those that never were ours (threat 76)."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pattern:
    """What credentials of some kind look like; what the first group of `regex` matches stays.

    `regex` looks at nothing outside a match but whether a word ends there: what matches in a text matches in every
    longer one that keeps words apart. One of `hints` stands in every match in ASCII, which is looked for in lower
    case: where none does, the expression need not be tried.
    """

    regex: re.Pattern[str]
    hints: frozenset[str]


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
