"""Places where packages are: pypiserver and Verdaccio, both open to whoever asks, and a package to put there."""

import os
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support.npm import BIN, ROOT, installed
from tests.support.programs import started, surroundings

#: More than `replay.memory`, and than git sends at once.
LARGE: Final = 3 * 1024 * 1024
#: pip without a person's settings, without questions, and without asking for more than what is to be installed.
PIP: Final = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

#: Serves the folder that is its argument, and takes uploads; prints its port.
_INDEX: Final = """
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
import pypiserver
WSGIRequestHandler.log_message = lambda *_: None
app = pypiserver.app(roots=[sys.argv[1]], password_file=".", authenticate=[], disable_fallback=True)
server = make_server("127.0.0.1", 0, app)
print(server.server_port, flush=True)
server.serve_forever()
"""


@asynccontextmanager
async def index(home: Path) -> AsyncIterator[str]:
    """An index of Python packages: its URL."""
    served = home / "index"
    served.mkdir()
    async with started(sys.executable, "-c", _INDEX, served, environ=surroundings(home)) as url:
        yield url


@asynccontextmanager
async def registry(home: Path) -> AsyncIterator[str]:
    """A registry of npm packages: its URL."""
    served, sources = home / "registry", ROOT / "tests" / "npm"
    served.mkdir()
    command = [BIN / "node", sources / "registry.mjs", served, installed(sources)]
    async with started(*command, environ=surroundings(home)) as url:
        yield url


def wheel(folder: Path, version: str) -> Path:
    """A package `probe` with a module and something large, of which nothing can be left out."""
    info = f"probe-{version}.dist-info"
    files = {
        "probe/__init__.py": f'version = "{version}"\n'.encode(),
        "probe/large": os.urandom(LARGE),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: probe\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    made = folder / f"probe-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    return made
