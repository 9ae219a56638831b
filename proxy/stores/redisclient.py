"""Speaks to one Redis or Valkey server: every command has a deadline, and ends in an answer or an error of ours.

Law: what the server says of a failure is never shown, and neither is who we are to it (threats 75, 80).
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy.errors import StoreUnavailable
from proxy.redact import Secret

#: For one command, with the connection that it may have to make. Where the server says nothing, who needs a token
#: waits for four of them, and for the token endpoint.
COMMAND_SECONDS: Final = 3.0
#: A connection that was left from before the server's restart is found out by using it.
_RETRIES: Final = 1
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_VERSION: Final = re.compile(r"[0-9.]{1,20}")
#: Stand for keys of a text and of a hash.
_TEXT, _HASH = "TEXT", "HASH"
#: Every command that a store sends, or a script of it.
_TRIALS: Final[tuple[tuple[str, ...], ...]] = (
    ("eval", "return 1", "1", _TEXT),
    ("hset", _HASH, "tag", ""),
    ("pexpire", _HASH, "1000"),
    ("hget", _HASH, "tag"),
    ("hmget", _HASH, "tag"),
    ("hdel", _HASH, "tag"),
    ("set", _TEXT, "", "PX", "1000"),
    ("get", _TEXT),
    ("time",),
    ("del", _TEXT, _HASH),
)
_NOT_ALLOWED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is, and who we are to it. `path` is that of a Unix socket, and wins over host and port."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself; `version` is empty where it is older than the command that tells it."""

    name: str = ""
    version: str = ""
    is_replica: bool = False
    is_cluster: bool = False


class _PlainConnection(Connection):
    """A connection that forgets what it has not sent when it is closed (SO_LINGER, socket(7)).

    The system would else go on to send it: what was asked for in vain would be given to nobody when the network is
    back, a turn for one.
    """

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]  # theirs
        if self._writer is not None:
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


class _TLSConnection(SSLConnection, _PlainConnection):
    """The same, with a context of ours: the library's own one writes the session's keys to `SSLKEYLOGFILE`."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:  # noqa: ANN401  the library's
        super().__init__(**options)
        self.ssl_context.context = context


class RedisClient:
    """Connections to `server`, made when they are needed. `seconds` is the deadline of each command."""

    def __init__(self, server: Server, *, seconds: float = COMMAND_SECONDS) -> None:
        self.server = server
        self._seconds = seconds
        self._redis = Redis(connection_pool=_pool(server, seconds))

    async def call(self, *words: str | bytes | int) -> Any:  # noqa: ANN401  as the command answers
        """The answer to one command, which may have been sent twice. Raises `StoreUnavailable`."""
        with self._translated():
            return await self._execute(*words)

    async def about(self) -> About:
        """Who the server says that it is, by a command that is open to every user. Raises `StoreUnavailable`."""
        with self._translated():
            try:
                said = await self._execute("HELLO")
            except exceptions.ResponseError as error:
                if isinstance(error, _NOT_ALLOWED):
                    raise
                return About()
        texts = [each.decode("latin-1") if isinstance(each, bytes) else "" for each in said]
        found = dict(zip(texts[::2], texts[1::2], strict=False))
        return About(
            "Valkey" if found.get("server") == "valkey" else "Redis",
            version if _VERSION.fullmatch(version := found.get("version", "")) else "",
            is_replica=found.get("role") == "replica",
            is_cluster=found.get("mode") == "cluster",
        )

    async def refused(self, prefix: str) -> list[str]:
        """What a store needs and this user may not do with keys of `prefix`. Raises `StoreUnavailable`.

        What is written is removed, or ends within a second, as far as this user may do either.
        """
        found: list[str] = []
        keys = {_TEXT: f"{prefix}:{{}}:text", _HASH: f"{prefix}:{{}}:hash"}
        for name, *arguments in _TRIALS:
            with self._translated():
                try:
                    await self._execute(name, *(keys.get(each, each) for each in arguments))
                except exceptions.NoPermissionError:
                    found.append(name)
        return found

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _execute(self, *words: str | bytes | int) -> Any:  # noqa: ANN401  as the command answers
        async with asyncio.timeout(self._seconds):
            return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]  # theirs

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            # What goes wrong while a connection is made is wrapped once more.
            cause = error.__cause__ if isinstance(error.__cause__, exceptions.RedisError) else error
            raise StoreUnavailable(f"The server {self.server} (store.url) {_meaning(cause)}.") from None


def _meaning(error: Exception) -> str:
    if isinstance(error, _NOT_ALLOWED):
        return (
            "does not let this user in, or not do what it must: check store.username, store.password and the "
            "user's rules"
        )
    if isinstance(error, exceptions.OutOfMemoryError | exceptions.ReadOnlyError):
        return "takes no writes: it is full, or a replica"
    if isinstance(error, exceptions.ResponseError | exceptions.DataError):
        return (
            "refused a command: its user must be allowed eval, get, set, del, pexpire, hget, hmget, hset, hdel and "
            "time, and it must be no cluster"
        )
    return "does not answer"


def _pool(server: Server, seconds: float) -> ConnectionPool:
    options: dict[str, Any] = {
        "db": server.database,
        "username": server.username,
        "password": None if server.password is None else server.password.reveal(),
        # Each command has a deadline of ours. With one of theirs it may not end where it is cancelled: they use
        # `asyncio.wait_for`, which in Python 3.11 forgets that (CPython issue 81839).
        "socket_timeout": None,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), _RETRIES),
        # Nothing is asked that a user with few rights may not.
        "protocol": 2,
        "driver_info": None,
    }
    if server.path is not None:
        return ConnectionPool(UnixDomainSocketConnection, path=server.path, **options)
    options |= {"host": server.host, "port": server.port}
    if server.tls is not None:
        return ConnectionPool(_TLSConnection, context=server.tls, **options)
    return ConnectionPool(_PlainConnection, **options)
