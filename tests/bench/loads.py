"""What is done to a proxy: many small requests, a long body either way, a reader that stops, idle event streams."""

import hashlib
import json
import os
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.bench.processes import DidNotWork

#: As long as a client waits for bytes before the run counts as broken.
PATIENCE_SECONDS: Final = 60.0
HEAD_END: Final = b"\r\n\r\n"
CHUNK_BYTES: Final = 64 << 10
#: Chunks a write: a client fast enough not to be what is measured.
CHUNKS_AT_ONCE: Final = 16
READ_BYTES: Final = 1 << 20
#: What curl sends.
USUAL: Final = ("User-Agent: curl/8.14.1", "Accept: */*")
#: What Chromium sends besides, for a page's script.
BROWSER: Final = (
    'Sec-Ch-Ua: "Chromium";v="142", "Not_A Brand";v="99"',
    "Sec-Ch-Ua-Mobile: ?0",
    'Sec-Ch-Ua-Platform: "Linux"',
    "Accept-Language: de,en;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Dest: empty",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Priority: u=1, i",
    "Referer: http://localhost/app/list",
    "X-Requested-With: XMLHttpRequest",
    "Cookie: session=8c9f3b1e5a7d4f60a2b4c6d8e0f1a3b5; theme=dark; _ga=GA1.2.1234567.17",
)
UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Requests:
    """What wrk found: how many requests, how long it took, and after how long 50 % and 99 % were answered."""

    count: int
    seconds: float
    p50: float
    p99: float


def requests(
    wrk: str,
    port: int,
    *,
    connections: int,
    seconds: int,
    script: Path | None = None,
    fields: Sequence[str] = (),
) -> Requests:
    """Ask for the small answer on so many connections, over and over; raises `DidNotWork` if one went wrong."""
    headers = [argument for field in (*USUAL, *fields) for argument in ("-H", field)]
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s", *headers]
    if script:
        command += ["-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/small/"], capture_output=True, text=True, check=False
    )
    return parse(done.stdout + done.stderr)


