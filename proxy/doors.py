"""Which sockets an instance listens on: those that it opens, and those that the service manager passes to it.

Law: what is passed is judged as what a configuration names (threats 14, 19): it is ours to know who can reach it.
"""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from proxy.config import Config, ListenAddress, PassedSockets, TcpAddress, UnixAddress, meets_admin
from proxy.config.addresses import is_loopback
from proxy.errors import ConfigError
from proxy.sockets import ListenError, PassedSocket, bind_tcp, bind_unix, url_of

#: Read and write for everybody.
_FOR_ALL: Final = 0o666
_NONE_PASSED: Final = (
    "listen: systemd: the service manager passes no socket that is not named here: "
    "start it by a .socket unit, or write host:port"
)


def open_doors(
    config: Config, passed: Sequence[PassedSocket] = ()
) -> tuple[list[socket.socket], list[socket.socket]]:
    """The sockets for clients, and those of the admin listener: all of them, or none is open afterwards.

    Of `passed` each is taken for the address at which it is, and what no address names for `systemd`.
    Raises `ListenError`, and `ConfigError` for what is passed and does not fit the configuration.
    """
    opened: list[socket.socket] = []
    try:
        for address in config.listen:
            opened += _bound(address, passed)
        clients = list(opened)
        admin = _bound_admin(config, passed)
        opened += admin
        clients += _others(config, [each for each in passed if each not in opened])
    except BaseException:
        for each in (*opened, *passed):
            each.close()
        raise
    return clients, admin


def _bound(address: ListenAddress, passed: Sequence[PassedSocket]) -> list[socket.socket]:
    if isinstance(address, TcpAddress):
        return bind_tcp(address.host, address.port, reuse_port=address.reuse_port, passed=passed)
    if isinstance(address, UnixAddress):
        return [
            _passed_unix(address, passed) or bind_unix(Path(address.path), mode=address.mode, group=address.group)
        ]
    return []


def _passed_unix(address: UnixAddress, passed: Sequence[PassedSocket]) -> PassedSocket | None:
    found = next((each for each in passed if each.getsockname() == address.path), None)
    if found is not None and _mode(found) & ~address.mode:
        sentence = f"the service manager opens it wider: write SocketMode={address.mode:04o} in the .socket unit"
        raise ConfigError([f"listen: {address}: {sentence}"])
    return found


def _bound_admin(config: Config, passed: Sequence[PassedSocket]) -> list[socket.socket]:
    address = config.admin.listen
    if address is None:
        return []
    if meets_admin(config):
        # An upstream that has not started yet must find its port free, and no route leads to the admin listener.
        return bind_tcp(address.host, 0)
    try:
        return bind_tcp(address.host, address.port, passed=passed)
    except ListenError:
        if not config.admin.listen_is_default:
            raise
        return bind_tcp(address.host, 0)


def _others(config: Config, left: list[PassedSocket]) -> list[PassedSocket]:
    """What no address names."""
    if PassedSockets() not in config.listen:
        if left:
            there = ", ".join(map(url_of, left))
            raise ConfigError([f"listen: the service manager listens on {there} for it, too: add systemd"])
        return []
    problems = [_NONE_PASSED] if not left else []
    if not config.guard.has_keys:
        problems += (f"listen: systemd: {url_of(each)}: {why}" for each in left for why in _open_to(each, config))
    if problems:
        raise ConfigError(problems)
    return left


def _open_to(sock: PassedSocket, config: Config) -> Iterator[str]:
    """Why this one needs a client key, as `config.checks` has it of what is named."""
    where = sock.host_and_port
    if where is not None and not is_loopback(where[0]):
        yield "others can reach this address: set guard.client_key, or write ListenStream=127.0.0.1:PORT"
    elif where is None and _mode(sock) & 0o006 and config.guard.peers.uids == "any":
        yield "every user of this machine may connect: set guard.client_key, or write SocketMode=0660"


def _mode(sock: PassedSocket) -> int:
    """Who may connect; where its file is in another mount namespace, everybody, as far as one can know here."""
    try:
        return Path(sock.getsockname()).stat().st_mode & _FOR_ALL
    except OSError:
        return _FOR_ALL
