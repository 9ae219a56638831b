"""The TLS layer: nothing that came is lost, no end is taken for a proper one, and both sides can slow it down."""

import asyncio
import hashlib
import re
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trustme

from proxy.routes import Origin
from proxy.tls import client_context
from proxy.upstream.dial import Dialer
from proxy.upstream.tlsengine import SLICE
from tests.support.blocking import serving_blocking
from tests.support.recorder import Recorder
from tests.support.upstreams import (
    CLOSE,
    DEADLINE,
    DEAF,
    READ,
    Got,
    Peer,
    Script,
    Upstream,
    on_each_loop,
    reset,
    turns,
)

ANSWER: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\nConnection: close\r\n\r\nexpired"
#: More than a record and more than a slice, and no multiple of either.
BLOCK: Final = bytes(range(256)) * 256 + b"end"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate, as a PEM file."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def server(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@asynccontextmanager
async def connected(
    server: ssl.SSLContext, bundle: Path, script: Script
) -> AsyncIterator[tuple[Recorder, asyncio.Transport, Peer]]:
    """A connection to an upstream that plays `script`: what is above our layer, the layer, the upstream's end."""
    async with Upstream(script, tls=server) as upstream:
        recorder = await dialled(upstream.port, bundle)
        try:
            yield recorder, recorder.transport, await upstream.peer()
        finally:
            recorder.transport.abort()
            await recorder.lost


async def dialled(port: int, bundle: Path) -> Recorder:
    """What is above a new connection."""
    recorder = Recorder()
    await Dialer(Origin("https", "127.0.0.1", port), tls=client_context(bundle)).connect(recorder)
    return recorder


@on_each_loop
async def test_bytes_pass_both_ways_and_the_transport_tells_of_tls(server: ssl.SSLContext, bundle: Path) -> None:
    """As an asyncio transport does, with the names of asyncio's own layer."""
    async with connected(server, bundle, [Got(b"ping"), b"pong"]) as (above, transport, peer):
        transport.writelines([b"pi", bytearray(b"n"), memoryview(b"g")])
        transport.write(b"")
        assert (await above.got(4), bytes(peer.received)) == (b"pong", b"ping")
        assert transport.get_extra_info("ssl_object").version().startswith("TLSv1.")
        assert isinstance(transport.get_extra_info("sslcontext"), ssl.SSLContext)
        assert transport.get_extra_info("socket").fileno() > 0
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert transport.get_extra_info("nothing", "default") == "default"
        assert transport.get_protocol() is above
        assert not transport.can_write_eof()
        assert transport.is_reading()
        assert not transport.is_closing()


@on_each_loop
async def test_a_connection_goes_over_to_another_protocol(server: ssl.SSLContext, bundle: Path) -> None:
    """As a tunnel needs it after a 101."""
    go = asyncio.Event()
    async with connected(server, bundle, [b"one", go, b"two"]) as (above, transport, _):
        await above.got(3)
        other = Recorder()
        transport.set_protocol(other)
        go.set()
        assert (await other.got(3), bytes(above.received)) == (b"two", b"one")
        transport.set_protocol(above)


@on_each_loop
async def test_close_notify_is_the_proper_end(server: ssl.SSLContext, bundle: Path) -> None:
    """066: the end of what came is told, then the end of all, without an error."""
    async with connected(server, bundle, [BLOCK, CLOSE]) as (above, transport, _):
        assert await above.lost is None
        assert bytes(above.received) == BLOCK
        assert above.told == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing()


@pytest.mark.threat(66)
@pytest.mark.parametrize("end", ["FIN", "RST"])
@on_each_loop
async def test_an_end_without_close_notify_is_an_error_behind_all_that_came(
    end: str, server: ssl.SSLContext, bundle: Path
) -> None:
    """066: a cut looks like one; asyncio and uvloop make a proper end of a FIN."""
    async with connected(server, bundle, [BLOCK]) as (above, _, peer):
        if end == "FIN":
            await above.got(len(BLOCK))
            with peer.duplicate() as sock:
                sock.shutdown(socket.SHUT_WR)
        else:
            await above.got(len(BLOCK))
            with peer.duplicate() as sock:
                reset(sock)
            peer.close()
        error = await above.lost
        assert isinstance(error, ssl.SSLEOFError if end == "FIN" else ConnectionError)
        assert bytes(above.received) == BLOCK
        assert above.told == ["connection_made", "data_received", "connection_lost"]


