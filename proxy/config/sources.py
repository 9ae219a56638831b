"""Finds the text of the configuration: a file, the environment, or the command line's quick form."""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proxy.config.yamltext import LONGEST
from proxy.errors import ConfigError

FILE_NAME: Final = "bearer-proxy.yaml"
ENVIRONMENT: Final = "BEARER_PROXY_CONFIG_YAML"
QUICK: Final = "quick"


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a configuration and where it came from.

    `name` is shown in errors; `path` is None where there is no file; `identity` is the absolute path,
    `env:BEARER_PROXY_CONFIG_YAML` or `quick`. The text may hold secrets: no repr.
    """

    text: str = field(repr=False)
    name: str
    path: Path | None
    identity: str

    @property
    def folder(self) -> Path:
        """What relative paths in the text are relative to."""
        return Path.cwd() if self.path is None else self.path.parent

    def literals_refused(self) -> str | None:
        """None where a secret may be written out in the text, else the sentence that refuses it.

        That is so in a file of ours that nobody else can read, and for what `--token-stdin` read.
        """
        if self.identity == QUICK:
            return None
        if self.path is None:
            return f"{ENVIRONMENT} holds no secret: put it into a variable of its own and write {{env: NAME}}"
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            mend = f"sudo chown $(id -u) {self.path} && chmod 600 {self.path}"
        elif found.st_mode & 0o077:
            mend = f"chmod 600 {self.path}"
        else:
            return None
        return f"a secret is not written out here: write {{env: NAME}} or {{file: PATH}}, or run `{mend}`"


def find(explicit: str | None, environ: Mapping[str, str]) -> Source:
    """The configuration to use; raises `ConfigError` where there is none, or it cannot be read.

    `-c PATH`, else `$BEARER_PROXY_CONFIG`, else the text in `$BEARER_PROXY_CONFIG_YAML`, else
    `./bearer-proxy.yaml`, else `$XDG_CONFIG_HOME/bearer-proxy/config.yaml`.
    """
    named = explicit or environ.get("BEARER_PROXY_CONFIG")
    if named:
        return _read(named)
    if environ.get(ENVIRONMENT):
        return Source(environ[ENVIRONMENT], ENVIRONMENT, None, f"env:{ENVIRONMENT}")
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    candidates = [FILE_NAME, str(Path(home) / "bearer-proxy" / "config.yaml")]
    for candidate in candidates:
        if Path(candidate).exists():
            return _read(candidate)
    first, second = candidates
    sentence = f"there is no configuration: write ./{first} or {second}, or name one with -c PATH"
    raise ConfigError([f"{sentence}, or give run, exec, check, doctor or explain --upstream URL --token-env NAME"])


def again(source: Source) -> Source:
    """What `source` says by now. Raises `ConfigError` where it is gone, or was never anything that lasts."""
    if source.path is not None:
        _check_rests(source)
        return replace(_read(str(source.path)), name=source.name)
    raise ConfigError([f"{source.name} cannot be read again while the proxy runs: restart it to apply a change"])


def _check_rests(source: Source) -> None:
    """A pipe (`-c <(…)`) has said all that it had to say, and to open it would wait for ever for a writer."""
    with suppress(OSError):
        if source.path is not None and not stat.S_ISREG(source.path.stat().st_mode):
            sentence = "this is no file that can be read again while the proxy runs: restart it to apply a change"
            raise ConfigError([f"{source.name}: {sentence}"])


def _read(named: str) -> Source:
    try:
        path = Path(os.path.abspath(named))  # noqa: PTH100  absolute() keeps `..`, resolve() follows links
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise ConfigError([f"{named}: this file does not exist: create it, or correct the path"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{named}: this is a folder: name the file in it"]) from None
    except (OSError, ValueError):
        raise ConfigError([f"{named}: this file cannot be read by this user: check its owner and mode"]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{named}:{line}: the file is not UTF-8 text: save it as UTF-8"]) from None
    return Source(text, named, path, str(path))


def quick(
    upstream: str,
    listen: str | None = None,
    *,
    token_env: str | None = None,
    token_file: str | None = None,
    token_stdin: str | None = None,
) -> Source:
    """The quick form: one upstream and one token.

    The token comes by the name of a variable, from a file, or as the text that standard input gave.

    Raises `ConfigError` unless exactly one of the three is given.
    """
    given = [
        reference
        for reference, value in (
            ({"env": token_env}, token_env),
            ({"file": token_file}, token_file),
            ((token_stdin or "").rstrip("\r\n"), token_stdin),
        )
        if value is not None
    ]
    if len(given) != 1:
        raise ConfigError(["the quick form takes one of --token-env NAME, --token-file PATH and --token-stdin"])
    parts = {"upstream": upstream, "credential": {"type": "static", "token": given[0]}}
    if listen is not None:
        parts = {"listen": listen, **parts}
    # Every JSON text is YAML 1.2; a line a key keeps line numbers of use.
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())
    return Source(text, "command line", None, QUICK)
