"""The exchange: what is known of one request, and the one line that the log says about it.

The line is built from typed fields. What a client could have chosen (path, names of parameters) runs through the
redactor, and so does every other word. No header values, no query values, no bodies (threat 78).
"""

import itertools
import secrets
from asyncio import get_running_loop
from collections.abc import Callable
from typing import Final

from proxy.lines import Lines, timestamp
from proxy.query import query_names
from proxy.redact import Redactor, printable

_START: Final = secrets.token_hex(4)
_COUNTER = itertools.count(1)


#: More bytes of a path, more names of parameters, or more bytes of these tell a reader nothing (threats 85, 118).
PATH_LIMIT: Final = 2048
KEYS_LIMIT: Final = 64
NAMES_LIMIT: Final = 1024
#: What reached no route is logged so often, and counted beyond that.
UNROUTED_A_SECOND: Final = 10
#: How many texts are kept as the line shows them, and up to which length.
KEPT_TEXTS: Final = 512
KEPT_LENGTH: Final = 256
KEPT_DURATIONS: Final = 2048


class Exchange:
    """One request from the listener to the access log. Instants and durations in seconds of `time.perf_counter`.

    A stream that rests for hours holds one, so it is small, and what can be made late is made late.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "client",
        "connection",
        "credential",
        "echoes",
        "error",
        "generation",
        "method",
        "number",
        "own",
        "path",
        "query",
        "refusals",
        "retried",
        "route",
        "seconds",
        "started_at",
        "status",
        "token_in_body",
        "token_wait",
        "upstream_seconds",
    )

    def __init__(self, method: str, client: str, started_at: float) -> None:
        self.number = next(_COUNTER)
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
        #: The token stood in the answer's body (`token_guard`).
        self.token_in_body = False
        #: Field lines and body of an answer of our own, and the Connection line of any.
        self.own: tuple[bytes, bytes] | None = None
        self.connection = b""

    def ask(self, target: bytes) -> None:
        """Note what was asked for, where no route has; what stands behind a `#` may be a token (threat 78)."""
        self.path, _, self.query = target.partition(b"#")[0].partition(b"?")

    @property
    def request_id(self) -> str:
        """A word that no other request of this machine has."""
        return f"{_START}{self.number}"


class Observers:
    """Tells each of `observers` of a finished exchange."""

    __slots__ = ("_observers",)

    def __init__(self, *observers: Callable[[Exchange], None]) -> None:
        self._observers = observers

    def __call__(self, exchange: Exchange) -> None:
        """Tell."""
        for observe in self._observers:
            observe(exchange)

    def close(self) -> None:
        """Nothing more comes."""
        for each in self._observers:
            if isinstance(each, Spared):
                each.flush()


class Spared:
    """Tells `observe` of every request that reached a route, and of others `most` times a second (threat 85).

    Those others come from anybody: they are malformed, or the guard, a rule or the table of routes refused them.
    What is not told is counted; `tell` gets the count before the next exchange of a later second, or when `later`
    calls. `now` is in seconds.
    """

    __slots__ = ("_later", "_left", "_most", "_now", "_observe", "_second", "_spared", "_tell")

    def __init__(
        self,
        observe: Callable[[Exchange], None],
        tell: Callable[[int], None],
        now: Callable[[], float],
        *,
        most: int = UNROUTED_A_SECOND,
        later: Callable[[Callable[[], None]], object] = lambda call: get_running_loop().call_later(1.0, call),
    ) -> None:
        self._later = later
        self._observe = observe
        self._tell = tell
        self._now = now
        self._most = most
        self._second = 0
        self._left = 0
        self._spared = 0

    def __call__(self, exchange: Exchange) -> None:
        """Tell, or count."""
        if exchange.route and not self._spared:
            self._observe(exchange)
            return
        second = int(self._now())
        if second != self._second:
            self.flush()
            self._second, self._left = second, self._most
        if exchange.route or self._left:
            self._left -= not exchange.route
            self._observe(exchange)
        else:
            if not self._spared:
                self._later(self.flush)
            self._spared += 1

    def flush(self) -> None:
        """Tell how many were not told."""
        spared, self._spared = self._spared, 0
        if spared:
            self._tell(spared)


class AccessLog:
    """Writes one line an exchange to `lines`; `wall` gives the time in epoch seconds."""

    def __init__(self, lines: Lines, redactor: Redactor, *, json_lines: bool, wall: Callable[[], float]) -> None:
        self._lines = lines
        self._redactor = redactor
        self._edition = redactor.edition
        self._known = self._edition.number
        self._wall = wall
        self._json_lines = json_lines
        self._words = _Shown(redactor, _or_null if json_lines else str)
        self._paths = _Shown(redactor, _quoted if json_lines else str, most=PATH_LIMIT)
        self._names = _Shown(redactor, _quoted_names if json_lines else str, most=NAMES_LIMIT, between="&")
        self._tenths = _Tenths()

    def __call__(self, exchange: Exchange) -> None:
        """Write the line of a finished exchange."""
        if self._known != self._edition.number:
            self._known = self._edition.number
            for shown in (self._words, self._paths, self._names):
                shown.clear()
        self._lines.write(self._json(exchange) if self._json_lines else self._text(exchange))

    def _json(self, x: Exchange) -> str:
        words, tenths = self._words, self._tenths
        names = self._names[query_names(x.query, KEYS_LIMIT)] if x.query else "[]"
        return (
            f'{{"time":"{timestamp(self._wall())}","level":"{"info" if x.status < 500 else "warning"}",'
            f'"event":"request","request_id":"{_START}{x.number}","client":{words[x.client]},'
            f'"method":{words[x.method]},"route":{words[x.route]},"path":{self._paths[x.path]},"query_keys":{names},'
            f'"status":{x.status},"error":{words[x.error]},"bytes_in":{x.bytes_in},"bytes_out":{x.bytes_out},'
            f'"duration_ms":{tenths[int(x.seconds * 1e4 + 0.5)]},'
            f'"upstream_ms":{tenths[int(x.upstream_seconds * 1e4 + 0.5)]},'
            f'"token_wait_ms":{tenths[int(x.token_wait * 1e4 + 0.5)]},"credential":{words[x.credential]},'
            f'"generation":{x.generation},"retried":{"true" if x.retried else "false"}}}\n'
        )

    def _text(self, x: Exchange) -> str:
        path = self._paths[x.path]
        if x.query:
            path += "?" + self._names[query_names(x.query, KEYS_LIMIT)]
        level = "INFO" if x.status < 500 else "WARNING"
        milliseconds = f"{x.seconds * 1e3:.1f}ms"
        at, method = timestamp(self._wall()), self._words[x.method]
        parts = [f"{at} {level} request {method} {path or '-'} {x.status} {milliseconds}"]
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


class _Shown(dict[str | bytes, str]):
    """What a text becomes in the line: masked, in printable ASCII, then as `finish` writes it.

    Of a text with parts `between` which that character stands, each is masked by itself. Kept is only what had
    nothing to mask, so that no secret rests here; whoever learns that the redactor's version changed clears it.
    """

    __slots__ = ("_between", "_finish", "_most", "_redactor")

    def __init__(
        self, redactor: Redactor, finish: Callable[[str], str], *, most: int | None = None, between: str = ""
    ) -> None:
        self._redactor = redactor
        self._finish = finish
        self._most = most
        self._between = between

    def __missing__(self, given: str | bytes) -> str:
        text = given if isinstance(given, str) else given[: self._most].decode("latin-1")
        clean = self._redactor.text(text) == text
        pieces = text.split(self._between) if self._between else (text,)
        shown = pieces if clean else map(self._redactor.text, pieces)
        line = self._finish(self._between.join(map(printable, shown)))
        if clean and len(given) <= KEPT_LENGTH:
            if len(self) >= KEPT_TEXTS:
                self.clear()
            self[given] = line
        return line


class _Tenths(dict[int, str]):
    """Tenths of a millisecond as milliseconds; to look them up takes half the time of writing them."""

    def __missing__(self, tenths: int) -> str:
        if len(self) >= KEPT_DURATIONS:
            self.clear()
        text = self[tenths] = f"{tenths / 10:.1f}"
        return text


def _quoted(text: str) -> str:
    """Printable ASCII as JSON; the encoder takes three times as long."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def _or_null(text: str) -> str:
    return _quoted(text) if text else "null"


def _quoted_names(text: str) -> str:
    return "[" + _quoted(text).replace("&", '","') + "]"
