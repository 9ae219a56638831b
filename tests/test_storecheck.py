"""What the doctor says of the store of tokens: each thing that is wrong with it is real, and has its mend."""

import base64
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml

from proxy.build.sources import binding_of
from proxy.build.stores import store
from proxy.config import Config, Source, load
from proxy.doctor import examine
from proxy.findings import Finding
from proxy.redact import Redactor, Secret
from proxy.server import World
from proxy.storecheck import examined
from proxy.stores import servertime
from proxy.stores.base import Record
from tests.support.api import api
from tests.support.leaks import Artefacts, Canaries
from tests.support.redisserver import RedisServer, free_port, needs_redis, serving

NOW: Final = 1.8e9
NEEDED: Final = ("eval", "get", "set", "del", "pexpire", "hget", "hmget", "hset", "hdel", "time")
CREDENTIAL: Final[dict[str, Any]] = {
    "type": "oauth2",
    "grant": "client_credentials",
    "token_url": "https://login.example.com/token",
    "client_id": "tool",
    "client_secret": {"env": "SECRET"},
}


class Check:
    """Examines stores; all that is said is searched for canaries."""

    def __init__(self, folder: Path, canaries: Canaries, artefacts: Artefacts) -> None:
        self.folder = folder
        key = folder / "store.key"
        key.touch(mode=0o600)
        key.write_text(base64.b64encode(canaries.mint("token")[:32].encode()).decode())
        self.environ = {"SECRET": canaries.mint("password"), "PASSWORD": canaries.mint("password")}
        self.canaries = canaries
        self._said: list[str] = []
        artefacts.watch("findings", lambda: "\n".join(self._said))

    def config(self, kept: Mapping[str, Any], credential: Mapping[str, Any] = CREDENTIAL) -> Config:
        """A configuration with this store; its key is added."""
        given = {"upstream": "https://api.example.com", "credential": credential, "store": kept}
        if kept.get("kind", "memory") != "memory":
            given["store"] = {"key": {"file": "store.key"}, **kept}
        path = self.folder / "test.yaml"
        path.write_text(text := yaml.safe_dump(given))
        return load(Source(text, str(path), path, str(path)), environ=self.environ)

    async def __call__(self, config: Config) -> list[Finding]:
        """Every finding."""
        found = [each async for each in examined(config, NOW)]
        self._said += [each.detail for each in found]
        assert {each.what for each in found} == {"store"}
        return found

    def record(self, *, age: float = 0.0, redeeming: bool = False) -> Record:
        """One that was got so many seconds ago, good for an hour."""
        got_at = NOW - age
        token, refresh_token = Secret(self.canaries.mint("token")), Secret(self.canaries.mint("uuid"))
        return Record(3, token, got_at, got_at + 3600, refresh_token, redeeming=redeeming)


@pytest.fixture
def check(tmp_path: Path, canaries: Canaries, artefacts: Artefacts) -> Check:
    """In a folder of its own."""
    return Check(tmp_path, canaries, artefacts)


def said(found: list[Finding]) -> list[tuple[str, str]]:
    """Status and text."""
    return [(each.status, each.detail) for each in found]


SEALED: Final = ("ok", "sealed with the key of file store.key")
SPENT: Final = "its refresh token may be spent: where it is refused, log in anew"
NONE_YET: Final = ("ok", "credential default: no token yet")


# -- memory


async def test_memory_is_told_for_what_it_is(check: Check) -> None:
    """That is well where the next process can log in by itself."""
    assert said(await check(check.config({}))) == [
        ("ok", "in memory: tokens are gone with the process, and got anew by the next one")
    ]


async def test_memory_is_a_warning_where_a_login_would_be_lost(check: Check) -> None:
    """A refresh token of the configuration may be spent after a restart."""
    credential = {**CREDENTIAL, "grant": "refresh_token", "refresh_token": {"env": "PASSWORD"}}
    [(status, detail)] = said(await check(check.config({}, credential)))
    assert status == "warning"
    assert detail.startswith("in memory: a restart loses the logins and refresh tokens of default: set store.kind")


# -- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a store, empty."""
    made = tmp_path / "tokens"
    made.mkdir(mode=0o700)
    return made


FILES: Final = {"kind": "file", "path": "tokens"}


