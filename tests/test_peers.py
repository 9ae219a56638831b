"""Who is at the other end of a connection: what the kernel says of it, and whose connections are taken."""

import logging
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import build, peers
from proxy.config import Source, load
from proxy.errors import ConfigError
from proxy.peers import Diag, Peers, listed_uid, read_answer, unix_uid
from tests.support.strangers import NOBODY, SECONDS, command, needs_root, passable
from tests.support.upstreams import reset

ME: Final = os.geteuid()
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="this machine does not tell who connects")
pytestmark = needs_linux

# -- the kernel's answer

PEER, OWN = ("127.0.0.1", 0x9C40), ("127.0.0.1", 0x1F90)
#: 127.0.0.1:40000 and 127.0.0.1:8080, as the kernel has them for a socket of IPv4, and for one of IPv6.
PAIR: Final = bytes.fromhex("9c40 1f90 7f000001" + "00" * 12 + "7f000001" + "00" * 12)
MAPPED_PAIR: Final = bytes.fromhex("9c40 1f90" + ("00" * 10 + "ffff7f000001") * 2)
ESTABLISHED, SYN_SENT, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LISTEN = 1, 2, 5, 6, 8, 10


def answer(
    *, state: int = ESTABLISHED, pair: bytes = PAIR, uid: int = 1000, inode: int = 4711, kind: int = 20
) -> bytes:
    """An `inet_diag_msg` (linux/inet_diag.h) behind its header (netlink(7)), and an attribute behind it."""
    message = struct.pack("=BBBB", 2, state, 0, 0) + pair + b"\0" * 4 + b"cookie!!"
    message += struct.pack("=IIIII", 0, 0, 0, uid, inode) + b"\5\0\x08\0\0\0\0\0"
    return struct.pack("=IHHII", 16 + len(message), kind, 0, 1, 99) + message


@pytest.mark.threat(15)
@pytest.mark.parametrize("state", [ESTABLISHED, 4, FIN_WAIT2])
@pytest.mark.parametrize("pair", [PAIR, MAPPED_PAIR])
def test_015_the_uid_of_exactly_this_connection_is_read(state: int, pair: bytes) -> None:
    """Of a client that ended its side, too, and of one whose socket is of IPv6."""
    assert read_answer(answer(state=state, pair=pair), [PAIR, MAPPED_PAIR]) == 1000
    assert read_answer(answer(uid=0), [PAIR]) == 0


@pytest.mark.threat(14, 15)
@pytest.mark.parametrize(
    "given",
    [
        answer(inode=0),
        answer(uid=0, inode=0),
        answer(state=SYN_SENT),
        answer(state=3),
        answer(state=TIME_WAIT),
        answer(state=7),
        answer(state=CLOSE_WAIT),
        answer(state=LISTEN),
        answer(state=12),
        answer(pair=PAIR[2:4] + PAIR[:2] + PAIR[4:]),
        answer(pair=b"\x9c\x41" + PAIR[2:]),
        answer(pair=PAIR[:-16] + b"\x7f\0\0\2" + b"\0" * 12),
        answer(pair=MAPPED_PAIR),
        answer(kind=2),
        answer(kind=3),
        struct.pack("=IHHIIi", 36, 2, 0, 1, 99, -2) + b"\0" * 16,
        answer()[:87],
        struct.pack("=I", 40) + answer()[4:],
        struct.pack("=I", 4096) + answer()[4:],
        b"",
    ],
    ids=lambda given: given.hex()[-60:],
)
def test_014_what_is_not_certain_is_nobody(given: bytes) -> None:
    """No inode, a state that no peer is in, another pair, an error, an answer that is not whole."""
    assert read_answer(given, [PAIR]) is None


@given(st.binary(max_size=120), st.integers(0, 87), st.integers(1, 255))
def test_no_answer_is_misread(noise: bytes, at: int, flip: int) -> None:
    """Noise is nobody; a byte that differs changes nothing, or makes nobody of a user, or is one of the uid."""
    assert read_answer(noise, [PAIR]) is None or noise[20 + 4 :].startswith(PAIR)
    whole = bytearray(answer())
    whole[at] ^= flip
    found = read_answer(bytes(whole), [PAIR])
    assert found in ({1000, None} if not 80 <= at < 84 else {1000 ^ flip << (at - 80) * 8})


# -- the tables

HEADING: Final = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)
ROW: Final = (
    "   {n}: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0 20 4\n"
)
V4 = ("0100007F:9C40", "0100007F:1F90")
MAPPED = ("0000000000000000FFFF00000100007F:9C40", "0000000000000000FFFF00000100007F:1F90")
V6 = ("00000000000000000000000001000000:9C40", "00000000000000000000000001000000:1F90")
needs_little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="this machine writes these tables in another byte order"
)


