"""The section `store`: the folder and the keys, what is refused of them, and the command that makes a key."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from proxy import build
from proxy.cli import main as cli
from proxy.config import Config, Source, load
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


def test_134_a_key_beside_what_it_seals_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    """Whoever copies the folder would have both."""
    folder = tmp_path / "tokens"
    folder.mkdir(mode=0o700)
    for path in (folder / "store.key", tmp_path / "store.key"):
        path.write_text(environ["NEW"])
        path.chmod(0o600)
    said = refusal(
        tmp_path, environ, kind="file", path="tokens", key=[{"env": "OLD"}, {"file": "tokens/store.key"}]
    )
    assert "a key beside what it seals protects nothing: move the key to another folder" in said
    config_of(tmp_path, environ, kind="file", path="tokens", key={"file": "store.key"})


def test_a_name_that_is_not_there_has_no_binding(environ: dict[str, str]) -> None:
    """A fixed token has one: others may stand on it."""
    text = "upstream: https://a.example\ncredential: {type: static, token: {env: NEW}}"
    config = load(Source(text, "text", None, "test"), environ=environ)
    assert build.binding_of("default", config, None)  # type: ignore[arg-type]  # it is not asked for anything
    with pytest.raises(KeyError):
        build.binding_of("another", config, None)  # type: ignore[arg-type]  # same


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
