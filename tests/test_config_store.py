"""The section `store`: folder, server and keys, what is refused of them, and the command that makes a key."""

import base64
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from click.testing import CliRunner

from proxy import build
from proxy.cli import main as cli
from proxy.config import Config, Source, load
from proxy.config.addresses import RedisAddress, redis_server
from proxy.config.effective import effective
from proxy.errors import ConfigError
from proxy.stores.file import FileStore
from proxy.stores.memory import MemoryStore
from tests.support.leaks import Canaries


@pytest.fixture
def environ(canaries: Canaries) -> dict[str, str]:
    """Two keys."""
    keys = {name: base64.b64encode(os.urandom(32)).decode() for name in ("OLD", "NEW")}
    for key in keys.values():
        canaries.adopt(key, "key")
    return keys


def config_of(folder: Path, environ: dict[str, str], **store: Any) -> Config:
    """A configuration in a file in `folder`, with this store."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"upstream": "https://a.example", "store": store}))
    path.chmod(0o600)
    return load(Source(path.read_text(), "text", path, str(path)), environ=environ)


def refusal(folder: Path, environ: dict[str, str], **store: Any) -> str:
    """The one sentence that refuses it."""
    with pytest.raises(ConfigError) as caught:
        config_of(folder, environ, **store)
    [problem] = caught.value.problems
    return problem


def test_without_a_word_tokens_rest_in_memory(tmp_path: Path) -> None:
    """As they always did."""
    assert isinstance(build.store(config_of(tmp_path, {})), MemoryStore)


def test_a_folder_is_relative_to_the_file_and_need_not_exist(tmp_path: Path, environ: dict[str, str]) -> None:
    """It is not made either, before there is something to put there."""
    config = config_of(tmp_path, environ, kind="file", path="tokens", key={"env": "NEW"})
    assert config.store.path == tmp_path / "tokens"
    assert isinstance(build.store(config), FileStore)
    assert not (tmp_path / "tokens").exists()


def test_one_key_or_a_list_of_them(tmp_path: Path, environ: dict[str, str]) -> None:
    """In their order; all of them are masked, and shown as references."""
    expected = {name: base64.b64decode(key) for name, key in environ.items()}
    one = config_of(tmp_path, environ, kind="file", path="tokens", key={"env": "NEW"})
    assert one.store.keys() == (expected["NEW"],)
    two = config_of(tmp_path, environ, kind="file", path="tokens", key=[{"env": "NEW"}, {"env": "OLD"}])
    assert two.store.keys() == (expected["NEW"], expected["OLD"])
    assert [path for path, _ in two.secrets()] == [("store", "key", 0), ("store", "key", 1)]
    shown = yaml.safe_load(effective(two))["store"]
    assert shown["kind"] == "file"
    assert (shown["path"], shown["key"]) == (str(tmp_path / "tokens"), [{"env": "NEW"}, {"env": "OLD"}])


@pytest.mark.parametrize("key", ["", "x", "A" * 44, "A" * 42 + "==", "?" * 44, "A" * 43 + "=\n\n" + "A" * 4])
def test_what_is_not_32_bytes_in_base64_is_no_key(tmp_path: Path, environ: dict[str, str], key: str) -> None:
    """And is not shown."""
    environ["BAD"] = key
    said = refusal(tmp_path, environ, kind="file", path="tokens", key={"env": "BAD"})
    assert "store.key" in said
    assert "`bearer-proxy keygen`" in said or "is empty" in said


def _a_file(path: Path) -> None:
    path.write_text("")


def _of_another_user(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (_a_file, "is not a folder: name another path"),
    "open to the group": (lambda path: path.mkdir(mode=0o750), "can open {path}: run `chmod 700 {path}`"),
    "open to all": (lambda path: path.mkdir(mode=0o701), "can open {path}: run `chmod 700 {path}`"),
    "another user's": (_of_another_user, "is another user's: name a folder of this user's own"),
}


@pytest.mark.threat(92)
@pytest.mark.parametrize(("make", "said"), FOLDERS.values(), ids=FOLDERS)
def test_092_a_folder_that_others_can_open_is_refused(
    tmp_path: Path, environ: dict[str, str], make: Callable[[Path], object], said: str
) -> None:
    """With what to do instead."""
    path = tmp_path / "tokens"
    try:
        make(path)
    except PermissionError:
        pytest.skip("this machine's user is not root, and only root can give folders away")
    assert said.format(path=path) in refusal(tmp_path, environ, kind="file", path="tokens", key={"env": "NEW"})


@pytest.mark.threat(134)
@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("tokens", "tokens/store.key"),
        ("tokens", "tokens/deep/../store.key"),
        ("tokens/deep/..", "tokens/store.key"),
        ("linked", "tokens/store.key"),
        ("tokens", "linked/store.key"),
        ("tokens", "link.key"),
    ],
)
def test_134_a_key_beside_what_it_seals_is_refused(
    tmp_path: Path, environ: dict[str, str], folder: str, key: str
) -> None:
    """Whoever copies the folder would have both, however their paths are written."""
    (tmp_path / "tokens" / "deep").mkdir(mode=0o700, parents=True)
    (tmp_path / "tokens").chmod(0o700)
    for path in (tmp_path / "tokens" / "store.key", tmp_path / "store.key"):
        path.write_text(environ["NEW"])
        path.chmod(0o600)
    (tmp_path / "linked").symlink_to("tokens")
    (tmp_path / "link.key").symlink_to("tokens/store.key")
    said = refusal(tmp_path, environ, kind="file", path=folder, key=[{"env": "OLD"}, {"file": key}])
    assert "a key beside what it seals protects nothing: move the key to another folder" in said
    config_of(tmp_path, environ, kind="file", path="tokens", key={"file": "store.key"})


ADDRESSES = {
    "redis://a.example": RedisAddress("a.example", 6379, None, 0, tls=False),
    "redis://A.Example:7000/": RedisAddress("a.example", 7000, None, 0, tls=False),
    "rediss://[::1]:7000/12": RedisAddress("::1", 7000, None, 12, tls=True),
    "REDISS://a.example": RedisAddress("a.example", 6379, None, 0, tls=True),
    "unix:///run/my%20redis.sock": RedisAddress("localhost", 6379, "/run/my redis.sock", 0, tls=False),
    "unix:///run/redis.sock?db=3": RedisAddress("localhost", 6379, "/run/redis.sock", 3, tls=False),
}


@pytest.mark.parametrize(("url", "expected"), ADDRESSES.items(), ids=ADDRESSES)
def test_the_address_of_a_server(url: str, expected: RedisAddress) -> None:
    """Host, port, socket, database, TLS."""
    assert redis_server(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("redis://", "redis:///1", "redis://a:0", "redis://a:", "redis://a:70000", "redis://a/x", "redis://a/-1"),
        *(
            "redis://a/1/2",
            "redis://a?db=1",
            "redis://a#1",
            "redis://:p@a",
            "redis://u@a",
            "rediss://a b",
            "redis://a/1e5",
        ),
        *("unix://", "unix:///", "unix://a/b", "unix://u@/b", "unix:///b?db=", "unix:///b?db=x", "unix:///b?3"),
        *(
            "unix:///b?password=p&db=1",
            "unix:///%00",
            "unix:///" + "b" * 103,
            "http://a",
            "a",
            "",
            "unix:/run/redis.sock",
        ),
    ],
)
def test_what_is_no_address_of_a_server(url: str) -> None:
    """Whatever it holds is not said."""
    with pytest.raises(ValueError, match=r"^(write|a URL holds)"):
        redis_server(url)


async def test_a_server_is_not_spoken_to_before_it_is_needed(tmp_path: Path, environ: dict[str, str]) -> None:
    """Neither by `check` nor by a start; a file of TLS that is none is told then, since it is read."""
    store = {"kind": "redis", "url": "rediss://a.example", "key": {"env": "NEW"}}
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    config = config_of(tmp_path, environ, **store, tls={"ca": "ca.pem"})
    found = build.store(config)
    assert (found.lasting, found.needs_turn) == (True, True)
    await found.close()
    authority.write_text("no PEM")
    with pytest.raises(ConfigError, match=r"store\.tls: the files cannot be used: write PEM files"):
        build.store(config)


def test_a_server_as_it_is_shown(tmp_path: Path, environ: dict[str, str]) -> None:
    """Secrets as references; what is shown loads to the same."""
    environ["PASSWORD"] = environ["OLD"]
    store = {"kind": "redis", "url": "redis://localhost:7000/1", "username": "u", "prefix": "a:b"}
    config = config_of(tmp_path, environ, **store, password={"env": "PASSWORD"}, key={"env": "NEW"})
    assert [path for path, _ in config.secrets()] == [("store", "password"), ("store", "key", 0)]
    shown = yaml.safe_load(effective(config))["store"]
    expected = {**store, "password": {"env": "PASSWORD"}, "key": [{"env": "NEW"}], "path": None}
    assert shown == {**expected, "tls": {"ca": None, "cert": None, "key": None}}
    assert config_of(tmp_path, environ, **shown).store == config.store
    assert config.warnings == []


@pytest.mark.parametrize(
    ("url", "password", "warned"),
    [
        ("redis://a.example", True, True),
        ("redis://a.example", False, False),
        ("rediss://a.example", True, False),
        ("redis://127.0.0.1", True, False),
        ("unix:///run/redis.sock", True, False),
    ],
)
def test_a_password_that_the_network_can_read_is_warned_of(
    tmp_path: Path,
    environ: dict[str, str],
    url: str,
    password: bool,  # noqa: FBT001  a column of the table
    warned: bool,  # noqa: FBT001  same
) -> None:
    """What is stored is sealed in any case."""
    given = {"password": {"env": "OLD"}} if password else {}
    config = config_of(tmp_path, environ, kind="redis", url=url, key={"env": "NEW"}, **given)
    assert [
        each.endswith("store.url: redis:// shows the password to the network: write rediss://")
        for each in config.warnings
    ] == [True] * warned


def test_a_server_needs_an_extra(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is named, where it is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else find(name))
    said = refusal(tmp_path, environ, kind="redis", url="redis://a.example", key={"env": "NEW"})
    assert said.endswith("store.url: a store on Redis needs an extra: pip install 'bearer-proxy[fleet]'")


def test_the_private_key_for_a_server_is_private(tmp_path: Path, environ: dict[str, str]) -> None:
    """As everywhere."""
    pair = tmp_path / "client.pem"
    trustme.CA().issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(pair))
    pair.chmod(0o644)
    tls = {"cert": "client.pem"}
    said = refusal(tmp_path, environ, kind="redis", url="rediss://a.example", key={"env": "NEW"}, tls=tls)
    assert f"others on this machine can read {pair}: run `chmod 600 {pair}`" in said


def test_a_name_that_is_not_there_has_no_binding(environ: dict[str, str]) -> None:
    """A fixed token has one: others may stand on it."""
    text = "upstream: https://a.example\ncredential: {type: static, token: {env: NEW}}"
    config = load(Source(text, "text", None, "test"), environ=environ)
    assert build.binding_of("default", config)
    with pytest.raises(KeyError):
        build.binding_of("another", config)


def test_keygen_prints_a_new_key_each_time(tmp_path: Path) -> None:
    """One that a store takes as it was printed, line end and all."""
    printed = [CliRunner().invoke(cli, ["keygen"]) for _ in range(3)]
    assert [each.exit_code for each in printed] == [0, 0, 0]
    assert len({each.output for each in printed}) == 3
    path = tmp_path / "store.key"
    path.write_text(printed[0].output)
    path.chmod(0o600)
    [key] = config_of(tmp_path, {}, kind="file", path="tokens", key={"file": "store.key"}).store.keys()
    assert base64.b64encode(key).decode() + "\n" == printed[0].output


def test_keygen_gives_scripts_the_same_key_in_a_document() -> None:
    """One that a store takes, and a new one each time."""
    printed = [CliRunner().invoke(cli, ["keygen", "--json"]) for _ in range(2)]
    assert [(each.exit_code, each.stderr) for each in printed] == [(0, ""), (0, "")]
    one, other = (json.loads(each.stdout) for each in printed)
    assert one.keys() == {"ok", "key"}
    assert one["ok"] is True
    assert one["key"] != other["key"]
    assert len(base64.b64decode(one["key"], validate=True)) == 32
