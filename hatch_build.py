"""Compiles the data path with mypyc while a wheel is built, where that is asked for (docs/adr/0007-compiled.md).

    HATCH_BUILD_HOOKS_ENABLE=1 pip install .

The source tree is left as it is: the modules are compiled in a copy of it, and the libraries go into the wheel
beside the sources, which tracebacks show.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: One C file of everything; its functions call each other directly.
LIBRARY: Final = "proxy.native"
#: -O2 takes twice as long for next to nothing: most of the time is spent in Python's own library.
OPTIMISATION: Final = "1"


class Compile(BuildHookInterface[Any]):
    """The hook; `modules` in pyproject.toml are patterns of the files that it compiles."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the results into the wheel; an editable install stays as its sources are."""
        if version == "editable":
            return
        root = Path(self.root)
        modules = sorted({path for pattern in self.config["modules"] for path in root.glob(pattern)})
        self._folder = TemporaryDirectory(prefix="bearer-proxy-")
        folder = Path(self._folder.name)
        shutil.copytree(root / "proxy", folder / "proxy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        with chdir(folder):
            results = compiled(str(path.relative_to(root)) for path in modules)
        build_data["force_include"].update({str(folder / path): path for path in results})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(
        self,
        version: str,
        build_data: dict[str, Any],  # noqa: ARG002  the hook's contract
        artifact_path: str,  # noqa: ARG002  same
    ) -> None:
        """The wheel is written."""
        if version != "editable":
            self._folder.cleanup()


def compiled(modules: Iterable[str]) -> list[str]:
    """Compile modules in the current folder; gives the paths of the libraries. Ends the build where that fails."""
    from mypyc.build import mypycify  # noqa: PLC0415  the builder asks this file for its dependencies, these
    from setuptools import Distribution  # noqa: PLC0415  same
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415  same

    extensions = mypycify(
        # The types of other packages are not installed here, nor needed: none of these modules imports any.
        ["--config-file=", "--ignore-missing-imports", *modules],
        opt_level=OPTIMISATION,
        debug_level="0",
        group_name=LIBRARY,
        target_dir="generated",
    )
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib = "."
    command.build_temp = "objects"
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()
    return command.get_outputs()
