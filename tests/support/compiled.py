"""The compiled build of a checkout, as a user installs it: a wheel, in a virtual environment of its own.

Usage: `python -m tests.support.compiled FOLDER` makes it of this checkout for this Python, in FOLDER/venv.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: What a build is made of; a change of anything else needs no new one.
INGREDIENTS: Final = ("pyproject.toml", "hatch_build.py", "proxy/**/*.py", "proxy/**/*.yaml")
#: What a Python is asked: itself, where its packages are, what compiles for it, and with which headers.
ASK: Final = """
import json, sys, sysconfig
names = sysconfig.get_config_vars("CC", "EXT_SUFFIX")
print(json.dumps([sys.version, sysconfig.get_path("purelib"), names[0].split()[0], sysconfig.get_path("include")]))
"""


class CannotBuild(Exception):  # noqa: N818  what happened, as in proxy/errors.py
    """Why there is no compiled build, and what would help."""


@dataclass(frozen=True, slots=True)
class Python:
    """A Python that a build is for."""

    program: str
    version: str
    packages: str
    compiler: str
    headers: str

    @classmethod
    def ask(cls, program: str) -> "Python":
        """What `program` says about itself."""
        said = subprocess.run([program, "-c", ASK], capture_output=True, text=True, check=True).stdout
        return cls(program, *json.loads(said))

    def lacks(self) -> str | None:
        """What is missing to compile for it."""
        if shutil.which(self.compiler) is None:
            return f"there is no C compiler {self.compiler} (Debian: apt-get install gcc libc6-dev)"
        if not Path(self.headers, "Python.h").exists():
            return f"there is no {self.headers}/Python.h (Debian: apt-get install python3-dev)"
        return None


def state(tree: Path, python: Python) -> str:
    """A word that changes with everything that a build of `tree` for `python` depends on."""
    digest = hashlib.sha256(f"{python.version}\n{python.packages}\n".encode())
    for path in sorted(path for pattern in INGREDIENTS for path in tree.glob(pattern)):
        digest.update(f"{path.relative_to(tree)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(tree: Path, folder: Path, program: str = sys.executable) -> str:
    """The path of a Python that runs the compiled build of `tree`, in `folder`; made only where `tree` changed.

    Behind the build it finds the packages of the Python `program`, and `tests`. Raises `CannotBuild`.
    """
    python = Python.ask(program)
    kept, wanted = folder / "state", state(tree, python)
    result = str(folder / "venv" / "bin" / "python")
    if kept.exists() and kept.read_text() == wanted:
        return result
    if not (tree / "hatch_build.py").exists():
        raise CannotBuild(f"{tree} has no hatch_build.py")
    if reason := python.lacks():
        raise CannotBuild(reason)
    sys.stderr.write(f"compiling {tree.name}/ into {folder}/ ...\n")
    shutil.rmtree(folder, ignore_errors=True)
    for command in _commands(python, tree, folder):
        done = subprocess.run(
            command, env=os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotBuild("\n".join([" ".join(command), done.stdout.strip(), done.stderr.strip()]))
    [packages] = (folder / "venv" / "lib").glob("*/site-packages")
    (packages / "behind.pth").write_text("\n".join([python.packages, str(ROOT), ""]))
    kept.write_text(wanted)
    return result


def _commands(python: Python, tree: Path, folder: Path) -> Iterator[list[str]]:
    """Build the wheel, make the environment, install the one into the other."""
    pip = [python.program, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    yield [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(tree)]
    venv = folder / "venv"
    yield [python.program, "-m", "venv", "--without-pip", str(venv)]
    wheels = map(str, folder.glob("*.whl"))
    yield [*pip, "--python", str(venv / "bin" / "python"), "install", "--no-deps", "--no-index", *wheels]


def main(folder: Path) -> int:
    """Build this checkout; 1 if that cannot be."""
    try:
        build(ROOT, folder)
    except CannotBuild as error:
        sys.stderr.write(f"no compiled build: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
