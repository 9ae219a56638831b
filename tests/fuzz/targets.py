"""The functions that are fuzzed, by name: bytes go in, an exception means that something does not hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import configs, fields, hosts, paths, redaction, replies

#: Inputs that are tried first, and by `make test`: seeds, and whatever once broke something.
CORPUS: Final = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """One function; inputs of at most `longest` bytes, into which `words` are put more often than others."""

    check: Callable[[bytes], None]
    longest: int
    words: tuple[bytes, ...]


TARGETS: Final[Mapping[str, Target]] = {
    "paths": Target(paths.check, 160, paths.WORDS),
    "hosts": Target(hosts.check, 160, hosts.WORDS),
    "fields": Target(fields.check, 512, fields.WORDS),
    "redaction": Target(redaction.check, 512, ()),
    "replies": Target(replies.check, 1024, replies.WORDS),
    "configs": Target(configs.check, 2048, configs.WORDS),
}


def corpus(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((CORPUS / name).iterdir())
