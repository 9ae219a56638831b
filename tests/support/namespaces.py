"""Machines on one network, as network namespaces: each with an address of its own, and a cable that can be pulled.

Nothing of it is to be seen from the machine's own network, so addresses need not be unique, and names alone are.
"""

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from proxy.demo.double import Double
from proxy.demo.serving import DRAIN_SECONDS

IP: Final = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
#: `man 2 setns`.
_CLONE_NEWNET: Final = 0x40000000
_NAMED: Final = Path("/run/netns")


class CannotError(Exception):
    """This machine does not let us; the message is what it said."""


def ip(*words: str) -> None:
    """One command of iproute2. Raises `CannotError`."""
    assert IP is not None
    done = subprocess.run([IP, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@dataclass(frozen=True)
class Machine:
    """One namespace, its address, and its plug in the switch."""

    name: str
    address: str
    switch: str
    plug: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What to begin a command with that is to run there."""
        assert IP is not None
        return (IP, "netns", "exec", self.name)

    def cut(self) -> None:
        """Pull its cable: what it sends and what is sent to it is lost, and nobody is told."""
        ip("-n", self.switch, "link", "set", self.plug, "down")

    def let_back(self) -> None:
        """Plug it in again."""
        ip("-n", self.switch, "link", "set", self.plug, "up")

    def forget(self, address: str) -> None:
        """From now on it does not reach this address, and others it does."""
        ip("-n", self.name, "route", "add", "blackhole", f"{address}/32")

    def remember(self, address: str) -> None:
        """It reaches it again."""
        ip("-n", self.name, "route", "del", "blackhole", f"{address}/32")


@dataclass(frozen=True)
class Network:
    """A switch, in a namespace that has the addresses `vendor` and `store`, and machines that it joins."""

    switch: str
    machines: list[Machine]
    vendor: str = "10.88.0.1"
    store: str = "10.88.0.2"

    @property
    def inside(self) -> tuple[str, ...]:
        """What to begin a command with that is to run at the switch."""
        assert IP is not None
        return (IP, "netns", "exec", self.switch)

    @asynccontextmanager
    async def serving(self, double: Double[Any]) -> AsyncIterator[str]:
        """Serve `double` at the vendor's address too, and give its URL."""
        runner = web.AppRunner(double.app(), access_log=None, shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        try:
            bound = await asyncio.to_thread(_bound_inside, self.switch, self.vendor)
            await web.SockSite(runner, bound).start()
            yield f"http://{self.vendor}:{bound.getsockname()[1]}"
        finally:
            await runner.cleanup()


@contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of `count` machines for the block. Raises `CannotError`."""
    # Workers that run beside one another are processes.
    prefix = f"bp{os.getpid()}"
    switch = f"{prefix}-switch"
    made = Network(
        switch, [Machine(f"{prefix}-{n}", f"10.88.0.{n + 10}", switch, f"plug{n}") for n in range(count)]
    )
    try:
        _join(made)
        yield made
    finally:
        # With a namespace go its devices, and with one end of a cable the other.
        for name in (switch, *(each.name for each in made.machines)):
            if (_NAMED / name).exists():
                ip("netns", "del", name)


def _join(made: Network) -> None:
    switch = ("-n", made.switch)
    ip("netns", "add", made.switch)
    ip(*switch, "link", "set", "lo", "up")
    ip(*switch, "link", "add", "bridge", "type", "bridge")
    ip(*switch, "link", "set", "bridge", "up")
    for address in (made.vendor, made.store):
        ip(*switch, "address", "add", f"{address}/24", "dev", "bridge")
    for each in made.machines:
        ip("netns", "add", each.name)
        ip("-n", each.name, "link", "set", "lo", "up")
        ip(*switch, "link", "add", each.plug, "type", "veth", "peer", "name", "cable", "netns", each.name)
        ip(*switch, "link", "set", each.plug, "master", "bridge", "up")
        ip("-n", each.name, "address", "add", f"{each.address}/24", "dev", "cable")
        ip("-n", each.name, "link", "set", "cable", "up")


def why_not() -> str | None:
    """What keeps this machine from having such a network, None where nothing does."""
    if IP is None:
        return "this machine has no ip (iproute2)"
    try:
        with network(1) as tried:
            done = subprocess.run([*tried.machines[0].inside, "true"], capture_output=True, text=True, check=False)
            return _forbidden(f"ip netns exec: {done.stderr.strip()}") if done.returncode else None
    except CannotError as error:
        return _forbidden(str(error))


def _forbidden(said: str) -> str:
    return f"this machine lets nobody make network namespaces ({said})"


def _bound_inside(name: str, address: str) -> socket.socket:
    """A socket that is bound in the namespace `name`; that is where it stays, whoever uses it."""
    found: list[socket.socket | OSError] = []

    def bind() -> None:
        try:
            _enter(name)
            made = socket.socket()
            made.bind((address, 0))
        except OSError as error:
            found.append(error)
        else:
            found.append(made)

    # A thread of its own, which ends: it has left the machine's network for good.
    thread = threading.Thread(target=bind)
    thread.start()
    thread.join()
    [outcome] = found
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def _enter(name: str) -> None:
    """Move the calling thread (Python 3.12 has `os.setns`). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = os.open(_NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(number, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(number)
