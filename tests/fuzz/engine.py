"""One target under atheris, which is libFuzzer: `python -m tests.fuzz.engine NAME SECONDS FOLDER` (`make fuzz`).

New inputs go to FOLDER/corpus; an input that breaks something is FOLDER/crash-…, -timeout-… or -oom-…
"""

import importlib
import sys
from pathlib import Path
from typing import Any, Final

#: No input is worth more than that: whatever takes longer has a trap in it (threat 118).
SECONDS_AN_INPUT: Final = 5
MEGABYTES: Final = 2048


def main(name: str, seconds: str, folder: Path) -> None:
    """Fuzz for so many seconds; ends the process, with 0 if nothing was found."""
    # Found where it is installed alone, which is not on every Python (pyproject.toml, group fuzz).
    atheris: Any = importlib.import_module("atheris")
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["proxy"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    words = folder / "words"
    words.write_text("".join(f'"{written(word)}"\n' for word in target.words))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={SECONDS_AN_INPUT}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        *([f"-dict={words}"] if target.words else []),
    ]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus"), str(targets.CORPUS / name)], target.check)
    atheris.Fuzz()


def written(word: bytes) -> str:
    """As dictionaries of libFuzzer have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