async def test_a_folder_that_can_be_used_is_looked_into(check: Check, folder: Path) -> None:
    """Where the key is, and how old each token; nothing is changed."""
    config = check.config(FILES)
    usable = ("ok", f"the folder {folder} is this user's alone, and can be written and locked")
    assert said(await check(config)) == [usable, SEALED, NONE_YET]
    kept = store(config)
    for age, redeeming, detail in (
        (40.0, False, ("ok", "credential default: its token was got 40 seconds ago")),
        (720.0, False, ("ok", "credential default: its token was got 12 minutes ago")),
        (9000.0, False, ("ok", "credential default: its token was got 2 hours ago, and is over")),
        (9e5, False, ("ok", "credential default: its token was got 10 days ago, and is over")),
        (
            60.0,
            True,
            (
                "warning",
                f"credential default: its token was got 60 seconds ago; {SPENT}",
            ),
        ),
    ):
        await kept.save("default", binding_of("default", config), check.record(age=age, redeeming=redeeming))
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert said(await check(config)) == [usable, SEALED, detail]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_a_token_that_was_got_in_the_future_is_told(check: Check, folder: Path) -> None:
    """A clock is wrong, then or now."""
    config = check.config(FILES)
    await store(config).save("default", binding_of("default", config), check.record(age=-3600.0))
    assert "in the future, by this machine's clock: set it by NTP" in said(await check(config))[-1][1]
    assert len(list(folder.iterdir())) == 1


async def test_a_folder_that_is_not_there_is_made_later(check: Check, tmp_path: Path) -> None:
    """And not by the doctor."""
    config = check.config(FILES)
    assert said(await check(config)) == [
        ("ok", f"the folder {tmp_path / 'tokens'} is not there yet; it is made with the first token"),
        SEALED,
    ]
    assert not (tmp_path / "tokens").exists()


async def test_keys_are_told_by_where_they_come_from(check: Check, folder: Path) -> None:
    """The first one seals."""
    key = (check.folder / "store.key").read_text()
    check.environ["OLD_KEY"] = key
    keys = [{"file": "store.key"}, {"env": "OLD_KEY"}, {"command": ["cat", str(check.folder / "store.key")]}]
    found = await check(check.config({**FILES, "key": keys}))
    assert (
        "ok",
        "sealed with the key of file store.key; also opened with that of env OLD_KEY, command cat",
    ) in said(found)
    assert folder.exists()


async def test_a_token_that_does_not_open_is_a_warning(check: Check, folder: Path) -> None:
    """It was got for another upstream, say."""
    config = check.config(FILES)
    await store(config).save("default", b"another", check.record())
    status, detail = said(await check(config))[-1]
    assert status == "warning"
    assert detail.startswith("credential default: the stored token does not open")
    (folder / "default.token").chmod(0o640)
    found = said(await check(config))
    path = folder / "default.token"
    assert ("warning", f"others can open {path}, so it counts as no token: run `chmod 600 {path}`") in found
    path.unlink()
    path.symlink_to("elsewhere")
    mend = "remove it, or the next token moves it aside"
    assert ("warning", f"{path} is no file of this user, and counts as no token: {mend}") in said(
        await check(config)
    )


@contextmanager
def _no_room() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_folder_that_takes_no_writes_is_a_failure(check: Check, folder: Path) -> None:
    """What is in it is not looked at then; nothing is left behind."""
    config = check.config(FILES)
    with _no_room():
        found = said(await check(config))
    mend = "make room, or let this user write and lock there; until then tokens are kept in memory alone"
    detail = f"the folder {folder} cannot be written (File too large): {mend}"
    assert found == [("failure", detail), SEALED]
    assert list(folder.iterdir()) == []


def _opened_to_others(folder: Path) -> None:
    folder.chmod(0o750)


def _given_away(folder: Path) -> None:
    os.chown(folder, 12345, -1)


def _a_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def _below_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.parent.rename(folder.parent.with_name("moved"))
    folder.parent.touch()


SPOILT: Final = {
    "open to others": (_opened_to_others, "others on this machine can open {}: run `chmod 700 {}`"),
    "another user's": (_given_away, "the folder {} is another user's: name one of this user's own"),
    "a file": (_a_file, "{} is not a folder: name another path in store.path"),
    "below a file": (_below_a_file, "the folder {} cannot be opened (Not a directory): check its path"),
}


@pytest.mark.parametrize("case", SPOILT)
async def test_a_folder_that_is_not_as_it_must_be_is_a_failure(check: Check, tmp_path: Path, case: str) -> None:
    """Somebody changed it since the configuration was read, which refuses it as well."""
    folder = tmp_path / "state" / "tokens"
    folder.mkdir(mode=0o700, parents=True)
    config = check.config({**FILES, "path": "state/tokens"})
    spoil, detail = SPOILT[case]
    try:
        spoil(folder)
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give folders away")
    assert said(await check(config)) == [("failure", detail.format(folder, folder)), SEALED]