@on_each_loop
async def test_an_end_is_told_at_once_even_if_nobody_takes_what_is_to_be_sent(
    server: ssl.SSLContext, bundle: Path
) -> None:
    """066, 105: an upstream that went away would never make room."""
    async with connected(server, bundle, [DEAF]) as (above, transport, peer):
        while above.can_write.is_set():
            transport.write(BLOCK)
            await turns(1)
        with peer.duplicate() as sock:
            sock.shutdown(socket.SHUT_WR)
        assert isinstance(await above.lost, ssl.SSLEOFError)


@on_each_loop
async def test_bytes_that_are_no_tls_end_the_connection_behind_all_that_came(
    server: ssl.SSLContext, bundle: Path
) -> None:
    """066: what was proper before them is handed on."""
    async with connected(server, bundle, [b"fine"]) as (above, _, peer):
        await above.got(4)
        with peer.duplicate() as sock:
            sock.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = await above.lost
        assert isinstance(error, ssl.SSLError)
        assert not isinstance(error, ssl.SSLEOFError)
        assert bytes(above.received) == b"fine"


@on_each_loop
async def test_an_answer_to_what_came_with_such_bytes_goes_nowhere(server: ssl.SSLContext, bundle: Path) -> None:
    """The protocol above cannot know yet; it is told the same error."""
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        tls, outgoing = shaken(server, sock)
        tls.write(b"ping")
        sock.sendall(outgoing.read() + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        done.wait(DEADLINE)

    class Answering(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"pong")
            self.told.append("wrote")

    async with serving_blocking(serve) as port:
        above = Answering()
        await Dialer(Origin("https", "127.0.0.1", port), tls=client_context(bundle)).connect(above)
        error = await above.lost
        done.set()
    assert isinstance(error, ssl.SSLError)
    assert not isinstance(error, ssl.SSLEOFError)
    assert above.told == ["connection_made", "data_received", "wrote", "connection_lost"]


def shaken(context: ssl.SSLContext, sock: socket.socket) -> tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """A server's TLS after the handshake, and what it has to send: the last of the handshake, for one."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while True:
        incoming.write(sock.recv(10_000))
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
        else:
            return tls, outgoing


@on_each_loop
async def test_105_an_early_answer_in_front_of_a_reset_is_delivered(server: ssl.SSLContext, bundle: Path) -> None:
    """Whichever of our writes and reads meets the reset; the loops' own layers lose one answer in twenty."""

    def serve(sock: socket.socket) -> None:
        with server.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)
            tls.sendall(ANSWER)
            # To close with something unread resets.

    async with serving_blocking(serve) as port:
        for _ in range(40):
            above = await dialled(port, bundle)
            while not above.lost.done():
                above.transport.write(BLOCK)
                await turns(1)
            assert bytes(above.received) == ANSWER


@pytest.mark.parametrize("proper", [True, False], ids=["close_notify", "cut"])
@on_each_loop
async def test_105_an_answer_is_read_behind_a_failed_write(
    *, proper: bool, server: ssl.SSLContext, bundle: Path
) -> None:
    """Answer and reset are both there before the loop looks, and our write is what fails."""
    go, is_reset = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        with server.wrap_socket(sock, server_side=True) as tls:
            go.wait(DEADLINE)
            tls.sendall(ANSWER)
            if proper:
                tls.setblocking(False)  # noqa: FBT003  the socket module's own signature
                with pytest.raises(ssl.SSLWantReadError):
                    tls.unwrap()
            reset(tls)
        is_reset.set()

    async with serving_blocking(serve) as port:
        above = await dialled(port, bundle)
        go.set()
        is_reset.wait(DEADLINE)  # the loop stands still
        above.transport.write(b"request")
        error = await above.lost
        assert bytes(above.received) == ANSWER
        assert error is None if proper else isinstance(error, ConnectionError)


@on_each_loop
async def test_a_paused_reader_gets_nothing_more_and_then_all(server: ssl.SSLContext, bundle: Path) -> None:
    """061: not one byte after the pause, whatever the upstream goes on to send."""
    async with connected(server, bundle, [Got(1), BLOCK * 64]) as (above, transport, _):
        transport.write(b"x")
        while len(above.received) < 64 * len(BLOCK):
            before = await above.got(len(above.received) + 1)
            transport.pause_reading()
            assert not transport.is_reading()
            before = bytes(above.received)
            await turns()
            assert bytes(above.received) == before
            transport.resume_reading()
        assert hashlib.sha256(above.received).digest() == hashlib.sha256(BLOCK * 64).digest()


