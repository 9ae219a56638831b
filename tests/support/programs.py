"""Real programs as clients: each in clean surroundings, and what it says is searched for canaries."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.leaks import Artefacts

#: A hang becomes a failure.
DEADLINE: Final = 60.0


def program(name: str) -> str:
    """The path of a program of this machine, or a skip that says how to get it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"this machine has no {name}")
    return found


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """Variables with which a program finds no settings of a person; `more` are added."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "NO_PROXY": "*", "no_proxy": "*", **more}


async def run(
    artefacts: Artefacts,
    *command: object,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> bytes:
    """The standard output of a program that must succeed; what it printed is searched for canaries."""
    status, out, err = await attempt(artefacts, *command, stdin=stdin, cwd=cwd, environ=environ)
    assert status == 0, (out + err).decode()
    return out


async def attempt(
    artefacts: Artefacts,
    *command: object,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[int | None, bytes, bytes]:
    """Its status, and what it said on both streams."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env=environ, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        raise
    artefacts.add(str(command[0]), out + err)
    return process.returncode, out, err


@asynccontextmanager
async def started(*command: object, environ: Mapping[str, str]) -> AsyncIterator[str]:
    """A server, which prints its port first, for as long as the block lasts: its URL."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        # What a wheel installs may be a script around the program: both end together.
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
