"""The run file: what `token` and `healthcheck` must know of a running instance, its admin key included.

Law: only its owner reads it, and a file that others could have written is not believed. Standard library only, and
little of it, since `healthcheck` starts an interpreter every few seconds: `dataclasses` and `pathlib` alone would
take a third of its time.
"""

# os.path instead of pathlib, for the reason above:
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH110, PTH111, PTH116, PTH118, PTH119, PTH120

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from proxy.errors import BearerProxyError

_FOLDER: Final = "bearer-proxy"
_LIMIT: Final = 64 * 1024
#: What names the configuration where there is no file; `config/sources.py` says the same.
ENVIRONMENT: Final = "BEARER_PROXY_CONFIG_YAML"
QUICK: Final = "quick"


class RunFileError(BearerProxyError):
    """There is no run file, or it cannot be written or believed; the message says what mends it."""


class Running:
    """A running instance: its process, the URLs of its listeners, and how to ask its admin listener (None: off).

    It has no repr of its own, since that would show the key.
    """

    __slots__ = ("admin_key", "admin_url", "pid", "urls")

    def __init__(self, pid: int, urls: Iterable[str], admin_url: str | None, admin_key: str) -> None:
        self.pid = pid
        self.urls = tuple(urls)
        self.admin_url = admin_url
        self.admin_key = admin_key


def identity(explicit: str | None, environ: Mapping[str, str]) -> str:
    """Which configuration `-c`, the variables and the usual places mean: a path, `env:NAME`, or `quick`.

    The search order is that of `config.find`; where that finds nothing, the quick form is meant.
    """
    named = explicit or environ.get("BEARER_PROXY_CONFIG")
    if named:
        return os.path.abspath(named)
    if environ.get(ENVIRONMENT):
        return f"env:{ENVIRONMENT}"
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    candidates = ("bearer-proxy.yaml", os.path.join(home, _FOLDER, "config.yaml"))
    return next((os.path.abspath(each) for each in candidates if os.path.exists(each)), QUICK)


def path_for(wanted: str, environ: Mapping[str, str]) -> str:
    """Where the instance with this `identity` keeps its run file; nothing is created.

    `$XDG_RUNTIME_DIR`, else `/run/user/UID` where it is ours, else a folder in the temporary one.
    """
    return os.path.join(_folder(environ), f"{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]}.json")


def _folder(environ: Mapping[str, str]) -> str:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, _FOLDER)
    usual = f"/run/user/{os.geteuid()}"
    with contextlib.suppress(OSError):
        if os.stat(usual).st_uid == os.geteuid():
            return os.path.join(usual, _FOLDER)
    return os.path.join(environ.get("TMPDIR") or "/tmp", f"{_FOLDER}-{os.geteuid()}")  # noqa: S108  see _check_folder


def find(explicit: str | None, environ: Mapping[str, str]) -> Running:
    """The running instance that `identity` means. Raises `RunFileError` where there is none."""
    wanted = identity(explicit, environ)
    running = read(path_for(wanted, environ))
    if running is None:
        if wanted == QUICK:
            raise RunFileError(
                "bearer-proxy is not running without a configuration, and none was found: name one with -c PATH"
            )
        raise RunFileError(f"bearer-proxy is not running with {wanted}: start it with `bearer-proxy run`")
    return running


def write(path: str, running: Running) -> None:
    """Write the run file, mode 0600, whole or not at all. Raises `RunFileError`."""
    folder = os.path.dirname(path)
    temporary = f"{path}.{running.pid}"
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(folder, mode=0o700)
        _check_folder(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({name: getattr(running, name) for name in Running.__slots__}, file)
        os.replace(temporary, path)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise RunFileError(
            f"the run file {path} cannot be written ({why}): set XDG_RUNTIME_DIR to a folder of this user"
        ) from error


def read(path: str) -> Running | None:
    """The instance that wrote this file, None where there is none, or it is gone.

    Raises `RunFileError` for a file that another user could have written or read.
    """
    try:
        _check_folder(os.path.dirname(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFileError(f"the run file {path} cannot be opened ({os.strerror(error.errno or 0)})") from error
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or not stat.S_ISREG(found.st_mode):
            raise RunFileError(f"the run file {path} is not a private file of this user: remove it")
        text = os.read(descriptor, _LIMIT)
    finally:
        os.close(descriptor)
    try:
        data = json.loads(text)
        admin_url = data["admin_url"]
        running = Running(
            int(data["pid"]), data["urls"], None if admin_url is None else str(admin_url), str(data["admin_key"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"the run file {path} is damaged: remove it, and start bearer-proxy again") from error
    return running if _is_alive(running.pid) else None


def remove(path: str, pid: int) -> None:
    """Remove the run file if it is still that of process `pid`."""
    with contextlib.suppress(OSError, RunFileError):
        running = read(path)
        if running is not None and running.pid == pid:
            os.unlink(path)


def _check_folder(folder: str) -> None:
    """Refuse a folder in the temporary one that somebody else made first, or may write to."""
    if os.path.basename(folder) == _FOLDER:
        return  # in a runtime folder, whose owner vouches for it
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RunFileError(f"{folder} is not a private folder of this user: remove it, or set XDG_RUNTIME_DIR")


def _is_alive(pid: int) -> bool:
    """Is there such a process of ours? One of another user has only inherited the number."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