def row(ends: tuple[str, str], state: str = "01", uid: int = 1000, inode: int = 4711) -> str:
    """A line of the table (proc(5))."""
    return ROW.format(n=0, local=ends[0], remote=ends[1], state=state, uid=uid, inode=inode)


@pytest.mark.threat(14, 15)
@needs_little_endian
@pytest.mark.parametrize(
    ("tcp", "tcp6", "host", "uid"),
    [
        ([row(V4)], [], "127.0.0.1", 1000),
        ([row(V4[::-1], uid=0), row(V4, "05")], [], "127.0.0.1", 1000),
        ([], [row(MAPPED)], "127.0.0.1", 1000),
        ([row(V4)], [row(V6, uid=7)], "::1", 7),
        ([row(V4)], [row(V6, uid=7)], "::1%lo", 7),
        ([row(V4, inode=0)], [], "127.0.0.1", None),
        ([row(V4, uid=0, inode=0)], [], "127.0.0.1", None),
        ([row(V4, "06")], [], "127.0.0.1", None),
        ([row(V4, "02")], [], "127.0.0.1", None),
        ([row(V4[::-1])], [row(MAPPED[::-1])], "127.0.0.1", None),
        ([row((V4[0], "00000000:0000"), "0A")], [], "127.0.0.1", None),
        ([row(("0100007F:9C41", V4[1]))], [row(V6)], "127.0.0.1", None),
        ([row(V4)], [row(MAPPED)], "::1", None),
    ],
)
def test_015_the_tables_say_the_same(
    tcp: list[str], tcp6: list[str], host: str, uid: int | None, tmp_path: Path
) -> None:
    """Where the kernel takes no questions; an IPv4 client may stand in either table."""
    (tmp_path / "tcp").write_text(HEADING + "".join(tcp))
    (tmp_path / "tcp6").write_text(HEADING + "".join(tcp6))
    assert listed_uid((host, 0x9C40), (host, 0x1F90), tmp_path) == uid


# -- real sockets


@pytest.fixture(autouse=True)
def netlinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The netlink sockets that a test opened, in their order; they are closed at its end."""
    opened: list[socket.socket] = []
    open_one = peers._opened

    def opening() -> socket.socket:
        opened.append(open_one())
        return opened[-1]

    monkeypatch.setattr(peers, "_opened", opening)
    yield opened
    for each in opened:
        each.close()


@pytest.fixture(params=["netlink", "tables"])
def ask(request: pytest.FixtureRequest) -> peers.Ask:
    """Both ways to find out."""
    return Diag().uid if request.param == "netlink" else listed_uid


@contextmanager
def accepted(
    host: str = "127.0.0.1", connect_to: str | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection to ourselves: the client's end, and the accepted one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server, socket.create_connection((connect_to or host, server.getsockname()[1])) as client:
        inside, _ = server.accept()
        with inside:
            yield client, inside


@pytest.mark.threat(13)
@pytest.mark.parametrize(
    ("host", "connect_to"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "::ffff:127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1")],
)
def test_013_our_own_connection_is_ours(ask: peers.Ask, host: str, connect_to: str) -> None:
    """Over IPv4, by a socket of IPv6 over IPv4, over IPv6."""
    with accepted(host, connect_to) as (client, inside):
        assert ask(inside.getpeername(), inside.getsockname()) == ME
        client.shutdown(socket.SHUT_WR)
        assert ask(inside.getpeername(), inside.getsockname()) == ME
        assert ask(inside.getsockname(), ("127.0.0.1", 1)) is None


@pytest.mark.threat(14)
def test_014_a_connection_whose_other_end_is_closed_is_nobodys(ask: peers.Ask) -> None:
    """Even our own."""
    with accepted() as (client, inside):
        ends = inside.getpeername(), inside.getsockname()
        client.close()
        assert ask(*ends) is None


@pytest.mark.threat(15)
def test_015_one_among_thousands_is_found(ask: peers.Ask) -> None:
    """One of two thousand connections is closed: that one is nobody's, and all of the others are ours."""
    count, (soft, hard) = 2000, resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with ExitStack() as open_, socket.create_server(("127.0.0.1", 0)) as server:
            clients: list[socket.socket] = []
            inside: list[socket.socket] = []
            for _ in range(count):
                clients.append(open_.enter_context(socket.create_connection(server.getsockname())))
                inside.append(open_.enter_context(server.accept()[0]))
            clients[1000].close()
            looked_at = range(count) if ask is not listed_uid else (0, 999, 1000, 1001, 1999)
            found = {at: ask(inside[at].getpeername(), inside[at].getsockname()) for at in looked_at}
            assert found == {at: None if at == 1000 else ME for at in looked_at}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_root