async def test_a_folder_below_one_of_another_user_is_a_failure(check: Check, tmp_path: Path) -> None:
    """Its owner can put another one in its place."""
    above = tmp_path / "state"
    (above / "tokens").mkdir(mode=0o700, parents=True)
    config = check.config({**FILES, "path": "state/tokens"})
    try:
        _given_away(above)
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give folders away")
    [(status, detail), _sealed] = said(await check(config))
    assert status == "failure"
    assert f"{above} is another user's (12345): name one below" in detail


@pytest.mark.parametrize("is_volume", [False, True])
async def test_a_folder_that_others_can_replace_is_a_failure_but_on_a_volume(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_volume: bool
) -> None:
    """There it is a warning, and the rest is looked at."""
    above = tmp_path / "state"
    (above / "tokens").mkdir(mode=0o700, parents=True)
    above.chmod(0o777)
    config = check.config({**FILES, "path": "state/tokens"})
    if is_volume:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == above)
    [(status, detail), *rest] = said(await check(config))
    assert status == ("warning" if is_volume else "failure")
    assert detail.endswith(f"run `chmod o-w {above}`, or name a folder elsewhere")
    assert len(rest) == (3 if is_volume else 1)


async def test_a_folder_that_cannot_be_made_is_a_failure(check: Check) -> None:
    """Not even by root."""
    config = check.config({**FILES, "path": "/proc/none/tokens"})
    assert said(await check(config)) == [
        (
            "failure",
            "the folder /proc/none/tokens cannot be made (No such file or directory): let this user write to /proc",
        ),
        SEALED,
    ]


# -- a server


