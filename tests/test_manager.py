"""The service manager: what it hears of a running instance, and the sockets that it listens on for it."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import build
from proxy.config import Source, load
from proxy.doors import open_doors
from proxy.errors import ConfigError
from proxy.manager import Manager, passed_sockets
from proxy.sockets import ListenError, PassedSocket
from tests.support.api import api, fine
from tests.support.client import connected
from tests.support.instances import DEADLINE, ROOT, fleet
from tests.support.leaks import Artefacts, Canaries
from tests.support.manager import listening, listening_manager, passed, passing
from tests.support.routes import Keyed
from tests.support.waiting import until

KEY = "client-key-0123456789"


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that is a canary."""
    return Keyed(canaries.mint("token"))


# -- what it hears


async def test_the_manager_hears_of_start_reload_and_end(tmp_path: Path, artefacts: Artefacts) -> None:
    """READY once it answers, a reload with its instant, whatever comes of it; then STOPPING."""
    address = str(tmp_path / "notify")
    with listening_manager(address) as manager:
        async with fleet(tmp_path, {"upstream": "http://127.0.0.1:9"}, {}, artefacts) as instances:
            began_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            running = await instances.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="20000")
            assert await manager.hears("READY") == {"READY": "1", "STATUS": f"Serving on {running.url}"}
            assert await instances.asked(running) == [502]
            for _ in range(3):
                assert await manager.hears("WATCHDOG") == {"WATCHDOG": "1"}

            config = tmp_path / "instance-1" / "config.yaml"
            for text, result in ((config.read_text(), "reloaded"), ("upstream: 17", "refused")):
                config.write_text(text)
                running.process.send_signal(signal.SIGHUP)
                reloading = await manager.hears("RELOADING")
                assert reloading["RELOADING"] == "1"
                assert int(reloading["MONOTONIC_USEC"]) > began_at
                ready = await manager.hears("READY")
                assert ready["STATUS"].startswith(f"Serving on {running.url}; ")
                assert result in ready["STATUS"]

            running.process.terminate()
            assert await manager.hears("STOPPING") == {"STOPPING": "1", "STATUS": "Draining"}
            assert await running.process.wait() == 0
    assert manager.said[0].keys() == {"READY", "STATUS"}


async def test_a_manager_may_have_an_abstract_address() -> None:
    """With @ for the byte zero."""
    address = f"@bearer-proxy-test-{os.getpid()}"
    with listening_manager(address) as manager:
        Manager.of({"NOTIFY_SOCKET": address}).ready("fine")
        assert await manager.hears("READY") == {"READY": "1", "STATUS": "fine"}


async def test_no_child_sees_what_the_manager_says(
    tmp_path: Path, canaries: Canaries, artefacts: Artefacts
) -> None:
    """Or it could speak in the service's name, and take its sockets for its own."""
    seen = tmp_path / "seen"
    token = canaries.mint("token")
    script = f"env > {seen}; test -S /proc/self/fd/3 || echo fd-3-is-none-of-mine >> {seen}; echo {token}"
    credential = {"type": "static", "token": {"command": ["/bin/sh", "-c", script]}}
    config = {"listen": "systemd", "upstream": "http://127.0.0.1:9", "credential": credential}
    with listening_manager(str(tmp_path / "notify")) as manager, listening("127.0.0.1") as [sock]:
        async with fleet(tmp_path, config, {}, artefacts) as instances:
            instances.descriptors = (sock.fileno(),)
            await instances.start(
                *passing(sock), NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="60000000", MARK="here"
            )
            await manager.hears("READY")
    found = seen.read_text().split()
    assert "MARK=here" in found
    assert not [line for line in found if line.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
    assert "fd-3-is-none-of-mine" in found


async def test_without_a_manager_nothing_is_said(tmp_path: Path) -> None:
    """Nor to one that is reached otherwise; nobody waits for a sign of life then."""
    for given in ({}, {"NOTIFY_SOCKET": "vsock:2:1234"}):
        environ = {**given, "WATCHDOG_USEC": "1000", "HOME": str(tmp_path)}
        manager = Manager.of(environ)
        manager.ready("x")
        await asyncio.wait_for(manager.watch(), DEADLINE)
        assert environ == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("given", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}])
