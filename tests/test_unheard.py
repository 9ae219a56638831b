"""An exception that nobody hears fails the test in which it is lost: the plugin and the settings for it do so."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
LOSSES: Final = """
import asyncio, gc, socket
import pytest

async def fails():
    raise ValueError("lost")

async def test_a_task_that_is_asked():
    with pytest.raises(ValueError):
        await asyncio.create_task(fails())

async def test_a_task_that_nobody_asks():
    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    del task
    gc.collect()

async def test_a_future_that_nobody_asks():
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("lost"))
    del future
    gc.collect()

async def test_a_coroutine_that_nobody_awaits():
    fails()
    gc.collect()

def test_a_socket_that_nobody_closes():
    socket.socket()
    gc.collect()

def test_an_end_that_fails():
    class Ends:
        def __del__(self):
            raise ValueError("lost")
    Ends()
    gc.collect()

def test_a_thread_that_fails():
    import threading
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

async def test_fails_and_loses():
    await test_a_task_that_nobody_asks()
    assert False

def test_nothing_is_held_against_the_next_one():
    gc.collect()
"""
HARMLESS: Final = {"test_a_task_that_is_asked", "test_nothing_is_held_against_the_next_one"}


@pytest.mark.threat(120)
def test_an_exception_that_nobody_hears_fails_the_test_that_loses_it(tmp_path: Path) -> None:
    """One real run of pytest, with the settings of this project and a loss of each kind."""
    (tmp_path / "test_losses.py").write_text(LOSSES)
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.support.unheard", "-p", "no:cacheprovider"),
            *("-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", f"--junitxml={report}"),
            str(tmp_path / "test_losses.py"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    cases = [(case.get("name"), case) for case in ET.parse(report).getroot().iter("testcase")]  # noqa: S314  our own
    broken = {name for name, case in cases if case.find("error") is not None or case.find("failure") is not None}
    assert broken == {name for name, _case in cases} - HARMLESS
    assert "An exception was lost:\nTask exception was never retrieved" in run.stdout