@pytest.mark.threat(13, 14)
@pytest.mark.parametrize("how", ["ask", "leave"])
def test_013_a_connection_of_another_user_is_his_or_nobodys(ask: peers.Ask, how: str) -> None:
    """As long as it is open, his; who closes early must not become uid 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        program = subprocess.Popen(command(url, how), stdin=subprocess.PIPE)
        assert program.stdin is not None
        program.stdin.write(b"DELETE / HTTP/1.1\r\n\r\n")
        program.stdin.close()
        if how == "leave":
            assert program.wait(SECONDS) == 0
        inside, _ = server.accept()
        with inside:
            found = ask(inside.getpeername(), inside.getsockname())
            admitting = started(Peers({0, ME}))
            assert not admitting.admits(inside)
            assert inside.recv(100).startswith(b"DELETE")
        assert program.wait(SECONDS) == 0
    assert found == (NOBODY if how == "ask" else None)


@pytest.mark.threat(18)
def test_018_a_unix_socket_tells_who_connected() -> None:
    """And `Peers` asks it."""
    one, other = socket.socketpair()
    with one, other:
        assert unix_uid(one) == ME
        assert Peers({ME}).admits(one)
        assert not Peers({ME + 1}).admits(one)


@needs_root
@pytest.mark.threat(18)
def test_018_a_connection_that_was_handed_over_is_still_his_who_made_it() -> None:
    """What counts is who connected, not who writes."""
    here, there = socket.socketpair()
    with passable() as folder, socket.socket(socket.AF_UNIX) as server, here, there:
        path = folder / "p.sock"
        server.settimeout(SECONDS)
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        program = command(f"unix:{path}", "hand")
        subprocess.run(program, stdin=subprocess.DEVNULL, stdout=there.fileno(), check=True)
        _, [number], *_ = socket.recv_fds(here, 1, 1)
        with socket.socket(fileno=number) as client, server.accept()[0] as inside:
            client.sendall(b"x")
            assert inside.recv(1) == b"x"
            assert unix_uid(inside) == NOBODY
            assert not Peers({0, ME}).admits(inside)
            assert Peers({NOBODY}).admits(inside)


# -- whose connections are taken


def started(made: Peers) -> Peers:
    """As an instance has it."""
    made.begin()
    return made


class NoNetlink(socket.socket):
    """As under a seccomp profile that does not know netlink."""

    def __init__(self, family: int = -1, *more: Any, **named: Any) -> None:
        if family == socket.AF_NETLINK:
            raise PermissionError
        super().__init__(family, *more, **named)


@pytest.mark.threat(15)
def test_015_without_netlink_the_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may forbid the one and not the other."""
    monkeypatch.setattr(socket, "socket", NoNetlink)
    with accepted() as (client, inside):
        with pytest.raises(PermissionError):
            Diag().uid(inside.getpeername(), inside.getsockname())
        admitting = started(Peers({ME}))
        assert admitting.admits(inside)
        assert not started(Peers({ME + 1})).admits(inside)
        client.close()
        assert not admitting.admits(inside)


class Stale(socket.socket):
    """A netlink socket on which answers to earlier questions, and what is no answer, still wait."""

    stale: ClassVar[list[bytes]] = []

    def recv(self, most: int, flags: int = 0) -> bytes:
        """What waits, the oldest first."""
        return self.stale.pop(0) if self.stale else super().recv(most, flags)


