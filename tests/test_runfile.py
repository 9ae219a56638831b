"""The run file: found by those who may ask the instance, believed only where nobody else could have written it."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import runfile
from proxy.config import find, quick
from proxy.errors import ConfigError
from proxy.runfile import RunFileError, Running
from tests.support.leaks import Canaries

CONFIG = "upstream: http://127.0.0.1:9\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run file that is not there yet, in a runtime folder of our own."""
    return Path(runfile.path_for("/etc/bearer-proxy.yaml", {"XDG_RUNTIME_DIR": str(tmp_path)}))


def running(pid: int | None = None, key: str = "0123456789abcdef") -> Running:
    """An instance that runs as this process unless told otherwise."""
    return Running(pid or os.getpid(), ["http://127.0.0.1:1"], "http://127.0.0.1:2", key)


def dead_pid() -> int:
    """The number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# -- which instance is meant


@pytest.mark.parametrize(
    ("explicit", "variables"),
    [
        ("here.yaml", {}),
        ("./sub/../here.yaml", {"BEARER_PROXY_CONFIG": "other.yaml"}),
        (None, {"BEARER_PROXY_CONFIG": "other.yaml", "BEARER_PROXY_CONFIG_YAML": CONFIG}),
        (None, {"BEARER_PROXY_CONFIG_YAML": CONFIG}),
        (None, {}),
        (None, {"XDG_CONFIG_HOME": "xdg"}),
        (None, {"HOME": "home"}),
    ],
)
@pytest.mark.parametrize(
    "usual", ["bearer-proxy.yaml", "xdg/bearer-proxy/config.yaml", "home/.config/bearer-proxy/config.yaml"]
)
def test_the_identity_is_the_one_that_the_configuration_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explicit: str | None, variables: dict[str, str], usual: str
) -> None:
    """`run` finds its configuration, `healthcheck` its run file: both must mean the same one."""
    monkeypatch.chdir(tmp_path)
    for name in ("here.yaml", "other.yaml", usual):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CONFIG)
    (tmp_path / "sub").mkdir()
    environ = {"HOME": str(tmp_path / "nowhere")} | {
        name: str(tmp_path / value) if name in {"XDG_CONFIG_HOME", "HOME"} else value
        for name, value in variables.items()
    }
    try:
        expected = find(explicit, environ).identity
    except ConfigError:
        expected = quick("http://127.0.0.1:9", token_env="T").identity
    assert runfile.identity(explicit, environ) == expected


def test_each_configuration_has_a_file_of_its_own(tmp_path: Path) -> None:
    """The name is a digest: no path of the configuration shows, and none collides."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    first, second = runfile.path_for("/a", environ), runfile.path_for("/b", environ)
    assert first != second
    assert Path(first).parent == tmp_path / "bearer-proxy"
    # printf /a | sha256sum
    assert Path(first).name == "6a50dc8584134c7d.json"


def test_without_a_runtime_folder_it_is_one_of_this_user(tmp_path: Path) -> None:
    """`/run/user/UID` where there is one, else a private folder in the temporary one."""
    folder = Path(runfile.path_for("quick", {"TMPDIR": str(tmp_path)})).parent
    uid = os.geteuid()
    usual = Path(f"/run/user/{uid}")
    expected = usual / "bearer-proxy" if usual.exists() else tmp_path / f"bearer-proxy-{uid}"
    assert folder == expected


# -- writing and reading


