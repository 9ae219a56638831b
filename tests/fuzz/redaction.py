"""The redactor: no live secret survives in any form, wherever it stands; what holds none is left alone.

An input is a list of pieces: a secret in one of the forms, cut or whole, or text. The secrets are made of a digest
of the input, so that no text of it can hold one by chance; the searcher that looks for them shares no code with the
redactor (`tests/support/leaks.py`).
"""

import hashlib
import random
from typing import Final

from proxy.literals import PREFIX
from proxy.patterns import PATTERNS
from proxy.redact import Redactor, Secret
from tests.fuzz.taking import Taking
from tests.support.encodings import ENCODERS
from tests.support.leaks import SHAPES, Artefact, Canaries, search

_BORDER: Final = "\N{WHITE SQUARE}"
FORMS: Final = tuple(ENCODERS)
KINDS: Final = tuple(SHAPES)


def check(data: bytes) -> None:
    """Raise AssertionError where one survives."""
    rng = random.Random(hashlib.sha256(data).digest())  # noqa: S311  the same each time
    taking = Taking(data)
    canaries, redactor = Canaries(rng), Redactor()
    secrets = [canaries.mint(taking.choice(KINDS)) for _ in range(1 + taking.byte() % 3)]
    for number, value in enumerate(secrets):
        if taking.byte() % 2:
            redactor.register(Secret(value))
        else:
            redactor.register_generation("main", [Secret(value)], float(number))
    pieces, planted = [], False
    while taking:
        kind = taking.byte()
        if kind < 128:
            pieces.append(taking.some(kind % 32).decode("utf-8", "surrogateescape"))
            continue
        form = ENCODERS[taking.choice(FORMS)](taking.choice(secrets))
        cut = taking.byte()
        # Cut by somebody: what is left may be whole, too short to matter, or anything between. Nothing that
        # follows goes on with it by chance.
        pieces.append(form if cut < 192 else form[: PREFIX + cut % 64] + _BORDER)
        planted = True
    text = "".join(pieces)
    shown = {"values": redactor.values(text), "text": redactor.text(text), "line": redactor.line(text)}
    for name, each in shown.items():
        hits = search([Artefact(name, each)], canaries)
        assert not hits, f"{hits[0]}"
    if not planted:
        assert shown["values"] == text, "there was nothing to mask"
        expected = text
        for pattern in PATTERNS:
            expected = pattern.regex.sub(r"\g<1>***", expected)
        assert shown["text"] == expected, "not what the patterns say"
    assert shown["line"].isascii()
    assert shown["line"].isprintable()
