"""Prints how fast the redactor is, in MB/s: 1 MB of log lines, 200 live secrets (given to `python -c`)."""

import base64
import random
import time
import uuid
from collections.abc import Callable
from typing import Final

from proxy.redact import Redactor, Secret

SECRETS: Final = 200
BYTES: Final = 1_000_000
ROUNDS: Final = 5

rng: Final = random.Random(1)  # noqa: S311  the same text each time


def word(size: int) -> str:
    """An opaque word, as tokens and ids are."""
    return base64.urlsafe_b64encode(rng.randbytes(size)).decode().rstrip("=")


#: A fifth each: opaque tokens, JWTs of one issuer, ids, hexadecimal keys, passwords.
KINDS: Final[tuple[Callable[[], str], ...]] = (
    lambda: word(33),
    lambda: f"eyJhbGciOiJSUzI1NiIsImtpZCI6I{word(12)}.{word(300)}.{word(256)}",
    lambda: str(uuid.UUID(int=rng.getrandbits(128))),
    lambda: rng.randbytes(32).hex(),
    lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789+/=%\"\\ &'<", k=32)),
)


def line() -> str:
    """As libraries write them at DEBUG."""
    return (
        f'{{"time":"2026-11-22T10:00:00.{rng.randrange(1000):03}Z","level":"debug","event":"GET /v2/customers/'
        f'{rng.randrange(10**6)}?page={rng.randrange(99)} 200","request_id":"{rng.randbytes(8).hex()}",'
        f'"trace":"{uuid.UUID(int=rng.getrandbits(128))}","etag":"{word(15)}","client":"127.0.0.1"}}\n'
    )


def main() -> None:
    """The best of some rounds: others that use the processor only make it slower."""
    redactor = Redactor()
    for number in range(SECRETS):
        redactor.register(Secret(KINDS[number % len(KINDS)]()))
    text = ""
    while len(text) < BYTES:
        text += line()
    best = float("inf")
    for _ in range(ROUNDS):
        began_at = time.process_time()
        if redactor.text(text) != text:
            raise SystemExit("something was masked where there is no secret")
        best = min(best, time.process_time() - began_at)
    print(len(text) / best / 1e6)


if __name__ == "__main__":
    main()
