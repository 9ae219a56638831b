"""Where known values stand in a text, whole, cut or in escapes.

Every text that is shown or logged is looked through here. Where nothing stands in it, the cost depends on the text
alone, not on how many values are known.
"""

import bisect
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.readings import may_escape, placed, readings

#: Below this length a value is too likely to be an ordinary word to be masked wherever it stands.
SHORTEST: Final = 8
#: Text is cut by others (an HTTP library logs the first 100 bytes of a line); this much of a value gives it away.
PREFIX: Final = 12


class Edition:
    """The `number` of what is known, which changes with that. Who keeps what was found clean drops it then."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Literals:
    """Values of `SHORTEST` characters or more, each in every form in which it is looked for; they become `mask`."""

    __slots__ = ("_alike", "_beginnings", "_mask")

    def __init__(self, mask: str) -> None:
        self._mask = mask
        #: Every value by its first characters.
        self._alike: dict[str, list[str]] = {}
        #: What a text must share with the beginnings of values to hold one, see `_runs`: where in which beginning.
        self._beginnings: dict[int, list[tuple[int, bytes]]] = {}

    def add(self, found: Iterable[str]) -> None:
        """Know these as well."""
        for literal in found:
            head = literal[:PREFIX]
            alike = self._alike.get(head)
            if alike is None:
                self._alike[head] = [literal]
                data = head.encode("utf-8", "surrogatepass")
                for shift in range(4):
                    for run in _runs(data[shift : shift + 4]):
                        self._beginnings.setdefault(run, []).append((shift, data))
            elif literal not in alike:
                bisect.insort(alike, literal)

    def known_in(self, text: str) -> bool:
        """Does one of them stand in `text` as it is, and whole?"""
        return any(literal in text for literals in self._alike.values() for literal in literals)

    def masked(self, text: str) -> str:
        """`text` with every value masked."""
        # Again, since a mask between two ordinary words may make a secret that has `***` in it.
        while spans := self._spans(text):
            text = _masked(text, spans, self._mask)
        return text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where values stand in `text`, and where such do that are written in escapes, wholly or in part."""
        spans = [span for head in self._heads_in(text) for span in self._from(text, head)]
        if may_escape(text) and any(map(self._heads_in, readings(text))):
            for reading, places in placed(text):
                for head in self._heads_in(reading):
                    spans += [(places[begin], places[end]) for begin, end in self._from(reading, head)]
        return spans

    def _heads_in(self, text: str) -> list[str]:
        """The beginnings of registered values that stand in `text`."""
        if len(text) < SHORTEST:
            return []
        beginnings, data = self._beginnings, text.encode("utf-8", "surrogatepass")
        runs = _runs(data)
        if beginnings.keys().isdisjoint(runs):
            return []
        # Four bytes are in common by chance often enough; each time, only what begins so is compared, and there.
        found = {
            head
            for at, run in enumerate(runs)
            if run in beginnings
            for shift, head in beginnings[run]
            if 4 * at >= shift and data.startswith(head, 4 * at - shift)
        }
        return [head.decode("utf-8", "surrogatepass") for head in found]

    def _from(self, text: str, head: str) -> Iterator[tuple[int, int]]:
        """Where values that begin with `head` stand in `text`, whole or cut."""
        at = text.find(head)
        while at >= 0:
            yield at, at + _longest(text, at, self._alike[head])
            # One further, not behind the value: it may begin again inside itself.
            at = text.find(head, at + 1)


def _runs(data: bytes) -> memoryview:
    """Every four bytes of `data`, each as one number; fewer at the end are left off.

    A word of seven bytes or more covers one of these wherever it stands in a text, and that one begins at one of
    the word's first four bytes. So a text that has no run in common with the words shifted by 0 to 3 bytes holds
    none of them.
    """
    odd = len(data) & 3
    return memoryview(data[:-odd] if odd else data).cast("I")


def _masked(text: str, spans: list[tuple[int, int]], mask: str) -> str:
    """`text` with these spans masked; those that overlap or touch become one mask.

    All are found before any is masked: two tokens that begin alike, as all JWTs of one issuer do, or that overlap
    would else hide each other's rest.
    """
    pieces: list[str] = []
    done = -1
    for begin, end in sorted(spans):
        if begin > done:
            pieces += [text[max(done, 0) : begin], mask]
        done = max(done, end)
    return "".join([*pieces, text[done:]])


def _longest(text: str, at: int, literals: list[str]) -> int:
    """How many characters of one of the sorted `literals`, which begin alike, stand in `text` at `at`."""
    # Of sorted texts, a neighbour of the place where another one would stand begins most like it.
    place = bisect.bisect(literals, text[at : at + max(map(len, literals))])
    return max(_common(text, at, literal) for literal in literals[max(place - 1, 0) : place + 1])


def _common(text: str, at: int, literal: str) -> int:
    """How many characters of `literal` stand in `text` at `at`."""
    if text.startswith(literal, at):
        return len(literal)
    length = min(PREFIX, len(literal))
    while length < len(literal) and text.startswith(literal[: length + 1], at):
        length += 1
    return length
