"""The exchange: what is known of one request, and the one line that the log says about it.

The line is built from typed fields. Only what a client could have chosen (path, query keys) runs through the
redactor; everything else is ours, the method included, since the parser knows only its own. No header values, no
query values, no bodies (threat 78).
"""

import itertools
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from proxy.query import query_keys
from proxy.redact import Redactor, printable

_START: Final = secrets.token_hex(4)
_COUNTER = itertools.count(1)


#: More of a path, or more names of parameters, tell a reader nothing (threats 85, 118).
PATH_LIMIT: Final = 2048
KEYS_LIMIT: Final = 64


class Exchange:
    """One request from the listener to the access log. Instants and durations in seconds of `time.perf_counter`."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client",
        "credential",
        "echoes",
        "error",
        "generation",
        "method",
        "path",
        "query",
        "refusals",
        "request_id",
        "retried",
        "route",
        "seconds",
        "started_at",
        "status",
        "token_wait",
        "upstream_seconds",
    )

    def __init__(self, method: str, client: str, started_at: float) -> None:
        self.request_id = f"{_START}{next(_COUNTER):08x}"
        self.method = method
        self.client = client
        self.started_at = started_at
        self.route = ""
        self.path = b""
        self.query: bytes | None = None
        self.status = 0
        self.error = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.seconds = 0.0
        self.upstream_seconds = 0.0
        self.token_wait = 0.0
        self.credential = ""
        self.generation = 0
        #: How many answers of the upstream refused the token, and whether the request was sent once more.
        self.refusals = 0
        self.retried = False
        #: Answer headers that were dropped because they carried the token.
        self.echoes = 0


class AccessLog:
    """Writes one line an exchange to `stream`; `now` gives the time as text (`timestamp`)."""

    def __init__(self, stream: TextIO, redactor: Redactor, *, json_lines: bool, now: Callable[[], str]) -> None:
        self._stream = stream
        self._redactor = redactor
        self._line = self._json if json_lines else self._text
        self._now = now

    def __call__(self, exchange: Exchange) -> None:
        """Write the line of a finished exchange."""
        # A full disk or a closed stream is no reason to stop serving.
        with suppress(OSError, ValueError):
            self._stream.write(self._line(exchange))

    def _chosen(self, text: str) -> str:
        """Text that a client chose: masked, then in printable ASCII."""
        return printable(self._redactor.text(text))

    def _json(self, x: Exchange) -> str:
        path = json.dumps(self._chosen(x.path[:PATH_LIMIT].decode("latin-1")))
        keys = json.dumps([self._chosen(key) for key in query_keys(x.query)[:KEYS_LIMIT]]) if x.query else "[]"
        level = "info" if x.status < 500 else "warning"
        return (
            f'{{"time":"{self._now()}","level":"{level}","event":"request","request_id":"{x.request_id}",'
            f'"client":{json.dumps(x.client)},"method":{json.dumps(x.method)},'
            f'"route":{_or_null(x.route)},"path":{path},"query_keys":{keys},"status":{x.status},'
            f'"error":{_or_null(x.error)},"bytes_in":{x.bytes_in},"bytes_out":{x.bytes_out},'
            f'"duration_ms":{x.seconds * 1e3:.1f},"upstream_ms":{x.upstream_seconds * 1e3:.1f},'
            f'"token_wait_ms":{x.token_wait * 1e3:.1f},"credential":{_or_null(x.credential)},'
            f'"generation":{x.generation},"retried":{"true" if x.retried else "false"}}}\n'
        )

    def _text(self, x: Exchange) -> str:
        path = self._chosen(x.path[:PATH_LIMIT].decode("latin-1"))
        if x.query:
            path += "?" + "&".join(self._chosen(key) for key in query_keys(x.query)[:KEYS_LIMIT])
        level = "INFO" if x.status < 500 else "WARNING"
        milliseconds = f"{x.seconds * 1e3:.1f}ms"
        parts = [f"{self._now()} {level} request {x.method} {path or '-'} {x.status} {milliseconds}"]
        if x.error:
            parts.append(f"error={x.error}")
        parts.append(f"route={x.route or '-'} upstream_ms={x.upstream_seconds * 1e3:.1f}")
        if x.credential:
            parts.append(f"credential={x.credential} generation={x.generation}")
        if x.token_wait >= 0.001:
            parts.append(f"token_wait_ms={x.token_wait * 1e3:.1f}")
        if x.retried:
            parts.append("retried")
        parts.append(f"in={x.bytes_in} out={x.bytes_out} client={x.client} request_id={x.request_id}\n")
        return " ".join(parts)


def _or_null(text: str) -> str:
    return json.dumps(text) if text else "null"
