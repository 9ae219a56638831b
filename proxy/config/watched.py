"""Which files a configuration is made of, and whether they have changed."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.config.model import Config
from proxy.config.sources import Source

#: What tells one state of a file from another; None: it cannot be seen. A change of its mode counts as well.
_Stamp = tuple[int, ...] | None


def files(config: Config, source: Source) -> Iterator[Path]:
    """The configuration's own file, those that hold its secrets, and those of TLS.

    What a credential of type `file` reads is not among them: it looks for itself.
    """
    if source.path is None:
        return
    yield source.path
    for _path, secret in config.secrets():
        if secret.kind == "file":
            yield source.folder / str(secret.reference)
    for part in (*config.routes, *config.credentials.values()):
        tls = getattr(part, "tls", None)
        if tls is not None:
            yield from (path for path in (tls.ca, tls.cert, tls.key) if path is not None)


class Watched:
    """Some files, as they were when they were read; a change counts when they rest, for it may go on.

    Blocks for as long as the file system does.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._read = self._seen = {path: _stamp(path) for path in paths}

    def look(self) -> bool:
        """Is there something else to read, which was there at the last look already?"""
        before, self._seen = self._seen, {path: _stamp(path) for path in self._seen}
        return self._seen == before != self._read

    def take(self) -> None:
        """They are about to be read."""
        self._read = self._seen = {path: _stamp(path) for path in self._seen}

    def follow(self, paths: Iterable[Path]) -> None:
        """Look at these from now on, which were read."""
        self._read = self._seen = {path: self._read[path] if path in self._read else _stamp(path) for path in paths}


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