@pytest.mark.parametrize("what", ["pause_reading", "close"])
@on_each_loop
async def test_what_comes_with_the_handshake_waits_for_a_paused_reader_and_is_not_for_one_that_closed(
    what: str, authority: trustme.CA, bundle: Path
) -> None:
    """In TLS 1.2 the server finishes last, and may go on in the same packet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(context)
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        tls, outgoing = shaken(context, sock)
        tls.write(b"at once")
        sock.sendall(outgoing.read())
        done.wait(DEADLINE)

    class Unwilling(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            getattr(self.transport, what)()

    async with serving_blocking(serve) as port:
        above = Unwilling()
        dialer = Dialer(Origin("https", "127.0.0.1", port), tls=client_context(bundle))
        await dialer.connect(above)
        await turns()
        assert bytes(above.received) == b""
        if what == "pause_reading":
            above.transport.resume_reading()
            assert await above.got(7) == b"at once"
            above.transport.abort()
        assert await above.lost is None
        assert ("data_received" in above.told) is (what == "pause_reading")
        done.set()


@on_each_loop
async def test_a_writer_is_paused_where_the_upstream_does_not_read_and_goes_on_where_it_does(
    server: ssl.SSLContext, bundle: Path
) -> None:
    """062: what waits is bounded, and nothing of it is lost or out of order."""
    go = asyncio.Event()
    async with connected(server, bundle, [DEAF, go, READ]) as (above, transport, peer):
        transport.set_write_buffer_limits(high=100_000, low=1000)
        assert transport.get_write_buffer_limits() == (1000, 100_000)
        sent = 0
        while above.can_write.is_set():
            transport.write(BLOCK)
            sent += len(BLOCK)
            await turns(1)
        assert 0 < transport.get_write_buffer_size() < 100_000 + 2 * len(BLOCK)
        go.set()
        await above.can_write.wait()
        await peer.got(sent)
        assert bytes(peer.received) == BLOCK * (sent // len(BLOCK))


@on_each_loop
async def test_one_large_write_arrives_whole_before_the_end(server: ssl.SSLContext, bundle: Path) -> None:
    """It goes in slices, whose borders mean nothing; what was written is sent before a close."""
    body = BLOCK * 40
    assert len(body) > 30 * SLICE
    async with connected(server, bundle, [b"hello"]) as (above, transport, peer):
        await above.got(5)  # to close with something unread, a ticket say, would reset
        transport.write(body)
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        transport.write(b"too late")
        assert await above.lost is None
        assert await peer.got(len(body)) == body
        await peer.ended.wait()


@pytest.mark.parametrize("how", ["close", "abort"])
@on_each_loop
async def test_close_says_close_notify_and_abort_does_not(how: str, server: ssl.SSLContext, bundle: Path) -> None:
    """The upstream can tell a proper end of ours, too; either way ours is no error."""
    ends: list[str] = []

    def serve(sock: socket.socket) -> None:
        with server.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as tls:
            tls.sendall(b"hello")
            try:
                ends.append(f"close_notify after {tls.recv(100)!r}{tls.recv(100)!r}")
            except ssl.SSLEOFError:
                ends.append("cut")

    async with serving_blocking(serve) as port:
        above = await dialled(port, bundle)
        await above.got(5)
        if how == "close":
            above.transport.write(b"last")
            above.transport.close()
        else:
            above.transport.abort()
        assert await above.lost is None
    assert ends == ["close_notify after b'last'b''" if how == "close" else "cut"]


@on_each_loop
async def test_a_protocol_that_closes_while_it_is_told_something_hears_only_of_the_end(
    server: ssl.SSLContext, bundle: Path
) -> None:
    """The data and the close_notify behind it came together; closed is closed."""

    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    async with Upstream([Got(1), b"answer", CLOSE], tls=server) as upstream:
        above = Closing()
        await Dialer(upstream.origin, tls=client_context(bundle)).connect(above)
        above.transport.write(b"x")
        assert await above.lost is None
        assert above.told == ["connection_made", "data_received", "connection_lost"]


# -- what OpenSSL's own server can be told to do


OPENSSL: Final = shutil.which("openssl")


class CommandLine:
    """`openssl s_server`, whose standard input takes commands, and whose output shows what it got."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.shown = bytearray()
        self._process = process
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    def tell(self, command: str) -> None:
        """Give it a command, or a line to send."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())

    async def shows(self, what: bytes, count: int = 1) -> None:
        """Wait until it has shown `what` that often."""
        while self.shown.count(what) < count:
            self._news.clear()
            await self._news.wait()

    async def port(self) -> int:
        """Where it listens."""
        await self.shows(b"ACCEPT 127.0.0.1:")
        await self.shows(b"\n", self.shown.count(b"\n") or 1)
        return int(self.shown.partition(b"ACCEPT 127.0.0.1:")[2].split()[0])

    async def close(self) -> None:
        """End it."""
        self._process.kill()
        await self._reading
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(65536):
            self.shown += piece
            self._news.set()


@asynccontextmanager
async def command_line(
    authority: trustme.CA, folder: Path, *options: str
) -> AsyncIterator[tuple[CommandLine, int]]:
    """Run it on a free port."""
    if OPENSSL is None:
        pytest.skip("this machine has no openssl command")
    pem = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    process = await asyncio.create_subprocess_exec(
        *(OPENSSL, "s_server", "-accept", "127.0.0.1:0", "-cert", str(pem), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    server = CommandLine(process)
    try:
        yield server, await server.port()
    finally:
        await server.close()


@on_each_loop
async def test_new_keys_are_taken_and_given(authority: trustme.CA, bundle: Path, tmp_path: Path) -> None:
    """TLS 1.3: the upstream renews its keys and asks for new ones of ours, in the midst of all."""
    async with command_line(authority, tmp_path, "-tls1_3", "-msg") as (server, port):
        above = await dialled(port, bundle)
        server.tell("hello")
        await above.got(6)
        server.tell("K")
        await server.shows(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
        server.tell("with new keys")
        await above.got(20)
        above.transport.write(b"understood\n")
        await server.shows(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
        await server.shows(b"understood")
        assert bytes(above.received) == b"hello\nwith new keys\n"
        above.transport.abort()
        await above.lost


@asynccontextmanager
async def dribbling(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A way to `port` on which each byte that comes back is a segment of its own, and wrong after the event."""
    is_wrong = asyncio.Event()
    ways: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while piece := await far_reader.read(65536):
                for each in piece:
                    writer.write(bytes([each ^ is_wrong.is_set()]))
                    await writer.drain()
                    await turns(3)

        async def forth() -> None:
            while piece := await reader.read(65536):
                far_writer.write(piece)
                await far_writer.drain()

        ways.update((asyncio.create_task(back()), asyncio.create_task(forth())))
        await asyncio.wait(ways)
        for each in (writer, far_writer):
            each.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield server.sockets[0].getsockname()[1], is_wrong
        finally:
            for way in ways:
                way.cancel()
            await turns()