async def test_only_who_is_watched_gives_signs_of_life(given: Mapping[str, str], tmp_path: Path) -> None:
    """The variables of somebody else are inherited at times."""
    with listening_manager(str(tmp_path / "notify")):
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", **given}
        await asyncio.wait_for(Manager.of(environ).watch(), DEADLINE)


def test_a_manager_that_is_gone_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And costs nothing else."""
    manager = Manager(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING, "proxy"):
        manager.ready("x")
        manager.stopping()
    assert [record.message for record in caplog.records] == ["manager_not_told"]


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its queue is full: the line is lost, and that is told."""
    with listening_manager(str(tmp_path / "notify")):
        manager = Manager(str(tmp_path / "notify"))
        with caplog.at_level(logging.WARNING, "proxy"):
            most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 2
            for _ in range(most):
                if not caplog.records:
                    manager.ready("x")
    assert [record.message for record in caplog.records] == ["manager_not_told"]


# -- the sockets that it listens on


async def test_a_restart_behind_a_socket_of_the_manager_loses_no_request(
    tmp_path: Path, keyed: Keyed, artefacts: Artefacts
) -> None:
    """Who comes between two processes waits for the second; the file of a Unix socket stays."""
    path = tmp_path / "api.sock"
    async with api(fine) as there:
        config = {"listen": "systemd", **keyed.config(there.url)}
        with listening("127.0.0.1", path) as socks:
            async with fleet(tmp_path, config, keyed.environ, artefacts) as instances:
                instances.descriptors = tuple(sock.fileno() for sock in socks)
                first = await instances.start(*passing(*socks))
                assert (await first.event("listening", 2))["url"] == f"unix:{path}"
                assert [(await first.get()).status, await status(f"unix:{path}", artefacts)] == [200, 200]
                first.process.terminate()
                assert await first.process.wait() == 0
                assert path.is_socket()

                waiting = [asyncio.create_task(status(where, artefacts)) for where in (first.url, f"unix:{path}")]
                await instances.start(*passing(*socks))
                assert await asyncio.gather(*waiting) == [200, 200]


