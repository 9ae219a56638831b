"""A service manager, as far as services see it: it hears what they say (sd_notify(3)), and listens for them."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxy.sockets import PassedSocket
from tests.support.instances import DEADLINE


@dataclass
class Heard:
    """The datagrams that came to a real socket, each as its assignments."""

    sock: socket.socket
    said: list[dict[str, str]] = field(default_factory=list)

    async def hears(self, *wanted: str) -> dict[str, str]:
        """The next datagram with all of these variables; those before it are kept in `said` too."""
        async with asyncio.timeout(DEADLINE):
            while True:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
                found = dict(line.split("=", 1) for line in data.decode("utf-8").splitlines())
                self.said.append(found)
                if found.keys() >= set(wanted):
                    return found


@contextmanager
def listening_manager(address: str) -> Iterator[Heard]:
    """A manager at `address`, as NOTIFY_SOCKET has it: a path, or a name after @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield Heard(sock)


@contextmanager
def listening(*places: str | Path) -> Iterator[list[socket.socket]]:
    """A listening socket of somebody else's at each place: a path, or an IP address on a free port."""
    opened: list[socket.socket] = []
    try:
        for place in places:
            is_path = isinstance(place, Path)
            family = socket.AF_UNIX if is_path else socket.AF_INET6 if ":" in str(place) else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            opened.append(sock)
            sock.bind(str(place) if is_path else (str(place), 0))
            sock.listen()
        yield opened
    finally:
        for sock in opened:
            sock.close()


def passed(sock: socket.socket) -> PassedSocket:
    """The same as the process has it that it is passed to."""
    return PassedSocket(fileno=os.dup(sock.fileno()))


def passing(*socks: socket.socket) -> tuple[str, ...]:
    """What a program is started with, that gets these; they have to be inherited."""
    return (sys.executable, "-m", "tests.support.passing", ",".join(str(sock.fileno()) for sock in socks))
