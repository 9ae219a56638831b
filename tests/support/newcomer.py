"""A newcomer's way, timed: clone, `make demo`, one command with a token of one's own, and the first answer.

Usage: `make newcomer` does it in a folder of its own, against an API on this machine that demands the token. pip
gets its packages as ever. The exit status is 1 where a step fails, or where a file of the clone was changed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TOKEN: Final = "a-token-of-a-newcomer-0123456789"
#: What stands in README for an upstream, and the address that the proxy there listens on.
_EXAMPLE: Final = "https://api.example.com"
_ADDRESS: Final = "127.0.0.1:8080"
#: No step takes so many seconds.
DEADLINE: Final = 600.0


class Demanding(BaseHTTPRequestHandler):
    """An API that answers whoever has the token."""

    def do_GET(self) -> None:
        """401 without it."""
        is_known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = b"hello, newcomer\n" if is_known else b"who are you?\n"
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def demanding() -> Iterator[str]:
    """The URL of such an API."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Demanding)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def main() -> int:
    """Do all of it, and say how long each step took."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder, demanding() as api:
        home = Path(folder, "home")
        home.mkdir()
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("BEARER_", "XDG_", "MAKE"))
        }
        # What pip has kept already counts: who has Python has used it before.
        cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
        environ = {**kept, "HOME": str(home), "PIP_CACHE_DIR": cache, "API_TOKEN": TOKEN}
        try:
            return _walk(Path(folder), api, environ)
        except (subprocess.SubprocessError, AssertionError) as error:
            _say(f"failed: {error}")
            return 1


def _walk(folder: Path, api: str, environ: dict[str, str]) -> int:
    began_at = monotonic()
    clone = folder / "bearer-proxy"
    with _step(f"git clone URL {clone.name}"):
        _run(["git", "clone", "--quiet", str(ROOT), str(clone)], folder, environ)
    with _step("make demo"):
        _run(["make", "demo"], clone, environ)
    command = _promised(clone).replace(_EXAMPLE, api).replace(_ADDRESS, "127.0.0.1:0")
    with _step(command):
        process = subprocess.Popen(
            # In the place of the shell, so that the end of one is that of the other.
            ["sh", "-c", f"exec {command}"],
            cwd=clone,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        url = _listening(process)
    try:
        with _step("curl"):
            answer = _run(["curl", "--silent", "--fail", url], clone, environ)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
    assert answer == "hello, newcomer\n", f"the answer is {answer!r}"
    changed = _run(["git", "status", "--porcelain"], clone, environ)
    assert not changed, f"files of the clone were changed:\n{changed}"
    _say(f"{monotonic() - began_at:6.1f} s  in all, three commands and no file edited")
    return 0


def _promised(clone: Path) -> str:
    """The command as README has it."""
    lines = (clone / "README.md").read_text("utf-8").splitlines()
    [command] = [line for line in lines if f"bearer-proxy run --upstream {_EXAMPLE} " in line]
    return command


def _listening(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if " listening " in line:
            return line.rpartition("url=")[2].strip()
    raise AssertionError("the proxy has ended")


def _run(command: list[str], folder: Path, environ: dict[str, str]) -> str:
    """What it printed. Raises `CalledProcessError`, having shown that."""
    try:
        return subprocess.run(
            command, cwd=folder, env=environ, check=True, capture_output=True, text=True, timeout=DEADLINE
        ).stdout
    except subprocess.CalledProcessError as error:
        _say(f"{error.stdout}\n{error.stderr}")
        raise


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def _step(name: str) -> Iterator[None]:
    began_at = monotonic()
    yield
    _say(f"{monotonic() - began_at:6.1f} s  {name}")


if __name__ == "__main__":
    sys.exit(main())
