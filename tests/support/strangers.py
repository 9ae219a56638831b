"""Other users of the machine as clients; only root can play them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest

_PROGRAM: Final = Path(__file__).parent / "stranger.py"
#: A user to whom nothing belongs, and a group that has no other members.
NOBODY: Final = 65534
GROUP: Final = 47110
SECONDS: Final = 60.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="this machine lets the tests be no other user")


def command(url: str, how: str, *, uid: int = NOBODY, groups: Sequence[int] = ()) -> list[str]:
    """How `stranger.py` is started."""
    return [sys.executable, str(_PROGRAM), str(uid), ",".join(map(str, (NOBODY, *groups))), url, how]


def stranger(
    url: str,
    wire: bytes,
    how: Literal["ask", "leave"] = "ask",
    *,
    uid: int = NOBODY,
    groups: Sequence[int] = (),
    inside: Sequence[str] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Send `wire` to `url` (http://host:port or unix:/path) as another user; `inside` begins the command.

    It waits, so that nothing else goes on in this process meanwhile.
    """
    return subprocess.run(
        [*inside, *command(url, how, uid=uid, groups=groups)],
        input=wire,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def holding(url: str) -> Iterator[None]:
    """As another user, hold very many connections to `url` open, on which nothing is said."""
    with subprocess.Popen(command(url, "hold"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline()
        yield
        program.stdin.close()
        assert program.wait(SECONDS) == 0


@contextmanager
def passable() -> Iterator[Path]:
    """A folder that every user can pass through, and nobody else can write to; those of pytest are closed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o711)
        yield path
