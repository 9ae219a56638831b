"""The part of the upstream that nginx cannot be: it takes uploads, holds event streams open, and gives tokens.

A program of its own: `python sink.py ARGUMENTS`, where the one argument is JSON (`Arguments`).
Whatever comes without the expected credential is answered 401, so that every measured request proves that the proxy
added it.

An upload goes into memory as it comes, chunk heads and all; it is taken apart and hashed afterwards, when somebody
asks, so that the clock measures the proxy and not SHA-256.
"""

import hashlib
import json
import mmap
import socket
import ssl
import sys
import threading
from dataclasses import dataclass
from typing import Any, Final

HEAD_END: Final = b"\r\n\r\n"
LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
AT_ONCE: Final = 1 << 20
EVENTS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    # nginx holds events back otherwise.
    b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\nd\r\ndata: hello\n\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the program is told."""

    #: The ports for HTTP and HTTPS.
    plain: int
    tls: int
    #: Key and chain for the latter, a PEM file.
    certificate: str
    token: str
    #: The longest upload, in bytes.
    most: int


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, as far as it matters here."""

    method: str
    path: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, data: bytes) -> "Head":
        """Read a head that a proxy wrote."""
        first, *rest = data.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.partition(":") for line in rest if line)
        return cls(method, path, {name.lower(): value.strip() for name, _, value in pairs})


@dataclass(slots=True)
class Sink:
    """All connections share one memory for uploads; they come one after another."""

    arguments: Arguments
    memory: mmap.mmap
    filled: int = 0

    def serve(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        """Take connections until the process ends."""
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=self._connection, args=(connection, context), daemon=True).start()

    def _connection(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if context:
                connection = context.wrap_socket(connection, server_side=True)
            while self._request(connection):
                pass
        except OSError:
            pass  # whoever hung up knows why
        connection.close()

    def _request(self, connection: socket.socket) -> bool:
        """One request; true if another may follow."""
        data = b""
        while HEAD_END not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        end = data.index(HEAD_END)
        head, body = Head.parse(data[:end]), data[end + len(HEAD_END) :]
        if head.path == "/login":
            while len(body) < int(head.fields.get("content-length", 0)):
                body += connection.recv(65536)
            return answer(connection, 200, {"access_token": self.arguments.token, "expires_in": 3600})
        if head.path == "/upload":
            self._receive(connection, body)
            return answer(connection, *self._verdict(head))
        if head.path == "/digest":
            return answer(connection, 200, self._digest())
        if head.path.startswith("/echo/") and self._verdict(head)[0] == 200:
            while len(body) < int(head.fields.get("content-length", 0)):
                body += connection.recv(AT_ONCE)
            return answer(connection, 200, json.loads(body))
        if head.path == "/events" and self._verdict(head)[0] == 200:
            connection.sendall(EVENTS)
            connection.recv(1)  # it stays open until the other end goes
            return False
        return answer(connection, *self._verdict(head))

    def _verdict(self, head: Head) -> tuple[int, dict[str, Any]]:
        """200 for a request with the credential, 401 otherwise."""
        seen = head.fields.get("authorization")
        return (200, {"ok": True}) if seen == f"Bearer {self.arguments.token}" else (401, {"authorization": seen})

    def _receive(self, connection: socket.socket, body: bytes) -> None:
        """Keep a chunked body as it comes."""
        self.memory[: len(body)] = body
        self.filled = len(body)
        with memoryview(self.memory) as view:
            while bytes(view[max(0, self.filled - len(LAST_CHUNK)) : self.filled]) != LAST_CHUNK:
                count = connection.recv_into(view[self.filled :], AT_ONCE)
                if not count:
                    raise ConnectionResetError
                self.filled += count

    def _digest(self) -> dict[str, Any]:
        """What the last upload was, without its chunk heads."""
        digest, total, at = hashlib.sha256(), 0, 0
        with memoryview(self.memory) as view:
            while at < self.filled:
                end = self.memory.find(b"\r\n", at)
                count = int(self.memory[at:end].partition(b";")[0], 16)
                digest.update(view[end + 2 : end + 2 + count])
                total += count
                at = end + 2 + count + 2
        return {"sha256": digest.hexdigest(), "bytes": total}


def answer(connection: socket.socket, status: int, content: Any) -> bool:
    """Write an answer; the connection stays."""
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return True


def main(arguments: Arguments) -> None:
    """Serve on both ports until the process is ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate)
    # A chunk head for every 4 KiB, should a proxy cut that small. Populated now, so that no upload waits for it.
    space = arguments.most + arguments.most // 256 + (4 << 20)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    sink = Sink(arguments, mmap.mmap(-1, space, flags=flags))
    secure = socket.create_server(("127.0.0.1", arguments.tls), backlog=1024)
    threading.Thread(target=sink.serve, args=(secure, context), daemon=True).start()
    sink.serve(socket.create_server(("127.0.0.1", arguments.plain), backlog=1024), None)


if __name__ == "__main__":
    main(Arguments(**json.loads(sys.argv[1])))
