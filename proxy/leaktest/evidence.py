"""What the copies showed, by artefact, what each part may hold, and what the search of it finds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.findings import Finding
from proxy.leaktest.leaks import Artefact, Canaries, search

_MEND: Final = "do not use this version with this configuration, and report this line (it holds no secret)"


@dataclass(frozen=True, slots=True)
class _Part:
    """Of which artefact, where in it, and the beginnings of the labels of secrets that belong there."""

    artefact: str
    where: str
    may_hold: tuple[str, ...]


@dataclass
class Evidence:
    """All that is to be searched."""

    _pieces: dict[_Part, list[bytes]] = field(default_factory=dict)

    def add(self, artefact: str, data: bytes, may_hold: tuple[str, ...] = (), *, where: str = "") -> None:
        """Search `data`, which is of `artefact`."""
        self._pieces.setdefault(_Part(artefact, where, may_hold), []).append(data)

    def add_tree(self, artefact: str, folder: Path) -> None:
        """Names and contents of every file below `folder`."""
        for path in sorted(folder.rglob("*")):
            self.add(artefact, str(path.relative_to(folder)).encode())
            if path.is_file():
                self.add(artefact, path.read_bytes(), where=path.name)

    def judged(self, canaries: Canaries) -> Iterator[Finding]:
        """A finding for each artefact that is clean, and in the others one for each secret in each place."""
        sizes: dict[str, int] = {}
        leaks: dict[str, list[Finding]] = {}
        for part, pieces in self._pieces.items():
            data = b"\n".join(pieces)
            sizes[part.artefact] = sizes.get(part.artefact, 0) + len(data)
            found = leaks.setdefault(part.artefact, [])
            for hit in search([Artefact(part.artefact, data)], canaries):
                if not any(hit.kind.startswith(label) for label in part.may_hold):
                    what = f"{hit.length} characters of {hit.kind} ({hit.encoding})"
                    where = f"{part.where}: " if part.where else ""
                    found.append(Finding("failure", part.artefact, f"{where}{what}: {_MEND}"))
        for artefact, size in sizes.items():
            yield from dict.fromkeys(leaks[artefact])
            if not leaks[artefact]:
                yield Finding("ok", artefact, f"{size:,} bytes, no secret")