def parse(said: str) -> Requests:
    """Read what wrk prints with `--latency`; raises `DidNotWork` if it speaks of errors or of nothing."""
    wrong = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", said)
    if wrong:
        raise DidNotWork(f"wrk: {wrong[0]}")
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+)", said)
    shares = {
        int(share): float(value) * UNITS[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(\w+)", said)
    }
    if not total or total[1] == "0" or not {50, 99} <= shares.keys():
        raise DidNotWork(f"wrk did not measure: {said.strip()[:300]}")
    return Requests(int(total[1]), float(total[2]) * UNITS[total[3]], shares[50], shares[99])


def download(port: int, size: int, fields: Sequence[str] = ()) -> float:
    """Get the long answer of `size` bytes; gives seconds.

    The bytes are counted and not copied (tcp(7), MSG_TRUNC), so that the client is not what is measured.
    """
    with _connected(port) as client:
        began_at = time.perf_counter()
        client.sendall(_head("GET /big", fields))
        left, buffer = _body_begins(client, size), bytearray(READ_BYTES)
        while left > 0:
            count = client.recv_into(buffer, min(left, READ_BYTES), socket.MSG_TRUNC)
            if not count:
                raise DidNotWork(f"a download ended {left} bytes early")
            left -= count
        return time.perf_counter() - began_at


def stopped_download(port: int, size: int) -> ExitStack:
    """Ask for the long answer, read its beginning, and nothing more until the result is closed."""
    with ExitStack() as stack:
        client = stack.enter_context(_connected(port))
        client.sendall(_head("GET /big"))
        _body_begins(client, size)
        return stack.pop_all()


def upload(port: int, size: int, fields: Sequence[str] = ()) -> tuple[float, str]:
    """Send `size` bytes in chunks; gives seconds until the answer, and the SHA-256 of what was sent."""
    block = os.urandom(CHUNK_BYTES)
    chunk = b"%x\r\n%b\r\n" % (len(block), block)
    rounds = size // (CHUNK_BYTES * CHUNKS_AT_ONCE)
    with _connected(port) as client:
        began_at = time.perf_counter()
        client.sendall(_head("POST /upload", (*fields, "Transfer-Encoding: chunked")))
        for _ in range(rounds):
            client.sendall(chunk * CHUNKS_AT_ONCE)
        client.sendall(b"0\r\n\r\n")
        _answered(client)
        seconds = time.perf_counter() - began_at
    digest = hashlib.sha256()
    for _ in range(rounds * CHUNKS_AT_ONCE):
        digest.update(block)
    return seconds, digest.hexdigest()


def received(sink_port: int) -> str:
    """The SHA-256 of what the last upload brought to the upstream."""
    with _connected(sink_port) as client:
        client.sendall(_head("GET /digest"))
        _, body = _answered(client)
        return str(json.loads(body)["sha256"])


def event_streams(port: int, count: int) -> ExitStack:
    """Open so many event streams, each past its first event; they stay open until the result is closed."""
    with ExitStack() as stack:
        clients = [stack.enter_context(_connected(port)) for _ in range(count)]
        for client in clients:
            client.sendall(_head("GET /events"))
        for client in clients:
            _, data = _answered(client)
            while b"data: hello" not in data:
                more = client.recv(4096)
                if not more:
                    raise DidNotWork("an event stream ended before its first event")
                data += more
        return stack.pop_all()


def many_files() -> None:
    """Allow as many sockets as the machine lets this process have, and its children with it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check(port: int, fields: Sequence[str] = ()) -> None:
    """One request to the upstream that wants the credential; raises `DidNotWork` if it came without."""
    with _connected(port) as client:
        client.sendall(_head("GET /small/", fields))
        _answered(client)


class Client:
    """One connection, for one request after the other."""

    def __init__(self, port: int) -> None:
        self._socket = _connected(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, message: bytes) -> None:
        """Send a whole request, and wait for the end of its answer; raises `DidNotWork` where that is not 200."""
        self._socket.sendall(message)
        _answered_whole(self._socket)


def one_by_one(port: int, messages: Iterable[bytes]) -> None:
    """These requests on one connection, the next when the one before is answered."""
    with Client(port) as client:
        for each in messages:
            client.ask(each)


def paced(messages: Iterable[bytes], rate: int) -> Iterator[bytes]:
    """These, so many a second."""
    began_at = time.monotonic()
    for number, each in enumerate(messages):
        time.sleep(max(0.0, began_at + number / rate - time.monotonic()))
        yield each


def message(method: str, target: str, fields: Sequence[str] = (), body: bytes = b"") -> bytes:
    """A whole request."""
    length = (f"Content-Length: {len(body)}",) if body else ()
    return _head(f"{method} {target}", (*fields, *length)) + body


def usual(_number: int) -> bytes:
    """A request for the small answer, the same each time."""
    return message("GET", "/small/")


def varied(number: int) -> bytes:
    """The same with another head for each number."""
    fields = (f"X-Request-Id: request-{number}", f"X-Field-{number % 97}: {number}")
    return message("GET", f"/small/{number}", fields)


def traced(number: int) -> bytes:
    """The same from a service: each has a trace, a name of its own, and another address that it came from."""
    fields = (
        f"Traceparent: 00-{number:032x}-{number:016x}-01",
        f"X-Request-Id: 8f14e45f-ceea-467a-9575-{number:012x}",
        "Accept-Encoding: gzip",
        f"X-Forwarded-For: 10.0.{number % 250}.{number % 99}",
        "X-Forwarded-Proto: https",
    )
    return message("GET", f"/small/{number}", fields)


def browsed(number: int) -> bytes:
    """The same from a page in a browser."""
    return message("GET", f"/small/{number}?page={number}&limit=10", BROWSER)


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _head(line: str, fields: Sequence[str] = ()) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *USUAL, *fields, "", ""]).encode()


def _answered(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and first bytes of the body of an answer that must be 200."""
    data = b""
    while HEAD_END not in data:
        more = client.recv(65536)
        if not more:
            raise DidNotWork("a connection ended before its answer")
        data += more
    head, _, body = data.partition(HEAD_END)
    status = head.split(b" ", 2)[1]
    if status != b"200":
        raise DidNotWork(f"answered {status.decode()}: {body[:200]!r}")
    return head, body


def _answered_whole(client: socket.socket) -> None:
    """The same, to the end of a body whose length is told."""
    head, body = _answered(client)
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        more = client.recv(READ_BYTES)
        if not more:
            raise DidNotWork("a connection ended within an answer")
        left -= len(more)


def _body_begins(client: socket.socket, size: int) -> int:
    """How many bytes of a body of known size are still to come behind what came with the head."""
    head, body = _answered(client)
    if f"content-length: {size}".encode() not in head.lower():
        raise DidNotWork(f"the long answer came without its length of {size}")
    return size - len(body)
