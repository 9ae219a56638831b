"""The sockets that are listened on: bound all or none, private from their first instant (threats 16, 17, 19)."""

import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.errors import BearerProxyError

log: Final = logging.getLogger("proxy")

BACKLOG: Final = 1024


class ListenError(BearerProxyError):
    """An address cannot be listened on; the message says which, why, and what mends it."""


class PassedSocket(socket.socket):
    """One that the service manager opened, and goes on listening on when this process ends."""

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """Where it listens; None where that is a path."""
        if self.family == socket.AF_UNIX:
            return None
        host, port = self.getsockname()[:2]
        return host, port


def bind_tcp(
    host: str, port: int, *, reuse_port: bool = False, passed: Iterable[PassedSocket] = ()
) -> list[socket.socket]:
    """Listening sockets for `host:port`, one an address of the name, all or none (threat 19).

    One of `passed` that is at such an address is taken instead of a new one. With `reuse_port` all who ask for it,
    as the same user, listen there side by side; nobody else can. An address of a name that this machine does not
    have at all (`localhost` is ::1 too, also where there is no IPv6) is no address to listen on, as long as another
    is. Raises `ListenError`.
    """
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in infos):
            # A name with two addresses and port 0 gets one port for both.
            wanted = port or (bound[0].getsockname()[1] if bound else 0)
            try:
                there = (each for each in passed if each.host_and_port == (address[0], wanted))
                bound.append(
                    next(there, None)
                    or _listening(family, (address[0], wanted, *address[2:]), reuse_port=reuse_port)
                )
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if not bound and absent is not None:
            raise absent
    except OSError as error:
        for sock in bound:
            sock.close()
        raise ListenError(
            f"cannot listen on {host}:{port}: {_tcp_reason(error, reuse_port=reuse_port)}."
        ) from error
    return bound


def _listening(family: int, address: tuple[str | int, ...], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _tcp_reason(error: OSError, *, reuse_port: bool) -> str:
    if error.errno == errno.EADDRINUSE and reuse_port:
        return (
            "who listens there shares no port with this process; it needs reuse_port: true too, and the same user"
        )
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; stop it or choose another port (port 0 takes a free one)"
    if error.errno == errno.EACCES:
        return "not allowed; ports below 1024 need a privilege, choose a higher one"
    return "this machine has no such address" if error.errno != errno.EMFILE else "too many open files"


def bind_unix(path: Path, *, mode: int = 0o600, group: str | None = None) -> socket.socket:
    """A listening Unix socket at `path` with this `mode` from its first instant, for `group` (name or number).

    A stale socket is replaced; a live one, and whatever is no socket, is left alone (threats 16, 17). A folder
    where others could put theirs in its place is refused, or warned of where the mode lets others connect anyway.
    Raises `ListenError`.
    """
    gid = None if group is None else _gid(path, group)
    _check_folder(path, is_private=mode == 0o600)
    try:
        there = path.lstat().st_mode
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise ListenError(f"cannot listen on unix:{path}: {_reason(error)}.") from error
    if there is not None:
        if not stat.S_ISSOCK(there):
            raise ListenError(f"cannot listen on unix:{path}: that file is no socket; move it away.")
        if _is_live(path):
            raise ListenError(f"cannot listen on unix:{path}: another process listens there; stop it.")
        path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode at bind, not afterwards: between the two the socket could be open to others, or another file.
    before = os.umask(0o777 & ~mode)
    try:
        sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
        sock.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
        sock.listen(BACKLOG)  # nobody can connect before
    except OSError as error:
        remove_file(sock)
        sock.close()
        raise ListenError(f"cannot listen on unix:{path}: {_reason(error)}.") from error
    finally:
        os.umask(before)
    return sock


def _gid(path: Path, group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenError(f"cannot listen on unix:{path}: this machine has no group {group}.") from None


def _check_folder(path: Path, *, is_private: bool) -> None:
    """Refuse a folder in which others can replace our socket by theirs, and so answer in our name (threat 16)."""
    try:
        folder = path.parent.stat()
    except OSError:
        return  # to bind says what is wrong
    # With the sticky bit, as /tmp has it, everybody may add files, and remove none but his own.
    is_closed = not folder.st_mode & 0o022 or folder.st_mode & stat.S_ISVTX
    if is_closed and folder.st_uid in {0, os.geteuid()}:
        return
    if is_private:
        mend = "chmod 700 it, choose another, or write a mode where others are to connect"
        raise ListenError(f"cannot listen on unix:{path}: others can write to its folder; {mend}.")
    fields = {"path": str(path.parent), "mend": "a folder that only the proxy's user can write to"}
    log.warning("socket_folder_open", extra={"fields": fields})


def _reason(error: OSError) -> str:
    # The socket module refuses a path of more than about 100 bytes by itself, without a number.
    return "the path is too long for a Unix socket" if error.errno is None else os.strerror(error.errno)


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def remove_file(sock: socket.socket) -> None:
    """Remove the file of a listening Unix socket, while it is open and tells its path; not that of another's."""
    if sock.fileno() >= 0 and sock.family == socket.AF_UNIX and not isinstance(sock, PassedSocket):
        with suppress(OSError):
            Path(sock.getsockname()).unlink()


def take_waiting(sock: socket.socket) -> Iterator[socket.socket]:
    """The connections that nobody has taken yet; with the listening socket they would be reset."""
    with suppress(OSError):
        while True:
            yield sock.accept()[0]


def url_of(sock: socket.socket) -> str:
    """The URL under which a listening socket is reached."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"
