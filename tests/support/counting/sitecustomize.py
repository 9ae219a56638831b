"""Lets a real process say what it has, on SIGUSR1: on its path, Python runs this before everything else."""

import asyncio
import gc
import json
import os
import signal


def _tell(_number: int, _frame: object) -> None:
    gc.collect()
    found = {"event": "counted", "tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
    os.write(2, f"{json.dumps(found)}\n".encode())


signal.signal(signal.SIGUSR1, _tell)
