"""Who is at the other end of a connection, as the kernel knows it: the uid of a local peer (Linux).

A Unix socket tells it by itself (`SO_PEERCRED`, unix(7)). For TCP the kernel is asked who owns the socket at the
other end of exactly this pair of addresses (`NETLINK_SOCK_DIAG`, sock_diag(7)); where it does not answer such
questions, /proc/net/tcp says the same. What is not certain is nobody's (threats 13 to 15).
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

#: sock_diag(7), linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h: the numbers of the one question asked here.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ANY_STATE: Final = 0xFFFFFFFF
_NO_COOKIE: Final = b"\xff" * 8
#: length, type, flags, sequence, port; then family, protocol, extensions, padding, states.
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI")
#: Local and remote port and address of a socket.
_PAIR: Final = struct.Struct("!HH16s16s")
_NO_INTERFACE: Final = b"\0" * 4
#: family, state, timer, retransmissions, the pair, interface, cookie, expiry, both queues, uid, inode.
_ANSWER: Final = struct.Struct("=BBBB36s4s8sIIIII")
#: What stands before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2).
_MAPPED: Final = b"\0" * 10 + b"\xff" * 2
#: States of a socket that still belongs to a process (include/net/tcp_states.h): all but those that are over
#: (TIME_WAIT 6, CLOSE 7, NEW_SYN_RECV 12) and LISTEN, which the kernel falls back to.
_OWNED: Final = frozenset({1, 2, 3, 4, 5, 8, 9, 11})
_ANSWER_SECONDS: Final = 1.0
_PEERCRED: Final = struct.Struct("=3i")

#: An address of `socket.getpeername`.
Address = tuple[Any, ...]


class PeersUnknown(Exception):  # noqa: N818  what happened, as in proxy/errors.py
    """This machine does not say who is at the other end of a connection."""


class Peers:
    """Admits connections by the uid at their other end. `uids` are those that may connect.

    `open_sockets`: paths of Unix sockets whose file mode was widened on purpose, and decides alone.
    Raises `PeersUnknown` where the machine does not tell.
    """

    def __init__(self, uids: Iterable[int], *, open_sockets: Iterable[str] = ()) -> None:
        self._uids = frozenset(uids)
        self._open_sockets = frozenset(open_sockets)
        self._tcp_uid = _tcp_asker()

    def admits(self, sock: socket.socket) -> bool:
        """May whoever is at the other end of this connection speak to us?"""
        if sock.family == socket.AF_UNIX:
            return sock.getsockname() in self._open_sockets or unix_uid(sock) in self._uids
        with suppress(OSError):
            return self._tcp_uid(sock.getpeername(), sock.getsockname()) in self._uids
        return False


def unix_uid(sock: socket.socket) -> int | None:
    """The uid that connected to this Unix socket, as it was then; None: the kernel does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _pid, uid, _gid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return uid if uid >= 0 else None


def _tcp_asker() -> Callable[[Address, Address], int | None]:
    """The way to ask that works here, tried on a connection of our own. Raises `PeersUnknown`."""
    if sys.platform == "linux":
        for ask in (diag_uid, listed_uid):
            with suppress(OSError), _own_connection() as (here, there):
                if ask(here, there) == os.geteuid():
                    return ask
    raise PeersUnknown


@contextmanager
def _own_connection() -> Iterator[tuple[Address, Address]]:
    """A TCP connection of this process with itself: both of its addresses."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=_ANSWER_SECONDS) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            yield client.getsockname(), client.getpeername()


def diag_uid(peer: Address, own: Address) -> int | None:
    """The uid of the socket at `peer` whose other end is `own`; None: there is none that belongs to a process.

    Raises `OSError` where the kernel is not to be asked.
    """
    family = socket.AF_INET6 if ":" in str(peer[0]) else socket.AF_INET
    pairs = _pairs(peer, own)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE) + pairs[0] + _NO_INTERFACE + _NO_COOKIE
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
        kernel.sendto(header + body, (0, 0))
        answer = kernel.recv(4096)
    return read_answer(answer, pairs)


def read_answer(answer: bytes, pairs: Iterable[bytes]) -> int | None:
    """The uid in the kernel's answer to a question about a connection; `pairs` are its forms. None: none is certain.

    A socket without an inode belongs to nobody any more, and shows uid 0 (threat 14). Where there is no connection
    of this pair, the kernel answers with a listener of the same port, which is somebody else's.
    """
    if len(answer) < _HEADER.size + _ANSWER.size or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    _family, state, _timer, _retransmissions, found, _interface, _cookie, *_numbers, uid, inode = (
        _ANSWER.unpack_from(answer, _HEADER.size)
    )
    return int(uid) if inode and state in _OWNED and found in pairs else None


def _pairs(peer: Address, own: Address) -> list[bytes]:
    """Both ends as the kernel has them for the peer's socket; one over IPv4 may be an IPv6 socket of the peer's."""
    ends = [_ip(address) for address in (peer, own)]
    forms = [[end.packed.ljust(16, b"\0") for end in ends]]
    if all(isinstance(end, IPv4Address) for end in ends):
        forms.append([_MAPPED + end.packed for end in ends])
    return [_PAIR.pack(peer[1], own[1], *form) for form in forms]


def _ip(address: Address) -> IPv4Address | IPv6Address:
    return ip_address(str(address[0]).partition("%")[0])


def listed_uid(peer: Address, own: Address, folder: Path = Path("/proc/net")) -> int | None:
    """As `diag_uid`, by the table of all connections (proc(5)), which takes longer the more there are."""
    for name, wanted in _listed_ends(peer, own):
        for line in (folder / name).read_text("ascii").splitlines()[1:]:
            words = line.split()
            local, remote, state, uid, inode = words[1], words[2], int(words[3], 16), words[7], words[9]
            if [local, remote] == wanted and state in _OWNED and inode != "0":
                return int(uid)
    return None


def _listed_ends(peer: Address, own: Address) -> Iterator[tuple[str, list[str]]]:
    """In which table a connection may stand, and how: addresses as numbers of the machine's byte order."""
    for prefix in (b"", _MAPPED):
        packed = [end.packed if end.version == 6 else prefix + end.packed for end in (_ip(peer), _ip(own))]
        words = ["".join(f"{word:08X}" for word in struct.unpack(f"={len(each) // 4}I", each)) for each in packed]
        ports = (peer[1], own[1])
        yield (
            "tcp" if len(packed[0]) == 4 else "tcp6",
            [f"{word}:{port:04X}" for word, port in zip(words, ports, strict=True)],
        )
