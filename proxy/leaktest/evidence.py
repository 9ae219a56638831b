"""What a copy showed, by artefact, what each may hold, and what the search of it finds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.findings import Finding
from proxy.leaktest.leaks import Artefact, Canaries, search

_MEND: Final = "do not run this version with this configuration, and report this line (SECURITY.md says where); it names no secret"


@dataclass
class Evidence:
    """Pieces by the artefact that they are of, and by the beginnings of the labels that it may hold."""

    _pieces: dict[tuple[str, tuple[str, ...]], list[bytes]] = field(default_factory=dict)

    def add(self, artefact: str, data: bytes, may_hold: tuple[str, ...] = ()) -> None:
        """Search `data` as a part of `artefact`."""
        self._pieces.setdefault((artefact, may_hold), []).append(data)

    def add_tree(self, artefact: str, folder: Path, without: Path | None = None) -> None:
        """Names and contents of every file below `folder`."""
        for path in sorted(folder.rglob("*")):
            self.add(artefact, str(path.relative_to(folder)).encode())
            if path.is_file() and path != without:
                self.add(artefact, path.read_bytes())

    def judged(self, canaries: Canaries) -> Iterator[Finding]:
        """One finding for each artefact that is clean, one for each secret in the others."""
        sizes: dict[str, int] = {}
        leaks: dict[tuple[str, str], Finding] = {}
        for (artefact, may_hold), pieces in self._pieces.items():
            data = b"\n".join(pieces)
            sizes[artefact] = sizes.get(artefact, 0) + len(data)
            for hit in search([Artefact(artefact, data)], canaries):
                if not hit.kind.startswith(may_hold or ("\0",)):
                    detail = f"{hit.length} characters of {hit.kind}, read as {hit.encoding}: {_MEND}"
                    leaks.setdefault((artefact, hit.kind), Finding("failure", artefact, detail))
        leaky = {artefact for artefact, _label in leaks}
        yield from leaks.values()
        for artefact, size in sizes.items():
            if artefact not in leaky:
                yield Finding("ok", artefact, f"{size:,} bytes, no secret")
