"""A real redis-server on a Unix socket, which keeps nothing unless it is told to, and a way to look inside."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis: Final = pytest.mark.skipif(PROGRAM is None, reason="this machine has no redis-server")


@dataclass
class RedisServer:
    """A server in `folder`, which is started and stopped as the test likes; `options` are its own.

    `inside` is what to start it with.
    """

    folder: Path
    options: list[str] = field(default_factory=list)
    inside: tuple[str, ...] = ()
    user: str | None = None
    password: str | None = None
    process: "subprocess.Popen[str] | None" = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """The same, as a configuration has it."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it says that it is there."""
        assert PROGRAM is not None
        command = [
            PROGRAM,
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.folder),
            "--save",
            "",
        ]
        self.process = subprocess.Popen([*self.inside, *command, *self.options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "ready to accept connections" in line.lower():
                return
        raise ServerRefusedError("".join(said))

    def stop(self) -> None:
        """End it, as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def pause(self) -> None:
        """It is there, and says nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def ask(self, *words: str | bytes | int) -> Any:
        """What the server says to one command of somebody who may do everything."""
        with Redis(
            unix_socket_path=str(self.socket), username=self.user, password=self.password, protocol=2
        ) as client:
            return client.execute_command(*words)

    def everything(self) -> str:
        """All that it holds, as text: keys, fields and values, and as the server would write it to a disk."""
        found = []
        for key in self.ask("KEYS", "*"):
            kind = self.ask("TYPE", key)
            value = self.ask("HGETALL", key) if kind == b"hash" else self.ask("GET", key)
            found += [key, repr(value).encode(), self.ask("DUMP", key)]
        return "\n".join(each.decode("latin-1") for each in found)


class ServerRefusedError(Exception):
    """It did not start with these options; the message is what it said."""


@contextmanager
def serving(folder: Path, *options: str, inside: tuple[str, ...] = ()) -> Iterator[RedisServer]:
    """A server for the block."""
    server = RedisServer(folder, list(options), inside)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
