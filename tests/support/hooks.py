"""The hooks of the interpreter: tests leave them as pytest has them, which hears of lost exceptions by them."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hooks_kept() -> Iterator[None]:
    """Put them back at the end of the block."""
    kept = sys.excepthook, threading.excepthook, sys.unraisablehook
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = kept
