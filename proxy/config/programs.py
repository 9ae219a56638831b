"""Runs a program for the secret that it prints, within bounds of time and size."""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Final

#: Longer is no password or token, but the wrong file.
LONGEST: Final = 64 * 1024
#: How long one that was killed may take to end.
_END_SECONDS: Final = 1.0
#: How often is looked whether a program has ended whose output somebody else keeps open.
_LOOK_SECONDS: Final = 0.05


def output(command: tuple[str, ...], environ: Mapping[str, str], seconds: float) -> bytes:
    """What `command`, program first, prints; raises `ValueError` with a sentence that says nothing of that."""
    program = command[0]
    try:
        process = subprocess.Popen(  # noqa: S603  no shell; the configuration says which program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
        )
    except (OSError, ValueError):
        raise ValueError(f"the command {program} could not be started: install it, or write its path") from None
    deadline = time.monotonic() + seconds
    try:
        printed = b"" if process.stdout is None else _printed(process, process.stdout, deadline)
        if len(printed) > LONGEST:
            raise ValueError(f"{program} gave more than {LONGEST // 1024} KiB: that is no secret")
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ValueError(f"the command {program} did not end within {seconds:g} seconds: run it by hand") from None
    finally:
        _end(process)
    if status:
        raise ValueError(f"the command {program} ended with status {status}: run it by hand to see why")
    return printed


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it where it still runs, and let go of its output."""
    if process.stdout is not None:
        process.stdout.close()
    # One that is somebody else's by now (sudo) may go on.
    with suppress(PermissionError, subprocess.TimeoutExpired):
        process.kill()
        process.wait(_END_SECONDS)


def _printed(process: subprocess.Popen[bytes], pipe: IO[bytes], deadline: float) -> bytes:
    """What it prints until it ends, or until that is too much. Raises `TimeoutError`.

    The end of the output alone would not do: a child in the background may keep it open.
    """
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(found) <= LONGEST:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            has_ended = process.poll() is not None
            if selector.select(0 if has_ended else min(left, _LOOK_SECONDS)):
                piece = os.read(pipe.fileno(), LONGEST + 1)
                if not piece:
                    break
                found += piece
            elif has_ended:
                break
    return found