def test_what_was_written_is_read_and_is_private(path: Path) -> None:
    """Folder 0700, file 0600, nothing left beside it; an older file is replaced."""
    runfile.write(str(path), running(key="an-older-key-0123"))
    runfile.write(str(path), running())
    found = runfile.read(str(path))
    assert found is not None
    assert (found.pid, found.urls, found.admin_url, found.admin_key) == (
        os.getpid(),
        ("http://127.0.0.1:1",),
        "http://127.0.0.1:2",
        "0123456789abcdef",
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_a_crash_left_behind_does_not_hinder(path: Path) -> None:
    """A temporary file of the same process number, and a link in its place, are replaced, not followed."""
    path.parent.mkdir(mode=0o700)
    victim = path.parent / "victim"
    victim.write_text("untouched")
    Path(f"{path}.{os.getpid()}").symlink_to(victim)
    runfile.write(str(path), running())
    assert victim.read_text() == "untouched"
    assert runfile.read(str(path)) is not None


def test_an_admin_listener_that_is_off_stays_off(path: Path) -> None:
    """None is None again."""
    runfile.write(str(path), Running(os.getpid(), [], None, "0123456789abcdef"))
    found = runfile.read(str(path))
    assert found is not None
    assert found.admin_url is None


def test_the_key_is_in_no_repr(canaries: Canaries) -> None:
    """Neither in the object's, nor in a list of it."""
    key = canaries.mint("key")
    assert key not in repr([running(key=key)]) + str(running(key=key))


def test_there_is_no_instance_where_there_is_no_file(path: Path) -> None:
    """Nor where the folder is missing."""
    assert runfile.read(str(path)) is None
    path.parent.mkdir()
    assert runfile.read(str(path)) is None


def test_an_instance_that_has_died_does_not_run(path: Path) -> None:
    """Its file is left for the next start to replace."""
    runfile.write(str(path), running(dead_pid()))
    assert runfile.read(str(path)) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"pid": "x", "urls": [], "admin_url": null, "admin_key": ""}', "\xff", "{" * 100],
)
def test_a_damaged_file_is_named_with_what_to_do(path: Path, text: str) -> None:
    """It is not taken for a missing one."""
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(RunFileError, match=rf"{path.name} is damaged: remove it"):
        runfile.read(str(path))


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_file_that_others_may_read_or_write_is_not_believed(path: Path, mode: int) -> None:
    """Somebody else may have its key, or have put in another address."""
    runfile.write(str(path), running())
    path.chmod(mode)
    with pytest.raises(RunFileError, match="not a private file"):
        runfile.read(str(path))


def link(path: Path) -> None:
    """A link to a good run file."""
    runfile.write(f"{path}.real", running())
    path.symlink_to(f"{path}.real")


def pipe(path: Path) -> None:
    """A named pipe, on which a careless reader would wait for ever."""
    path.parent.mkdir()
    os.mkfifo(path, 0o600)


def folder(path: Path) -> None:
    """A private folder."""
    path.mkdir(mode=0o700, parents=True)


@pytest.mark.parametrize("make", [link, pipe, folder])
def test_what_is_no_file_is_not_believed(path: Path, make: Callable[[Path], None]) -> None:
    """Nor followed, nor waited for."""
    make(path)
    with pytest.raises(RunFileError, match=path.name):
        runfile.read(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="this machine's user is not root, and only root can give a file away")
def test_a_file_of_another_user_is_not_believed(path: Path) -> None:
    """Who could write into the folder is not who runs the proxy."""
    runfile.write(str(path), running())
    os.chown(path, 12345, 12345)
    with pytest.raises(RunFileError, match="not a private file"):
        runfile.read(str(path))


def open_to_all(folder: Path) -> None:
    """Others may write to it."""
    folder.mkdir()
    folder.chmod(0o777)


def elsewhere(folder: Path) -> None:
    """It leads to a folder that is fine by itself."""
    (folder.parent / "real").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "real")


@pytest.mark.parametrize("prepare", [open_to_all, elsewhere])
def test_a_shared_folder_that_somebody_prepared_is_not_used(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    """In the temporary folder everybody may be first."""
    path = tmp_path / f"bearer-proxy-{os.geteuid()}" / "x.json"
    prepare(path.parent)
    with pytest.raises(RunFileError, match="not a private folder"):
        runfile.write(str(path), running())
    with pytest.raises(RunFileError, match="not a private folder"):
        runfile.read(str(path))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the variable that mends it."""
    (tmp_path / "file").write_text("")
    path = runfile.path_for("quick", {"XDG_RUNTIME_DIR": str(tmp_path / "file")})
    with pytest.raises(RunFileError, match=r"cannot be written .*XDG_RUNTIME_DIR"):
        runfile.write(path, running())
    with pytest.raises(RunFileError, match="cannot be opened"):
        runfile.read(path)


# -- removing


def test_it_is_removed_by_who_wrote_it(path: Path) -> None:
    """Twice does no harm."""
    runfile.write(str(path), running())
    runfile.remove(str(path), os.getpid())
    assert not path.exists()
    runfile.remove(str(path), os.getpid())


def test_the_file_of_a_successor_stays(path: Path) -> None:
    """Another instance of the same configuration has taken over."""
    runfile.write(str(path), running(os.getppid()))
    runfile.remove(str(path), os.getpid())
    assert json.loads(path.read_text())["pid"] == os.getppid()


@pytest.mark.parametrize(
    ("configured", "sentence"),
    [(True, r"not running with .*/here\.yaml: start it"), (False, "not running without a configuration")],
)
def test_where_none_runs_a_sentence_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    configured: bool,
    sentence: str,
) -> None:
    """It names the configuration that was meant."""
    monkeypatch.chdir(tmp_path)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(RunFileError, match=sentence):
        runfile.find("here.yaml" if configured else None, environ)
