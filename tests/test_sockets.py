"""The sockets that are listened on: all or none, private from their first instant, and cleaned up behind."""

import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from proxy.sockets import ListenError, bind_tcp, bind_unix, remove_file, url_of
from tests.support.strangers import GROUP, NOBODY, needs_root

# -- TCP sockets


def addresses(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """A name with these addresses."""
    real = socket.getaddrinfo

    def resolve(_host: str, port: int, **options: Any) -> list[Any]:
        return [info for host in hosts for info in real(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.threat(19)
def test_port_0_takes_a_free_port_and_the_same_one_for_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """019: one name, one port; the URL tells which."""
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    bound = bind_tcp("several.example", 0)
    try:
        names = [sock.getsockname() for sock in bound]
        assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
        assert names[0][1] == names[1][1] > 0
        assert url_of(bound[0]) == f"http://127.0.0.1:{names[0][1]}"
    finally:
        for sock in bound:
            sock.close()


@pytest.mark.threat(19)
def test_019_several_addresses_are_bound_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits on the second one: the first is free again, and no other port is taken instead."""
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2")
    with socket.create_server(("127.0.0.2", 0)) as squatter:
        port = squatter.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on several.example:{port}: another process"):
            bind_tcp("several.example", port)
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.threat(19)
@pytest.mark.parametrize("shares", [False, True])
def test_019_only_those_share_a_port_who_both_ask_for_it(*, shares: bool) -> None:
    """Neither does one that shares let in one that does not, nor the other way round."""
    [first] = bind_tcp("127.0.0.1", 0, reuse_port=shares)
    with closing(first):
        port = first.getsockname()[1]
        with pytest.raises(ListenError, match="listens there"):
            bind_tcp("127.0.0.1", port, reuse_port=not shares)
        with pytest.raises(ListenError, match="listens there") if not shares else nullcontext():
            for sock in bind_tcp("127.0.0.1", port, reuse_port=shares):
                sock.close()


@pytest.mark.parametrize(("host", "words"), [("192.0.2.1", "no such address"), ("host.invalid", "no such address")])
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(host: str, words: str) -> None:
    """What it was, and why."""
    with pytest.raises(ListenError, match=f"^cannot listen on {host}:0: .*{words}"):
        bind_tcp(host, 0)


def test_an_ipv6_address_stands_in_brackets() -> None:
    """And takes IPv6 alone, so that the same port of IPv4 is not taken by the way."""
    try:
        [bound] = bind_tcp("::1", 0)
    except ListenError:
        pytest.skip("this machine has no IPv6 loopback")
    with closing(bound):
        assert url_of(bound) == f"http://[::1]:{bound.getsockname()[1]}"
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_name_whose_ipv6_address_this_machine_lacks_is_listened_on_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`localhost` is ::1 in /etc/hosts of many containers without IPv6."""
    addresses = [(socket.AF_INET6, ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    infos = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    [bound] = bind_tcp("localhost", 0)
    assert bound.getsockname()[0] == "127.0.0.1"
    bound.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos[:1])
    with pytest.raises(ListenError, match="no such address"):
        bind_tcp("localhost", 0)


# -- Unix sockets


@contextmanager
def short_path(tmp_path: Path) -> Iterator[Path]:
    """A path that a Unix socket takes: relative, since pytest's own are too long for some machines."""
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        yield Path("p.sock")
    finally:
        os.chdir(before)


@pytest.mark.threat(16)
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_016_a_unix_socket_is_its_owners_alone_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """Mode 0600 by umask at bind, so that there is no instant before a chmod; the umask is put back."""
    before = os.umask(umask)
    try:
        with short_path(tmp_path) as path, closing(bind_unix(path)) as bound:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert url_of(bound) == "unix:p.sock"
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


@pytest.mark.threat(16)
def test_016_a_unix_socket_is_private_at_the_instant_of_its_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that is set behind it comes too late for whoever connects first."""
    modes = []

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            modes.append(stat.S_IMODE(Path(address).stat().st_mode))

    before = os.umask(0o000)
    try:
        with short_path(tmp_path) as path:
            monkeypatch.setattr("proxy.sockets.socket.socket", Watched)
            bind_unix(path).close()
    finally:
        os.umask(before)
    assert modes == [0o600]


@pytest.mark.threat(17)
def test_017_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """Its process is gone; nobody answers there."""
    with short_path(tmp_path) as path:
        bind_unix(path).close()
        stale = path.lstat().st_ino, path.lstat().st_ctime_ns
        with closing(bind_unix(path)), socket.socket(socket.AF_UNIX) as client:
            assert (path.lstat().st_ino, path.lstat().st_ctime_ns) != stale
            client.connect(str(path))


@pytest.mark.threat(17)
@pytest.mark.parametrize("what", ["live socket", "regular file", "symlink to a stale socket", "folder"])
def test_017_what_is_no_stale_socket_is_left_alone(what: str, tmp_path: Path) -> None:
    """A sentence says what is there; the file is untouched."""
    with short_path(tmp_path) as path:
        live = None
        if what == "live socket":
            live = bind_unix(path)
        elif what == "regular file":
            path.write_text("mine")
        elif what == "folder":
            path.mkdir()
        else:
            bind_unix(Path("other.sock")).close()
            path.symlink_to("other.sock")
        before = path.lstat()
        words = "another process listens there" if live else "is no socket"
        with pytest.raises(ListenError, match=f"^cannot listen on unix:p.sock: .*{words}"):
            bind_unix(path)
        assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
        if live:
            with live, socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))


@pytest.mark.threat(16, 20)
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("group", [None, "its number", "its name"])
def test_016_a_socket_has_its_mode_from_its_first_instant_and_its_group_before_anybody_connects(
    mode: int, group: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no chmod, and the group changes while nobody listens."""
    number = os.getgid()
    named = {None: None, "its number": str(number), "its name": grp.getgrgid(number).gr_name}[group]
    changed: list[tuple[int, int]] = []
    real = os.chown

    def chown(path: Path, uid: int, gid: int, **options: Any) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        changed.append((stat.S_IMODE(path.stat().st_mode), gid))
        real(path, uid, gid, **options)

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "chmod", None)
    with short_path(tmp_path) as path, closing(bind_unix(path, mode=mode, group=named)):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (mode, number)
    assert changed == ([] if group is None else [(mode, number)])


@needs_root
@pytest.mark.threat(17)
def test_017_a_link_that_takes_the_place_of_the_socket_gives_no_file_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that others can write to, one of them may be faster than we are."""
    real = os.chown

    def chown(path: Path, uid: int, gid: int, **options: Any) -> None:
        path.unlink()
        path.symlink_to("store.key")
        real(path, uid, gid, **options)

    monkeypatch.setattr(os, "chown", chown)
    with short_path(tmp_path) as path:
        key = Path("store.key")
        key.touch(mode=0o600)
        bind_unix(path, mode=0o660, group=str(GROUP)).close()
        assert (key.stat().st_gid, stat.S_IMODE(key.stat().st_mode)) == (os.getegid(), 0o600)


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """And nothing is bound."""
    with short_path(tmp_path) as path:
        with pytest.raises(
            ListenError, match=r"^cannot listen on unix:p\.sock: this machine has no group nobodys\.$"
        ):
            bind_unix(path, mode=0o660, group="nobodys")
        assert not path.exists()


@needs_root
def test_a_group_that_we_may_not_give_is_an_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root gives to groups that it is not in."""

    def chown(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    with short_path(tmp_path) as path:
        with pytest.raises(ListenError, match=r"^cannot listen on unix:p\.sock: Operation not permitted"):
            bind_unix(path, mode=0o660, group=str(GROUP))
        assert not path.exists()


@pytest.mark.threat(16)
@pytest.mark.parametrize(
    ("mode", "refused"), [(0o700, False), (0o755, False), (0o1777, False), (0o770, True), (0o702, True)]
)
def test_016_a_folder_where_others_can_replace_the_socket_is_refused(
    *, mode: int, refused: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They could answer in our name. Where the socket is for others, shared volumes are like that: a warning."""
    with short_path(tmp_path):
        Path("f").mkdir()
        Path("f").chmod(mode)
        path = Path("f/p.sock")
        if refused:
            with pytest.raises(
                ListenError, match=r"^cannot listen on unix:f/p\.sock: others can write to its folder; "
            ):
                bind_unix(path)
            assert not path.exists()
        else:
            bind_unix(path).close()
        assert not caplog.records
        bind_unix(path, mode=0o660).close()
        assert [record.getMessage() for record in caplog.records] == ["socket_folder_open"] * refused


@needs_root
@pytest.mark.threat(16)
def test_016_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Whatever its mode; root's own will do for everybody."""
    with short_path(tmp_path):
        Path("f").mkdir(mode=0o700)
        os.chown("f", NOBODY, -1)
        with pytest.raises(ListenError, match="others can write to its folder"):
            bind_unix(Path("f/p.sock"))


@pytest.mark.parametrize(
    ("path", "words"),
    [("missing/p.sock", "No such file"), ("f/p.sock", "Not a directory"), ("a" * 200, "the path is too long")],
)
def test_a_path_that_takes_no_socket_is_refused_in_a_sentence(path: str, words: str, tmp_path: Path) -> None:
    """What it was, and why; the umask is put back then, too."""
    umask = os.umask(0o022)
    try:
        with short_path(tmp_path):
            Path("f").write_text("")
            with pytest.raises(ListenError, match=f"^cannot listen on unix:{path}: {words}.*\\.$"):
                bind_unix(Path(path))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


def test_the_file_of_a_unix_socket_can_be_removed_more_than_once(tmp_path: Path) -> None:
    """A second call changes nothing, and neither does one for a TCP socket."""
    with short_path(tmp_path) as path, closing(bind_unix(path)) as bound:
        for _ in range(2):
            remove_file(bound)
            assert not path.exists()
    [tcp] = bind_tcp("127.0.0.1", 0)
    with closing(tcp):
        remove_file(tcp)