async def status(url: str, artefacts: Artefacts) -> int:
    """That of one request."""
    async with connected(url, artefacts) as client:
        return (await client.ask("GET", "/", (), None)).status


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="this machine has no systemd")
async def test_systemd_starts_it_with_the_first_request(tmp_path: Path, keyed: Keyed, artefacts: Artefacts) -> None:
    """The request that woke it is answered."""
    path, config = tmp_path / "api.sock", tmp_path / "config.yaml"
    async with api(fine) as there:
        config.write_text(
            yaml.safe_dump({"listen": "systemd", "admin": {"listen": None}, **keyed.config(there.url)})
        )
        environ = {**keyed.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        handed = [part for name, value in environ.items() for part in ("-E", f"{name}={value}")]
        process = await asyncio.create_subprocess_exec(
            *("systemd-socket-activate", "-l", str(path), *handed),
            *(sys.executable, "-m", "proxy", "run", "-c", str(config)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(path.is_socket)
            assert await status(f"unix:{path}", artefacts) == 200
            process.terminate()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_an_address_that_is_named_is_taken_over_where_it_is_passed(tmp_path: Path) -> None:
    """The listener's and the admin listener's: somebody else has them, and yet they are no port taken."""
    path = tmp_path / "s"
    with listening("127.0.0.1", path, "127.0.0.1") as socks:
        path.chmod(0o600)
        here, admin = (f"127.0.0.1:{socks[at].getsockname()[1]}" for at in (0, 2))
        given = {"listen": [here, f"unix:{path}"], "upstream": "http://127.0.0.1:9", "admin": {"listen": admin}}
        clients, others = open_doors(loaded(given), [passed(each) for each in socks])
        for found, sock in zip([*clients, *others], socks, strict=True):
            assert isinstance(found, PassedSocket)
            assert found.getsockname() == sock.getsockname()
            found.close()


#: What is passed (an address, or a path with its mode), the configuration, and the sentence.
UNFIT: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "none": (None, {"listen": "systemd"}, "passes no socket that is not named here"),
    "not named": ("127.0.0.1", {"listen": "127.0.0.1:0"}, "too: add systemd"),
    "far": ("0.0.0.0", {"listen": "systemd"}, "others can reach this address: set guard.client_key"),
    "far, of both families": ("::", {"listen": "systemd"}, "others can reach this address"),
    "for all": (
        "0666",
        {"listen": "systemd", "guard": {"peers": {"uids": "any"}}},
        "every user of this machine may connect",
    ),
    "wider than named": ("0660", {"listen": "unix:PATH"}, "write SocketMode=0600"),
}


def loaded(given: Mapping[str, Any], path: Path = Path("/")) -> Any:
    """A configuration."""
    text = yaml.safe_dump(dict(given)).replace("PATH", str(path))
    return load(Source(text, "test.yaml", None, "test"), environ={"KEY": KEY})


@pytest.mark.threat(14, 19)
@pytest.mark.parametrize("case", UNFIT)
def test_014_what_is_passed_is_judged_as_what_is_named(case: str, tmp_path: Path) -> None:
    """Who can reach it, and who must not; nothing stays open."""
    place, given, sentence = UNFIT[case]
    path = tmp_path / "s"
    is_path = place is not None and place.startswith("06")
    with listening(*([] if place is None else [path if is_path else place])) as socks:
        if place is not None and is_path:
            path.chmod(int(place, 8))
        config = loaded({"upstream": "http://127.0.0.1:9", "admin": {"listen": None}, **given}, path)
        with ExitStack() as stack:
            given_over = [stack.enter_context(closing(passed(each))) for each in socks]
            with pytest.raises(ConfigError, match=sentence):
                open_doors(config, given_over)
            assert all(each.fileno() == -1 for each in given_over)


@pytest.mark.parametrize("place", ["0.0.0.0", "0666"])
def test_with_a_client_key_it_may_be_open_to_others(place: str, tmp_path: Path) -> None:
    """As with an address that is named."""
    path = tmp_path / "s"
    guard = {"client_key": {"env": "KEY"}, "peers": {"uids": "any"}}
    config = loaded(
        {"listen": "systemd", "upstream": "http://127.0.0.1:9", "admin": {"listen": None}, "guard": guard}
    )
    with listening(path if place == "0666" else place) as [sock]:
        [found], _admin = open_doors(config, [passed(sock)])
        found.close()


def test_a_socket_whose_file_is_elsewhere_counts_as_open_to_all(tmp_path: Path) -> None:
    """In another mount namespace, say; its own user may use it, by uid."""
    path = tmp_path / "s"
    given = {"listen": "systemd", "upstream": "http://127.0.0.1:9", "admin": {"listen": None}}
    with listening(path) as [sock]:
        path.unlink()
        [found], _admin = open_doors(loaded(given), [passed(sock)])
        found.close()
        with pytest.raises(ConfigError, match="every user"):
            open_doors(loaded({**given, "guard": {"peers": {"uids": "any"}}}), [passed(sock)])


@pytest.mark.threat(14)
def test_014_it_is_asked_who_connects_to_a_passed_socket() -> None:
    """It may be TCP, so the kernel has to tell."""
    peers = build.peers(loaded({"listen": "systemd", "upstream": "http://127.0.0.1:9"}))
    assert peers is not None
    assert peers._tcp


# -- the variables

KINDS = {"datagram": "SOCK_DGRAM", "connected": "SOCK_STREAM", "abstract": "SOCK_STREAM"}


def test_sockets_of_another_process_are_not_ours() -> None:
    """The variables are inherited by whoever a service starts, and gone here."""
    for pid in ("1", ""):
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": pid, "LISTEN_FDNAMES": "x", "LISTEN_PIDFDID": "3", "A": "b"}
        assert passed_sockets(environ) == ()
        assert environ == {"A": "b"}


@pytest.mark.parametrize("kind", ["file", "closed", "datagram", "connected", "abstract"])
def test_what_is_no_listening_socket_is_refused(kind: str, tmp_path: Path) -> None:
    """In a sentence for the unit."""
    with ExitStack() as stack:
        number = 1 << 16
        if kind == "file":
            number = stack.enter_context((tmp_path / "f").open("w")).fileno()
        elif kind != "closed":
            family = socket.AF_UNIX if kind == "abstract" else socket.AF_INET
            sock = stack.enter_context(socket.socket(family, getattr(socket, KINDS[kind])))
            number = os.dup(sock.fileno())
            if kind == "abstract":
                sock.bind("\0bearer-proxy-abstract")
                sock.listen()
        with pytest.raises(ListenError, match=f"descriptor {number}, .* takes sockets of ListenStream= with"):
            passed_sockets({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}, first=number)
