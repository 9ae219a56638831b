"""Shows the configuration that is in effect, in the form in which it is written, without its secrets."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from proxy.config.addresses import origin_text
from proxy.config.anycredential import CommonCredential
from proxy.config.fields import SECRET_NAME
from proxy.config.listeners import TcpAddress, UnixAddress, written
from proxy.config.model import Config
from proxy.config.provided import ExecCredential
from proxy.config.secrets import SecretSource
from proxy.config.yamltext import dump
from proxy.injection import Place, Replace
from proxy.redact import MASK
from proxy.routes import Origin


def effective(config: Config) -> str:
    """YAML of the whole configuration; a secret is its reference, or `***` where it was written out."""
    return dump({name: _plain(getattr(config, name)) for name in type(config).model_fields if name != "warnings"})


def _plain(value: object) -> Any:  # noqa: ANN401  plain data
    """The part of a model as YAML takes it."""
    if isinstance(value, SecretSource | Place | Origin | Replace | TcpAddress | UnixAddress):
        return _short(value)
    if isinstance(value, BaseModel):
        plain = {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        if isinstance(value, CommonCredential):
            # Constants are not secret by rule, but a private file may hold what looks like one.
            plain["headers"] = {
                name: MASK if SECRET_NAME.search(name) else text for name, text in value.headers.items()
            }
        if isinstance(value, ExecCredential):
            # What a program is given may be a secret.
            plain["command"] = [value.command[0], *([MASK] if len(value.command) > 1 else [])]
            plain["stdin"] = MASK if value.stdin else ""
        return plain
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value) if isinstance(value, Path) else value


def _short(value: SecretSource | Place | Origin | Replace | TcpAddress | UnixAddress) -> Any:  # noqa: ANN401  plain data
    """A value of ours as it is written in a config."""
    if isinstance(value, SecretSource):
        return value.describe()
    if isinstance(value, Place):
        scheme = {"scheme": value.scheme} if value.kind == "header" else {}
        return {value.kind: value.name, **scheme}
    if isinstance(value, Origin):
        return origin_text(value)
    if isinstance(value, Replace):
        return {"replace": value.placeholder.decode("ascii")}
    return written(value)
