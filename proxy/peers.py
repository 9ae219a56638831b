"""Who is at the other end of a connection, as the kernel knows it: the uid of a local peer (Linux).

A Unix socket tells it by itself (`SO_PEERCRED`, unix(7)). For TCP the kernel is asked who owns the socket at the
other end of exactly this pair of addresses (`NETLINK_SOCK_DIAG`, sock_diag(7)), through a socket that stays open,
so that it answers where descriptors have run out, too. Where it does not answer such questions, /proc/net/tcp says
the same; to read that takes a descriptor each time, and without one who connects is unknown.
Law: who is not certain is nobody (threats 13 to 15, 18).
"""

import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from proxy.errors import ConfigError

log: Final = logging.getLogger("proxy")

#: sock_diag(7), linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h: the numbers of the one question asked here.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ANY_STATE: Final = 0xFFFFFFFF
_NO_COOKIE: Final = b"\xff" * 8
#: The kernel's own address among those of netlink(7).
_KERNEL: Final = (0, 0)
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
#: States (include/net/tcp_states.h) that the other end of a connection which we accepted can be in: ESTABLISHED,
#: and FIN_WAIT1 and FIN_WAIT2 of one that ended its side. SYN_SENT is somebody else's, who has its port by now.
_CONNECTED: Final = frozenset({1, 4, 5})
_ANSWER_SECONDS: Final = 1.0
#: So many answers to questions that nobody waits for any more are passed over.
_STALE_MOST: Final = 16
_PEERCRED: Final = struct.Struct("=iII")
#: What the kernel says instead of a uid where it knows none.
_NO_UID: Final = 0xFFFFFFFF
#: Of so many users is told that they were refused; in a user namespace there are thousands.
_MOST_TOLD: Final = 16

#: An address of `socket.getpeername`.
Address = tuple[Any, ...]
#: Gives the uid of the socket at the first address whose other end is the second. Raises `OSError`.
Ask = Callable[[Address, Address], int | None]


class Peers:
    """Admits connections whose other end belongs to one of `uids`; before `begin` nobody's.

    `open_sockets`: paths of Unix sockets that were opened to others on purpose, whose file modes decide alone.
    `tcp`: are there others than Unix sockets? `required`: is a machine that does not tell an error?
    `quiet`: who is not admitted is served all the same, so that there is nothing to warn of.
    """

    def __init__(
        self,
        uids: Iterable[int],
        *,
        open_sockets: Iterable[str] = (),
        tcp: bool = True,
        required: bool = False,
        quiet: bool = False,
    ) -> None:
        self._uids = frozenset(uids)
        self._open_sockets = frozenset(open_sockets)
        self._tcp = tcp
        self._required = required
        self._quiet = quiet
        self._diag = Diag()
        self._ask: Ask = _nobody
        self._is_off = False
        self._told: set[int | None] = set()

    def begin(self) -> None:
        """Find out how this machine tells who connects.

        Where it does not, everybody is admitted from now on, and a warning says so; raises `ConfigError` instead
        where it is `required`.
        """
        ask: Ask | None = None
        if sys.platform == "linux":
            ask = _way_to_ask(self._diag) if self._tcp else _nobody
        if ask is not None:
            self._ask = ask
        elif self._required:
            sentence = "this machine does not tell who connects: write uids: any, and set guard.client_key"
            raise ConfigError([f"guard.peers.uids: {sentence}."])
        else:
            self._is_off = True
            if not self._quiet:
                mend = "set guard.client_key, or listen on unix:/path"
                log.warning("peers_unknown", extra={"fields": {"mend": mend}})

    def close(self) -> None:
        """Ask no more."""
        self._ask = _nobody
        self._diag.close()

    def admits(self, sock: socket.socket) -> bool:
        """May whoever is at the other end of this connection speak to us?"""
        if self._is_off:
            return True
        if sock.family == socket.AF_UNIX and sock.getsockname() in self._open_sockets:
            return True
        uid = self._uid(sock)
        if uid in self._uids:
            return True
        self._tell(uid)
        return False

    def _uid(self, sock: socket.socket) -> int | None:
        with suppress(OSError):
            if sock.family == socket.AF_UNIX:
                return unix_uid(sock)
            return self._ask(sock.getpeername(), sock.getsockname())
        return None

    def _tell(self, uid: int | None) -> None:
        """Name a user who is refused, once: the access log knows addresses alone."""
        if self._quiet or uid in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(uid)
        if uid is None:
            fields: dict[str, object] = {"uid": "unknown", "mend": "set guard.client_key, or listen on unix:/path"}
        else:
            fields = {"uid": uid, "mend": f"add {uid} to guard.peers.uids, or set guard.client_key"}
        log.warning("peer_refused", extra={"fields": fields})


