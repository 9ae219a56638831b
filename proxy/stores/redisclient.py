"""Speaks to one Redis or Valkey server: every command has a deadline, and ends in an answer or an error of ours.

Law: what the server says of a failure is never shown, and neither is who we are to it (threats 75, 80).
"""

import asyncio
import ssl
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


class _TLSConnection(SSLConnection):
    """A connection with a context of ours: the library's own one writes the session's keys to `SSLKEYLOGFILE`."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:  # noqa: ANN401  the library's
        super().__init__(**options)
        self.ssl_context.context = context


class RedisClient:
    """Connections to `server`, made when they are needed. `seconds` is the deadline of each command."""

    def __init__(self, server: Server, *, seconds: float = COMMAND_SECONDS) -> None:
        self._server = server
        self._seconds = seconds
        self._redis = Redis(connection_pool=_pool(server, seconds))

    async def call(self, *words: str | bytes | int) -> Any:  # noqa: ANN401  as the command answers
        """The answer to one command, which may have been sent twice. Raises `StoreUnavailable`."""
        with self._translated():
            async with asyncio.timeout(self._seconds):
                return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]  # theirs

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            # What goes wrong while a connection is made is wrapped once more.
            cause = error.__cause__ if isinstance(error.__cause__, exceptions.RedisError) else error
            raise StoreUnavailable(f"The server {self._server} (store.url) {_meaning(cause)}.") from None


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
            "refused a command: its user must be allowed eval, get, set, del, pexpire, hget, hmget, hset and hdel, "
            "and it must be no cluster"
        )
    return "does not answer"


def _pool(server: Server, seconds: float) -> ConnectionPool:
    options: dict[str, Any] = {
        "db": server.database,
        "username": server.username,
        "password": None if server.password is None else server.password.reveal(),
        "socket_timeout": seconds,
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
    return ConnectionPool(Connection, **options)
