"""What the README promises to a newcomer: three commands, no file edited."""

import subprocess
import sys

import pytest

from tests.support.newcomer import ROOT


@pytest.mark.slow
def test_a_newcomer_gets_an_answer_with_three_commands() -> None:
    """A clone, `make demo`, one command with a token; the upstream demands it, and curl gets its answer."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.newcomer"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.split(" s  ")[1].split()[0] for line in done.stdout.splitlines()]
    assert steps == ["git", "make", ".venv/bin/bearer-proxy", "curl", "in"]
