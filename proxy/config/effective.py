"""Shows the configuration that is in effect, in the form in which it is written, without its secrets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from proxy.config.addresses import origin_text
from proxy.config.fields import SECRET_NAME
from proxy.config.listeners import PassedSockets, TcpAddress, UnixAddress, written
from proxy.config.model import Config
from proxy.config.problems import KeyPath
from proxy.config.provided import ExecCredential
from proxy.config.secrets import SecretSource
from proxy.config.yamltext import dump
from proxy.injection import Place, Replace
from proxy.redact import MASK, Redactor
from proxy.routes import Origin

#: What stands in the place of a secret.
Shown = Callable[[KeyPath, SecretSource], object]


def effective(config: Config) -> str:
    """YAML of the whole configuration; a secret is its reference, or `***` where it was written out."""
    data = plain(config, lambda _path, source: source.describe())
    for route, given in zip(data["routes"], config.routes, strict=True):
        route["headers"]["set"] = _constants(given.headers.set)
        if isinstance(given.inject, Replace):
            route["inject"] = {"replace": MASK}
    for name, credential in config.credentials.items():
        shown = data["credentials"][name]
        shown["headers"] = _constants(credential.headers)
        if isinstance(credential, ExecCredential):
            # What a program is given may be a secret.
            shown["command"] = [credential.command[0], *([MASK] if len(credential.command) > 1 else [])]
            shown["stdin"] = MASK if credential.stdin else ""
    data["credentials"] = _without_passwords(data["credentials"], Redactor())
    return dump(data)


def _without_passwords(value: Any, redactor: Redactor) -> Any:  # noqa: ANN401  plain data
    """The same, with what looks like a credential masked in URLs: a login may have one in its query."""
    if isinstance(value, dict):
        return {key: _without_passwords(each, redactor) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_passwords(each, redactor) for each in value]
    return redactor.text(value) if isinstance(value, str) and "://" in value else value


def _constants(headers: Mapping[str, str]) -> dict[str, str]:
    """Constants are not secret by rule, but a private file may hold what looks like one."""
    return {name: MASK if SECRET_NAME.search(name) else text for name, text in headers.items()}


def plain(config: Config, shown: Shown) -> dict[str, Any]:
    """The whole configuration as YAML takes it, each secret as `shown` gives it; all else stands there as it is."""
    return {
        name: _plain(getattr(config, name), (name,), shown) for name in Config.model_fields if name != "warnings"
    }


def _plain(value: object, path: KeyPath, shown: Shown) -> Any:  # noqa: ANN401  plain data
    """The part of a model at `path`."""
    if isinstance(value, SecretSource):
        return shown(path, value)
    if isinstance(value, Place | Origin | Replace | TcpAddress | UnixAddress | PassedSockets):
        return _short(value)
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name), (*path, name), shown) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _plain(each, (*path, key), shown) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each, (*path, index), shown) for index, each in enumerate(value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value) if isinstance(value, Path) else value


def _short(value: Place | Origin | Replace | TcpAddress | UnixAddress | PassedSockets) -> Any:  # noqa: ANN401  plain data
    """A value of ours as it is written in a config."""
    if isinstance(value, Place):
        scheme = {"scheme": value.scheme} if value.kind == "header" else {}
        return {value.kind: value.name, **scheme}
    if isinstance(value, Origin):
        return origin_text(value)
    if isinstance(value, Replace):
        return {"replace": value.placeholder.decode("ascii")}
    return written(value)
