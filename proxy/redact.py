"""Masks live secrets in text: a `Secret` that does not print, a registry of exact values, and patterns.

Law: a secret is registered where it is made, before its first use. What is masked is decided by *value*; the
patterns only catch what never was ours (threat 76).
"""

import hmac
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from proxy.forms import forms
from proxy.literals import SHORTEST, Edition, Literals
from proxy.patterns import PATTERNS, Pattern, Patterns

MASK: Final = "***"

#: How many generations of one credential stay known, and for how long after they were replaced.
GENERATIONS_KEPT: Final = 16
RETIRED_KEPT_SECONDS: Final = 24 * 3600.0


class Secret:
    """A value that must not be printed: `repr`, `str` and `format` give `***`; `reveal()` gives the value.

    Not a `str`, not hashable, not picklable, not JSON-able; `==` takes constant time for equal lengths.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. `tests/test_redact.py` pins which modules may call this."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return MASK

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # Text from the environment may hold surrogates; a plain encode would raise.
        mine, others = (each.reveal().encode("utf-8", "surrogatepass") for each in (self, other))
        return hmac.compare_digest(mine, others)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the value

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


class Borrowed(Secret):
    """The token of the credential `lender`, as a part of another one: empty, or the one that was lent last.

    `is_given`: it is the lender's for good, as a constant is; nobody needs to lend it.
    """

    __slots__ = ("is_given", "lender")

    def __init__(self, lender: str) -> None:
        super().__init__("")
        self.lender = lender
        self.is_given = False

    def lend(self, token: Secret) -> None:
        """Be `token` from now on."""
        self._value = token.reveal()

    def give(self, token: Secret) -> None:
        """Be `token` for good."""
        self.lend(token)
        self.is_given = True


def _long_forms(value: str) -> tuple[str, ...]:
    return tuple(form for form in forms(value) if len(form) >= SHORTEST)


@dataclass(slots=True)
class _Known:
    """One generation: the forms of its values, and when it was replaced (None while it lives)."""

    forms: tuple[str, ...] = field(repr=False)
    retired_at: float | None = None


class Redactor:
    """Knows the live secrets and masks them in text.

    `now` arguments are instants in seconds of any one clock; only differences count.
    """

    def __init__(self, patterns: Iterable[Pattern] = PATTERNS) -> None:
        self._patterns = Patterns(patterns, MASK)
        self._lasting: dict[str, tuple[str, ...]] = {}
        self._generations: dict[str, deque[_Known]] = {}
        self._literals = Literals(MASK)
        self.edition = Edition()

    def register(self, secret: Secret) -> None:
        """Mask this value for as long as the process lives (a password, a key)."""
        value = secret.reveal()
        if len(value) >= SHORTEST and value not in self._lasting:
            found = self._lasting[value] = _long_forms(value)
            self._add(found)

    def register_generation(self, owner: str, secrets: Iterable[Secret], now: float) -> None:
        """Mask these values as the newest generation of `owner`, and let its oldest ones go.

        The generation before is retired at `now`, and forgotten 24 hours or 16 generations later.
        """
        kept = self._generations.setdefault(owner, deque(maxlen=GENERATIONS_KEPT))
        if kept and kept[-1].retired_at is None:
            kept[-1].retired_at = now
        forgets = len(kept) == GENERATIONS_KEPT
        while kept and kept[0].retired_at is not None and now - kept[0].retired_at > RETIRED_KEPT_SECONDS:
            kept.popleft()
            forgets = True
        values = {secret.reveal() for secret in secrets}
        newest = _Known(tuple(form for value in values if len(value) >= SHORTEST for form in _long_forms(value)))
        kept.append(newest)
        if not forgets:
            self._add(newest.forms)
            return
        known = [each.forms for generations in self._generations.values() for each in generations]
        literals = Literals(MASK)
        literals.add(form for group in (*self._lasting.values(), *known) for form in group)
        # Only now: other threads log, too.
        self._literals = literals
        self.edition.number += 1

    def _add(self, found: Iterable[str]) -> None:
        self._literals.add(found)
        self.edition.number += 1

    def values(self, text: str) -> str:
        """`text` with every registered value masked; patterns are left alone."""
        return self._literals.masked(text)

    def text(self, text: str) -> str:
        """`text` with registered values and everything that looks like a credential masked."""
        return self._patterns.masked(self._literals.masked(text))

    def line(self, text: str) -> str:
        """The same in printable ASCII. Escapes may spell a value out, so they are looked at as well."""
        masked = self.text(text)
        shown = printable(masked)
        return shown if shown == masked else self.text(shown)

    def knows(self, text: str) -> bool:
        """Does `text` carry a live secret in any form?"""
        return self._literals.known_in(text)


def printable(text: str) -> str:
    """`text` in printable ASCII: everything else escaped, so that one event stays one line (threat 79)."""
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")
