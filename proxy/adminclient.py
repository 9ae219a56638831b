"""Asks the admin listener of a running instance.

Over a plain socket, with HTTP/1.0, where the end of the connection is the end of the answer: the server is our own,
and importing an HTTP client would take longer than all else that `healthcheck` does.
"""

import json
import socket
from typing import Any, Final

from proxy.errors import BearerProxyError
from proxy.runfile import Running

_LIMIT: Final = 4 * 1024 * 1024
#: An instance that listens on every address is asked on this machine's own.
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class AdminError(BearerProxyError):
    """The admin listener cannot be asked, or does not answer; the message says which and why."""


def ask(running: Running, method: str, path: str, *, wait: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON document of the answer; `wait` bounds each step in seconds. Raises `AdminError`."""
    if running.admin_url is None:
        raise AdminError("the admin listener is off (admin.listen: null): health and credentials cannot be asked")
    host, port = _address(running.admin_url)
    # The probes need no key, so they do not get it.
    key = f"Authorization: Bearer {running.admin_key}\r\n" if path.startswith("/api/") else ""
    request = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n{key}Content-Length: 0\r\n\r\n"
    try:
        with socket.create_connection((host, port), wait) as connection:
            connection.sendall(request.encode("ascii"))
            answer = _read(connection)
    except OSError as error:
        raise AdminError(f"the admin listener at {running.admin_url} does not answer") from error
    try:
        head, _, body = answer.partition(b"\r\n\r\n")
        document = json.loads(body)
        return int(head.split(b" ", 2)[1]), dict(document)
    except (ValueError, IndexError, TypeError) as error:
        raise AdminError(
            f"what answers at {running.admin_url} is not the admin listener of bearer-proxy"
        ) from error


def _address(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    bare = host.strip("[]")
    return _WILDCARDS.get(bare, bare), int(port)


def _read(connection: socket.socket) -> bytes:
    pieces = []
    left = _LIMIT
    while left > 0 and (piece := connection.recv(65536)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
