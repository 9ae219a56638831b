"""A program that connects to a listener as another user of the machine: run as root, it becomes that user first.

Usage: `stranger.py USER GROUP[,GROUP...] ADDRESS ask|leave|hand|hold`, with the request on standard input. `ask`
prints the answer up to the end of the connection, `leave` closes behind the request, `hand` gives the connection
away over the Unix socket that is its standard output, `hold` opens many, says so, and waits for the end of its
input. Its status is the errno of a connection that was not taken.
"""

import encodings.idna  # noqa: F401  names need it, and that user cannot read the library
import os
import socket
import sys
from urllib.parse import urlsplit

#: More than the admin listener has places for.
HELD = 60


def main(user: str, groups: str, url: str, how: str) -> int:
    """Connect, and do what is asked for."""
    wire = sys.stdin.buffer.read() if how != "hold" else b""
    numbers = [int(group) for group in groups.split(",")]
    os.setgroups(numbers)
    os.setgid(numbers[0])
    os.setuid(int(user))
    parts = urlsplit(url)
    if how == "hold":
        held = [socket.create_connection((parts.hostname, parts.port)) for _ in range(HELD)]
        sys.stdout.write(f"{len(held)}\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
        return 0
    sock = socket.socket(socket.AF_UNIX if parts.scheme == "unix" else socket.AF_INET)
    try:
        sock.connect(parts.path if parts.scheme == "unix" else (parts.hostname, parts.port))
    except OSError as error:
        return error.errno or 1
    if how == "hand":
        with socket.socket(fileno=sys.stdout.fileno()) as over:
            socket.send_fds(over, [b"x"], [sock.fileno()])
        return 0
    sock.sendall(wire)
    while how == "ask" and (data := sock.recv(65536)):
        sys.stdout.buffer.write(data)
    sock.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
