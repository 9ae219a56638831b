"""Happy eyeballs: the addresses of a name are tried side by side, and the first that answers serves (RFC 8305)."""

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, Final

#: The next address is tried after this many seconds, or as soon as the one before has failed (section 8).
ATTEMPT_DELAY: Final = 0.25

#: A family of sockets, and what connects one of it.
Address = tuple[int, Any]


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host in the order in which to try them. Raises `socket.gaierror` or `UnicodeError`.

    The system's resolver sorts them (RFC 6724) and gives those of both families at once.
    """
    with suppress(ValueError):
        is_6 = ipaddress.ip_address(host).version == 6
        return [(socket.AF_INET6 if is_6 else socket.AF_INET, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return interleaved((family, address) for family, _, _, _, address in found)


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Each once, and the families in turns, that of the first one first (RFC 8305 section 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


async def first_connected(addresses: Sequence[Address], *, delay: float = ATTEMPT_DELAY) -> socket.socket:
    """A non-blocking socket that is connected to one of `addresses`; no attempt at the others is left.

    Raises the most telling `OSError` when all have failed.
    """
    if len(addresses) == 1:
        return await connected(*addresses[0])
    left = deque(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while left or running:
            if left:
                running.add(asyncio.create_task(connected(*left.popleft())))
            done, _ = await asyncio.wait(
                running, timeout=delay if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.remove(task)
                error = task.exception()
                if error is None:
                    return task.result()
                errors.append(error)
    finally:
        # No await here: whoever cancels us then would lose the socket that was won.
        for task in running:
            task.add_done_callback(_close)
            task.cancel()
    raise _most_telling(errors)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _most_telling(errors: Sequence[BaseException]) -> BaseException:
    """Who was refused had reached a machine; who had no route, perhaps only because there is no IPv6, had not."""
    for kind in (ConnectionRefusedError, TimeoutError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]


async def connected(family: int, address: Any) -> socket.socket:  # noqa: ANN401  as the socket module has it
    """A non-blocking socket that is connected to `address`. Raises `OSError`."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
