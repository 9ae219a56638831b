"""The service manager that started the process, systemd mostly: what it passes, and what it is told.

Source: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3). Law: no child of `run` sees any of it, and what is
told holds no secret.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from proxy.sockets import ListenError, PassedSocket

log: Final = logging.getLogger("proxy")

#: SD_LISTEN_FDS_START.
FIRST: Final = 3
#: The manager reads at once; one that does not shall not keep the proxy from serving.
_SEND_SECONDS: Final = 0.2


def passed_sockets(environ: MutableMapping[str, str], *, first: int = FIRST) -> tuple[PassedSocket, ...]:
    """The sockets that the manager listens on for this process, from descriptor `first` on.

    Takes the variables away. Raises `ListenError`.
    """
    given = {name: environ.pop(f"LISTEN_{name}", "") for name in ("FDS", "PID", "FDNAMES", "PIDFDID")}
    if given["PID"] != str(os.getpid()) or not given["FDS"].isascii() or not given["FDS"].isdigit():
        return ()
    return tuple(_passed(number) for number in range(first, first + int(given["FDS"])))


def _passed(number: int) -> PassedSocket:
    try:
        found = PassedSocket(fileno=number)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        # An abstract Unix socket, which has no mode, has a name in bytes.
        if listens and found.type == socket.SOCK_STREAM and _has_address(found):
            found.set_inheritable(False)
            found.setblocking(False)  # noqa: FBT003  the socket module's own signature
            return found
        found.close()
    except OSError:
        pass
    raise ListenError(
        f"cannot listen on descriptor {number}, which the service manager passes: it takes sockets of "
        "ListenStream= with an address or a path, and Accept=no."
    )


def _has_address(sock: PassedSocket) -> bool:
    if sock.family == socket.AF_UNIX:
        return str(sock.getsockname()).startswith("/")
    return sock.family in (socket.AF_INET, socket.AF_INET6)


class Manager:
    """Tells the manager at `address` the state of the service; None: there is none, and nobody is told.

    `watchdog` is how many seconds it may be without a sign of life (None: for ever); `now_usec` gives the instant
    in microseconds of CLOCK_MONOTONIC, by which it orders reloads.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        watchdog: float | None = None,
        now_usec: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000,
    ) -> None:
        self._address = address
        self._watchdog = watchdog
        self._now_usec = now_usec
        self._is_told = False

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> "Manager":
        """The manager that the variables tell of, which are taken away."""
        given = {name: environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
        address, usec = given["NOTIFY_SOCKET"], given["WATCHDOG_USEC"]
        if not address.startswith(("/", "@")):
            return cls()
        is_meant = given["WATCHDOG_PID"] in ("", str(os.getpid())) and usec.isascii() and usec.isdigit()
        return cls(address, watchdog=int(usec) / 1e6 if is_meant and int(usec) else None)

    def ready(self, status: str) -> None:
        """It serves, for the first time or again."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It reads its configuration again; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._now_usec()}")

    def stopping(self) -> None:
        """It takes no connections any more."""
        self._send("STOPPING=1", "STATUS=Draining")

    async def watch(self) -> None:
        """Show, until this is cancelled, that the loop turns; twice as often as is asked for."""
        while self._address is not None and self._watchdog is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_SECONDS)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._is_told:
                fields = {"detail": os.strerror(error.errno) if error.errno else "it does not read"}
                log.warning("manager_not_told", extra={"fields": fields})
            self._is_told = True