def unix_uid(sock: socket.socket) -> int | None:
    """The uid that connected to this Unix socket, as it was then; None: the kernel does not know it."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _pid, uid, _gid = _PEERCRED.unpack(found)
    return None if uid == _NO_UID else int(uid)


def _nobody(_peer: Address, _own: Address) -> int | None:
    return None


def _way_to_ask(diag: "Diag") -> Ask | None:
    """The way that works here, tried on a connection of our own; None: there is none."""
    for ask in (diag.uid, listed_uid):
        with suppress(OSError), _own_connection() as (here, there):
            if ask(here, there) == os.geteuid():
                return ask
        diag.close()
    return None


@contextmanager
def _own_connection() -> Iterator[tuple[Address, Address]]:
    """A TCP connection of this process with itself: the addresses of both ends."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=_ANSWER_SECONDS) as client,
    ):
        yield client.getsockname(), client.getpeername()


class Diag:
    """Asks the kernel (sock_diag(7)), through one socket that is opened with the first question, and stays."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._sequence = 0

    def uid(self, peer: Address, own: Address) -> int | None:
        """The uid of the socket at `peer` whose other end is `own`; None: there is none that belongs to a process.

        Where the socket broke, another is opened for the question. Raises `OSError` where the kernel is not to be
        asked.
        """
        ends = [_packed(peer), _packed(own)]
        pairs = [_PAIR.pack(peer[1], own[1], *form) for form in _forms(ends)]
        body = (
            _REQUEST.pack(_family(peer), socket.IPPROTO_TCP, 0, _ANY_STATE) + pairs[0] + _NO_INTERFACE + _NO_COOKIE
        )
        is_new = self._netlink is None
        try:
            return read_answer(self._answer(body), pairs)
        except OSError:
            self.close()
            if is_new:
                raise
        return read_answer(self._answer(body), pairs)

    def close(self) -> None:
        """Close the socket; the next question opens another."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _answer(self, body: bytes) -> bytes:
        """The answer to exactly this question: it carries its number (netlink(7)). Raises `OSError`."""
        netlink = self._netlink
        if netlink is None:
            netlink = self._netlink = _opened()
        sequence = self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0)
        netlink.send(header + body)
        for _ in range(_STALE_MOST):
            answer = netlink.recv(4096)
            if len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == sequence:
                return answer
        raise TimeoutError


def _opened() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    try:
        netlink.settimeout(_ANSWER_SECONDS)
        netlink.connect(_KERNEL)  # from now on nobody else can answer
    except OSError:
        netlink.close()
        raise
    return netlink


def read_answer(answer: bytes, pairs: Sequence[bytes]) -> int | None:
    """The uid in the kernel's answer to a question about a connection, whose forms `pairs` are; None: none is sure.

    A socket without an inode belongs to nobody any more, and shows uid 0 (threat 14). Where there is no connection
    of this pair, the kernel answers with a listener of the same port, which is somebody else's.
    """
    if len(answer) < _HEADER.size + _ANSWER.size:
        return None
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY or not _HEADER.size + _ANSWER.size <= length <= len(answer):
        return None
    _family, state, _timer, _retransmissions, pair, *_, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return int(uid) if inode and state in _CONNECTED and pair in pairs else None


def _family(address: Address) -> int:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _packed(address: Address) -> bytes:
    return socket.inet_pton(_family(address), address[0].partition("%")[0])


def _forms(ends: list[bytes]) -> list[list[bytes]]:
    """Both addresses as they may stand at the peer's socket: over IPv4 that may be one of IPv6 as well."""
    return [ends] if len(ends[0]) == 16 else [ends, [_MAPPED + end for end in ends]]


def listed_uid(peer: Address, own: Address, folder: Path = Path("/proc/net")) -> int | None:
    """As `Diag.uid`, by the tables of all connections (proc(5)), which takes longer the more there are.

    Raises `OSError` where no descriptor is left to read them.
    """
    for form in _forms([_packed(peer), _packed(own)]):
        name = "tcp" if len(form[0]) == 4 else "tcp6"
        wanted = [_listed(end, port) for end, port in zip(form, (peer[1], own[1]), strict=True)]
        for line in (folder / name).read_text("ascii").splitlines()[1:]:
            words = line.split()
            local, remote, state, uid, inode = *words[1:4], words[7], words[9]
            if [local, remote] == wanted and int(state, 16) in _CONNECTED and inode != "0":
                return int(uid)
    return None


def _listed(packed: bytes, port: int) -> str:
    """An end of a connection as the tables have it: words of the machine's byte order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