@pytest.mark.threat(15, 115)
def test_115_where_descriptors_have_run_out_our_own_connections_are_still_known(
    netlinks: list[socket.socket],
) -> None:
    """The question goes through a socket that is open already; to read the tables takes another, so nobody is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with accepted() as (_client, inside):
        admitting = started(Peers({ME}))
        highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        taken: list[socket.socket] = []
        try:
            with suppress(OSError):
                taken.extend(socket.socket() for _ in range(highest))
            assert admitting.admits(inside)
            by_tables = Peers({ME})
            by_tables._ask = listed_uid
            assert not by_tables.admits(inside)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in taken:
                each.close()
        admitting.close()
        assert not admitting.admits(inside)
    assert [each.fileno() for each in netlinks] == [-1]


@pytest.mark.threat(15)
def test_015_an_answer_to_another_question_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, netlinks: list[socket.socket]
) -> None:
    """A late one says something of another connection; of very many, or where none comes, a new socket is asked."""
    monkeypatch.setattr(socket, "socket", Stale)
    diag = Diag()
    with accepted() as (_client, inside):
        ends = inside.getpeername(), inside.getsockname()
        assert diag.uid(*ends) == ME
        Stale.stale = [answer(uid=ME + 1), b"", answer(kind=2)]
        assert diag.uid(*ends) == ME
        assert len(netlinks) == 1
        Stale.stale = [answer()] * 16
        assert diag.uid(*ends) == ME
        assert len(netlinks) == 2
        netlinks[1].close()
        assert diag.uid(*ends) == ME
        assert len(netlinks) == 3


def test_before_the_beginning_nobody_is_admitted_over_tcp() -> None:
    """Nor is anybody where the question fails later."""
    with accepted() as (_client, inside):
        made = Peers({ME})
        assert not made.admits(inside)
        assert started(made).admits(inside)


@pytest.mark.threat(14)
def test_014_a_connection_that_was_reset_is_nobodys() -> None:
    """It has no other end any more."""
    with accepted() as (client, inside):
        reset(client)
        client.close()
        assert not started(Peers({0, ME})).admits(inside)


def test_a_machine_that_does_not_tell_admits_everybody_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless it was asked for by name: then it is an error. Unix sockets tell all the same."""
    monkeypatch.setattr(Diag, "uid", lambda *_: None)
    monkeypatch.setattr(peers, "listed_uid", lambda *_: ME + 1)
    with pytest.raises(ConfigError, match=r"^guard\.peers\.uids: this machine does not tell who connects: write "):
        Peers({ME}, required=True).begin()
    started(Peers({ME}, tcp=False, required=True))
    assert not caplog.records
    with accepted() as (_client, inside):
        assert started(Peers({ME + 1})).admits(inside)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "peers_unknown")


@pytest.mark.parametrize("tcp", [True, False])
def test_another_system_than_linux_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, tcp: bool
) -> None:
    """It is not even asked in ways that it does not know."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(socket, "AF_NETLINK")
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with pytest.raises(ConfigError):
        Peers({ME}, tcp=tcp, required=True).begin()
    one, other = socket.socketpair()
    with one, other:
        assert started(Peers({ME + 1}, tcp=tcp)).admits(one)
    assert [record.getMessage() for record in caplog.records] == ["peers_unknown"]


def test_who_is_refused_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the mend; of a machine's thousands of users sixteen are enough."""
    with accepted() as (client, inside):
        refusing = started(Peers({ME + 1}))
        for _ in range(3):
            assert not refusing.admits(inside)
        client.close()
        for _ in range(3):
            assert not refusing.admits(inside)
        fields = [vars(record)["fields"] for record in caplog.records]
        assert [each["uid"] for each in fields] == [ME, "unknown"]
        assert fields[0]["mend"] == f"add {ME} to guard.peers.uids, or set guard.client_key"
        assert {record.getMessage() for record in caplog.records} == {"peer_refused"}
        for uid in range(100, 200):
            refusing._tell(uid)
        assert len(caplog.records) == 16


SHARED: Final = "{unix: /run/p.sock, mode: 0660}"


@pytest.mark.parametrize(
    ("listen", "guard", "uids", "open_sockets", "required"),
    [
        ("127.0.0.1:0", "{}", {ME}, set(), False),
        ("127.0.0.1:0", "{peers: {uids: [self, 5, self]}}", {ME, 5}, set(), True),
        ("127.0.0.1:0", "{peers: {uids: [5]}}", {5}, set(), True),
        ("127.0.0.1:0", "{peers: {uids: [5]}, client_key: {env: K}}", {5}, set(), True),
        ("127.0.0.1:0", "{peers: {uids: any}}", None, None, None),
        ("127.0.0.1:0", "{client_key: {env: K}}", None, None, None),
        ("127.0.0.1:0", "{client_keys: {a: {key: {env: K}}}}", None, None, None),
        (SHARED, "{}", {ME}, {"/run/p.sock"}, False),
        (SHARED, "{peers: {uids: [self]}}", {ME}, set(), True),
        ("[unix:/run/a.sock, 127.0.0.1:0]", "{}", {ME}, set(), False),
        ("{unix: /run/p.sock, mode: 0600}", "{}", {ME}, set(), False),
    ],
)
def test_who_may_connect_by_the_configuration(
    listen: str, guard: str, uids: set[int] | None, open_sockets: set[str] | None, *, required: bool | None
) -> None:
    """By default the proxy's own user; with a client key whoever has it; a socket's mode counts unless uids do."""
    text = f"listen: {listen}\nupstream: https://a.example\nguard: {guard}"
    made = build.peers(load(Source(text, "t", None, "t"), environ={"K": "k" * 16}))
    found = (None,) * 3 if made is None else (made._uids, made._open_sockets, made._required)
    assert found == (uids, open_sockets, required)
