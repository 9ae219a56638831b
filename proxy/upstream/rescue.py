"""What a transport whose write failed has left in its socket: the early answer in front of a reset (threat 105)."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

#: How much is read at once.
_READ: Final = 64 * 1024


def unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """What can be read of the socket without waiting. A layer of TLS looks for itself (`tls.py`)."""
    if transport.get_extra_info("sslcontext") is not None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    with suppress(OSError):
        while data := os.read(descriptor, _READ):
            yield data
