"""Canaries, and the search for them: secrets that no output may ever show, in whatever form.

Law: this shares no code with `proxy/redact.py`. That one knows the forms of a secret and looks for them in a text;
this one undoes every encoding of the text and looks for the secret (`decodings.py`). A `Hit` never holds a secret.
"""

import base64
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.leaktest.decodings import DEPTH, normal, readings

#: This many characters of a secret in a row are a leak: an error message that cuts at 100 bytes still tells enough.
FRAGMENT: Final = 12
#: Any FRAGMENT of a text holds one whole window of this width that begins at a multiple of the stride.
_WIDTH: Final = 6
_STRIDE: Final = FRAGMENT - _WIDTH + 1

#: What breaks naive masking and naive quoting, each at least once in a password.
_AWKWARD: Final = "+/=%\"\\ &'<"
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: The head of every token of this kind, `{"alg":"RS256","kid":"` in base64url, tells nothing.
_JWT_HEAD: Final = "eyJhbGciOiJSUzI1NiIsImtpZCI6I"


def _token(rng: random.Random) -> str:
    return _base64url(rng, 33)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _jwt(rng: random.Random) -> str:
    return f"{_JWT_HEAD}{_base64url(rng, 12)}.{_base64url(rng, 48)}.{_base64url(rng, 32)}"


def _key(rng: random.Random) -> str:
    return f"{rng.getrandbits(256):064x}"


def _password(rng: random.Random) -> str:
    """Awkward characters shuffled among letters, none at the ends, where config formats strip some of them."""
    inner = [*_AWKWARD, *rng.choices(_LETTERS, k=22)]
    rng.shuffle(inner)
    return "".join([rng.choice(_LETTERS), *inner, rng.choice(_LETTERS)])


def _base64url(rng: random.Random, size: int) -> str:
    return base64.urlsafe_b64encode(rng.randbytes(size)).decode().rstrip("=")


SHAPES: Final[dict[str, Callable[[random.Random], str]]] = {
    "token": _token,
    "uuid": _uuid,
    "jwt": _jwt,
    "key": _key,
    "password": _password,
}


@dataclass(frozen=True, slots=True)
class Hit:
    """One canary found in one artefact: which one, where, and how it was encoded; never what it is.

    `number` counts the canaries in the order of their birth. `offset` and `length` are bytes of the artefact read
    as `encoding` says, white space and colours left out.
    """

    kind: str
    number: int
    artefact: str
    encoding: str
    offset: int
    length: int

    def __str__(self) -> str:
        return (
            f"{self.artefact}: {self.length} characters of canary {self.number} ({self.kind}) "
            f"at offset {self.offset}, encoding {self.encoding}"
        )


@dataclass(frozen=True, slots=True)
class Artefact:
    """Something that a user could see: a name for the report, and its text or bytes."""

    name: str
    data: str | bytes = field(repr=False)

    def read(self) -> bytes:
        """The bytes; text as UTF-8, lone surrogates kept."""
        return self.data.encode("utf-8", "surrogatepass") if isinstance(self.data, str) else self.data


class Artefacts:
    """Collects what a test saw of the product: answers, output of processes, logs, state files."""

    def __init__(self) -> None:
        self._sources: list[tuple[str, Callable[[], str | bytes]]] = []

    def add(self, name: str, data: str | bytes) -> None:
        """Search `data` at the end of the test."""
        self._sources.append((name, lambda: data))

    def watch(self, name: str, read: Callable[[], str | bytes]) -> None:
        """Search what `read()` gives at the end of the test (`stream.getvalue`, `log.read_bytes`)."""
        self._sources.append((name, read))

    def watch_tree(self, folder: Path) -> None:
        """Search names and contents of every file that is below `folder` at the end of the test."""
        self._sources.append((folder.name, lambda: b"\n".join(_contents(folder))))

    def collect(self) -> Iterator[Artefact]:
        """Every artefact as it is now."""
        return (Artefact(name, read()) for name, read in self._sources)


def _contents(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.read_bytes()


@dataclass(frozen=True, slots=True)
class _Canary:
    kind: str
    number: int
    needle: bytes = field(repr=False)


class Canaries:
    """Mints secrets that are unmistakable, and remembers them; `rng` is the source of randomness."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self._count = 0
        self._index: dict[bytes, list[tuple[_Canary, int]]] = {}

    def mint(self, kind: str = "token") -> str:
        """A new secret of one of the `SHAPES`."""
        value = SHAPES[kind](self._rng)
        self.adopt(value, kind, fixed=len(_JWT_HEAD) if kind == "jwt" else 0)
        return value

    def adopt(self, value: str, kind: str, *, fixed: int = 0) -> None:
        """Look for `value` too, a secret that somebody else made.

        Its first `fixed` characters tell nothing: of a real JWT, all up to the signature.
        Raises ValueError where what is left is shorter than a fragment.
        """
        needle = normal(value[fixed:].encode())
        if len(needle) < FRAGMENT:
            raise ValueError(f"a canary has at least {FRAGMENT} characters of its own")
        self._count += 1
        canary = _Canary(kind, self._count, needle)
        for at in range(len(needle) - _WIDTH + 1):
            self._index.setdefault(needle[at : at + _WIDTH], []).append((canary, at))

    def find(self, text: bytes) -> Iterator[tuple[_Canary, int, int]]:
        """Each canary that has a fragment in `text`, with the fragment's offset and length.

        Only windows at multiples of the stride are looked up, so the cost does not grow with the canaries.
        """
        windows = {text[at : at + _WIDTH] for at in range(0, len(text) - _WIDTH + 1, _STRIDE)}
        found: set[_Canary] = set()
        for window in windows & self._index.keys():
            for canary, at in self._index[window]:
                if canary in found:
                    continue
                for offset, length in _fragments(text, window, canary.needle, at):
                    if length >= FRAGMENT:
                        found.add(canary)
                        yield canary, offset, length
                        break


def _fragments(text: bytes, window: bytes, needle: bytes, at: int) -> Iterator[tuple[int, int]]:
    """How far each occurrence of `window` in `text` goes on like `needle` does around `at`, as (offset, length)."""
    where = text.find(window)
    while where >= 0:
        before = 0
        while before < min(at, where) and text[where - before - 1] == needle[at - before - 1]:
            before += 1
        after = _WIDTH
        while (
            at + after < len(needle)
            and text[where + after : where + after + 1] == needle[at + after : at + after + 1]
        ):
            after += 1
        yield where - before, before + after
        where = text.find(window, where + 1)


def search(artefacts: Iterable[Artefact], canaries: Canaries, depth: int = DEPTH) -> list[Hit]:
    """Every canary in every artefact, once each, in the shallowest encoding of at most `depth` that shows it."""
    hits: list[Hit] = []
    # Many artefacts are alike: each text is read once.
    known: dict[bytes, list[tuple[_Canary, str, int, int]]] = {}
    for artefact in artefacts:
        data = artefact.read()
        if data not in known:
            known[data] = list(_first(data, canaries, depth))
        for canary, encoding, offset, length in known[data]:
            hits.append(Hit(canary.kind, canary.number, artefact.name, encoding, offset, length))
    return hits


def _first(data: bytes, canaries: Canaries, depth: int) -> Iterator[tuple[_Canary, str, int, int]]:
    """Each canary in `data`, in the first reading that shows it, with the fragment's offset and length."""
    found: set[int] = set()
    for encoding, text in readings(data, depth):
        for canary, offset, length in canaries.find(text):
            if canary.number not in found:
                found.add(canary.number)
                yield canary, encoding, offset, length