@pytest.mark.parametrize("end", ["stay", "close", "fail"])
@on_each_loop
async def test_writes_wait_for_a_renegotiation(
    end: str, authority: trustme.CA, bundle: Path, tmp_path: Path
) -> None:
    """TLS 1.2: meanwhile the protocol above is paused; then all goes out in its order, also before a close.

    What the upstream sends in the midst of it is heard, but not behind a close.
    """
    async with (
        command_line(authority, tmp_path, "-tls1_2", "-msg") as (server, port),
        dribbling(port) as (slow_port, is_wrong),
    ):
        above = await dialled(slow_port, bundle)
        server.tell("r")
        await server.shows(b"HelloRequest")
        server.tell("meanwhile")
        above.transport.write(b"<line 1>\n")
        count = 1
        while above.can_write.is_set():
            await turns(1)
            count += 1
            above.transport.write(b"<line %d>\n" % count)
        above.transport.write(b"<line last>\n")
        assert above.transport.get_write_buffer_size() > 0
        if end == "fail":
            is_wrong.set()
            error = await above.lost
            assert isinstance(error, ssl.SSLError)
            assert not isinstance(error, ssl.SSLEOFError)
            return
        if end == "close":
            above.transport.close()
            assert await above.lost is None
            assert bytes(above.received) == b""
        else:
            await above.can_write.wait()
            assert await above.got(10) == b"meanwhile\n"
        await server.shows(b"<line last>")
        assert re.findall(rb"<line (\w+)>", server.shown) == [b"%d" % each for each in range(1, count + 1)] + [
            b"last"
        ]
        above.transport.abort()
        await above.lost
