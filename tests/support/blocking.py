"""A server in a thread of its own: what it does, it has done before the loop under test looks."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def serving_blocking(serve: Callable[[socket.socket], None]) -> AsyncIterator[int]:
    """`serve` is called with each connection in turn, which it may close; gives the port."""

    def accept() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                # What Nagle's algorithm holds back, a reset would drop.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(sock)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join)