@pytest.fixture
def server(tmp_path: Path, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A real one, whose clock is that of the test."""
    monkeypatch.setattr(servertime, "in_seconds", lambda _time: NOW)
    with serving(tmp_path) as made:
        yield made
        artefacts.add("redis", made.everything() if made.process is not None else "")


def _user(server: RedisServer, check: Check, *rules: str) -> dict[str, Any]:
    """A user of the access list, and how the store is configured for it."""
    server.ask("ACL", "SETUSER", "proxy", "reset", "on", f">{check.environ['PASSWORD']}", *rules)
    return {"kind": "redis", "url": server.url, "username": "proxy", "password": {"env": "PASSWORD"}}


@needs_redis
async def test_a_server_that_can_be_used_is_looked_into(check: Check, server: RedisServer) -> None:
    """By a user with no more rights than the documentation names; nothing is left there."""
    config = check.config(_user(server, check, "~bearer-proxy:*", *(f"+{each}" for each in NEEDED)))
    first, *others = said(await check(config))
    assert first[0] == "ok"
    assert first[1].startswith(f"{server.socket} is Redis ")
    assert first[1].endswith(", over a Unix socket")
    able = ("ok", "its user may do all that is needed with the keys bearer-proxy:*")
    assert others == [able, SEALED, NONE_YET]
    assert server.ask("KEYS", "*") == []
    kept = store(config)
    async with kept.turn("default"):
        await kept.save("default", binding_of("default", config), check.record(age=720.0))
    await kept.close()
    assert said(await check(config))[-1] == ("ok", "credential default: its token was got 12 minutes ago")


@needs_redis
async def test_what_stays_with_each_host_is_not_looked_for_on_a_server(check: Check, server: RedisServer) -> None:
    """The identity of a machine, or what a program prints."""
    config = check.config({"kind": "redis", "url": server.url}, {"type": "exec", "command": ["whoami"]})
    told = ("ok", "credential default: each host gets its own token, and keeps it in memory")
    assert told in said(await check(config))


@needs_redis
@pytest.mark.threat(95)
@pytest.mark.parametrize(("ahead", "side"), [(31.0, "behind"), (-3700.0, "ahead of"), (29.0, None)])
async def test_095_a_clock_that_is_not_the_servers_is_told(
    check: Check, server: RedisServer, monkeypatch: pytest.MonkeyPatch, ahead: float, side: str | None
) -> None:
    """Ages are by the server's."""
    monkeypatch.setattr(servertime, "in_seconds", lambda _time: NOW + ahead)
    config = check.config({"kind": "redis", "url": server.url})
    kept = store(config)
    async with kept.turn("default"):
        await kept.save("default", binding_of("default", config), check.record(age=720.0 - ahead))
    await kept.close()
    *_others, record, clock = said(await check(config))
    told = ("warning", f"this machine's clock is {abs(ahead):.0f} seconds {side} the server's: set it by NTP")
    aged = ("ok", "credential default: its token was got 12 minutes ago")
    assert (record, clock) == (aged, told) if side else clock == aged


@needs_redis
@pytest.mark.parametrize("missing", [*NEEDED, "hset hdel"])
async def test_a_user_who_misses_a_command_is_a_failure(check: Check, server: RedisServer, missing: str) -> None:
    """The rule that mends it stands there."""
    words = missing.split()
    able = [f"+{each}" for each in NEEDED if each not in words]
    found = said(await check(check.config(_user(server, check, "~bearer-proxy:*", *able))))
    failures = [detail for status, detail in found if status == "failure"]
    rules = " ".join(f"+{each}" for each in words)
    assert failures == [
        f"its user may not do {', '.join(words)} with our keys: `ACL SETUSER proxy ~bearer-proxy:* {rules}`"
    ]
    server.ask(*failures[0].partition("`")[2].removesuffix("`").split())
    assert "failure" not in [status for status, _ in said(await check(check.config(_kept(server))))]


def _kept(server: RedisServer) -> dict[str, Any]:
    return {"kind": "redis", "url": server.url, "username": "proxy", "password": {"env": "PASSWORD"}}


@needs_redis
async def test_a_user_of_other_keys_is_a_failure(check: Check, server: RedisServer) -> None:
    """Every command is refused then."""
    found = said(await check(check.config(_user(server, check, "~other:*", *(f"+{each}" for each in NEEDED)))))
    [detail] = [detail for status, detail in found if status == "failure"]
    assert "`ACL SETUSER proxy ~bearer-proxy:* +" in detail
    # Which time it is says no key.
    assert all(f"+{each}" in detail for each in NEEDED if each != "time")


@needs_redis
async def test_a_server_that_lets_nobody_in_is_a_failure(check: Check, server: RedisServer) -> None:
    """A wrong password; nothing else is tried."""
    config = check.config(_user(server, check))
    server.ask("ACL", "SETUSER", "proxy", "resetpass", ">another")
    [(status, detail), sealed] = said(await check(config))
    assert (status, sealed) == ("failure", SEALED)
    assert "does not let this user in" in detail
    assert "check store.username, store.password" in detail


@needs_redis
async def test_a_server_that_is_a_replica_is_a_failure(check: Check, server: RedisServer) -> None:
    """It takes no writes."""
    server.ask("REPLICAOF", "127.0.0.1", "1")
    [(status, detail), _sealed] = said(await check(check.config({"kind": "redis", "url": server.url})))
    assert (status, detail) == (
        "failure",
        f"{server.socket} is a replica, which takes no writes: name a primary that stands alone in store.url",
    )


@needs_redis
async def test_a_server_that_is_full_is_a_failure(check: Check, server: RedisServer) -> None:
    """As the store itself would say."""
    server.ask("CONFIG", "SET", "maxmemory", "1")
    found = said(await check(check.config({"kind": "redis", "url": server.url})))
    assert "takes no writes: it is full, or a replica" in found[1][1]
    assert found[1][0] == "failure"


@needs_redis
async def test_a_server_that_is_not_there_is_a_failure(check: Check, tmp_path: Path) -> None:
    """With what to look at."""
    [(status, detail), _sealed] = said(
        await check(check.config({"kind": "redis", "url": f"unix://{tmp_path / 'none.sock'}"}))
    )
    assert status == "failure"
    assert "does not answer. If it should: check that it runs, store.url (rediss:// for TLS)" in detail


@needs_redis
@pytest.mark.parametrize(("trusted", "status"), [(True, "ok"), (False, "failure")])
async def test_a_server_with_tls_is_verified(check: Check, tmp_path: Path, status: str, *, trusted: bool) -> None:
    """The doctor says of its certificate what it says of others, and the store what comes of it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "server.pem").write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    port, pem = free_port(), str(tmp_path / "server.pem")
    tls = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no"]
    with serving(tmp_path, *tls):
        async with api() as upstream:
            config = check.config({"kind": "redis", "url": f"rediss://localhost:{port}", "tls": {"ca": "ca.pem"}})
            config = config.model_copy(update={"credentials": {}, "routes": ()})
            found = [each async for each in examine(config, World(Redactor(), tmp_path / "state"))]
            assert upstream.seen == []
    store_lines = [(each.status, each.detail) for each in found if each.what == "store"]
    assert store_lines[0][0] == store_lines[1][0] == status
    if trusted:
        assert f"localhost:{port} is there, its certificate good for " in store_lines[0][1]
        assert store_lines[1][1].endswith(", over TLS")
    else:
        assert f"the certificate of localhost:{port} cannot be verified" in store_lines[0][1]
