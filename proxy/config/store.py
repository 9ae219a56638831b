"""The model of the section `store`: where tokens rest, and what seals them there."""

import base64
import binascii
import importlib.util
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from proxy.config import addresses
from proxy.config.clienttls import ClientTLS
from proxy.config.fields import REFERENCE_SCHEMA, KeyField, SecretField, Section, reader
from proxy.config.secrets import SecretSource

#: AES-256.
_KEY_BYTES: Final = 32
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def decoded(source: SecretSource) -> bytes:
    """The bytes of a store key. Raises `ValueError` where it is none."""
    try:
        key = base64.b64decode(source.value.reveal().strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("a store key is 32 bytes in base64: make one with `bearer-proxy keygen`")
    return key


def _real(path: Path) -> Path:
    """Without links and dots, whether it is there or not."""
    return Path(os.path.realpath(path))


def _store_key(source: SecretSource) -> SecretSource:
    if not source.stands_in:
        decoded(source)
    return source


def _listed(value: object) -> object:
    return value if value is None or isinstance(value, tuple | list) else (value,)


def _some(keys: tuple[SecretSource, ...]) -> tuple[SecretSource, ...]:
    if not keys:
        raise ValueError("name at least one key: make one with `bearer-proxy keygen`")
    return keys


def _folder(value: object, info: ValidationInfo) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("write the path of a folder")
    path = reader(info).folder / value
    try:
        found = path.stat()
    except OSError:
        # It is made when it is first needed; what cannot be made then is said then.
        return path
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is not a folder: name another path, it is made where it does not exist")
    if found.st_uid != os.geteuid():
        raise ValueError(f"{path} is another user's: name a folder of this user's own, such as one below it")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"others on this machine can open {path}: run `chmod 700 {path}`")
    return path


def _url(value: str) -> str:
    addresses.redis_server(value)
    if importlib.util.find_spec("redis") is None:
        raise ValueError("a store on Redis needs an extra: pip install 'bearer-proxy[fleet]'")
    return value


def _username(value: str) -> str:
    if not value or not value.isprintable() or " " in value:
        raise ValueError("write the name of a user without spaces and control characters")
    return value


def _prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value):
        raise ValueError("write up to 100 letters, digits, and any of '_', '.', ':' and '-'")
    return value


_KEYS_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        *REFERENCE_SCHEMA["anyOf"],
        {"type": "array", "items": REFERENCE_SCHEMA, "minItems": 1},
        {"type": "null"},
    ]
}
Folder = Annotated[Path | None, BeforeValidator(_folder), WithJsonSchema({"type": ["string", "null"]})]
StoreKeys = Annotated[tuple[Annotated[SecretField, AfterValidator(_store_key)], ...], AfterValidator(_some)]


#: What belongs to one kind alone; `key` belongs to file and redis.
_FOR: Final = {"path": "file", **dict.fromkeys(("url", "username", "password", "tls", "prefix"), "redis")}


class StoreConfig(Section):
    """Where tokens rest."""

    kind: Literal["memory", "file", "redis"] = "memory"
    """memory: gone with the process; file: sealed files, which survive a restart; redis: for many machines."""
    path: Folder = None
    """file: the folder; it is made where it does not exist."""
    url: Annotated[str, AfterValidator(_url)] | None = None
    """redis: redis://HOST:PORT/DATABASE, rediss:// (with TLS) or unix:///run/redis.sock; Valkey will do as well."""
    username: Annotated[str, AfterValidator(_username)] | None = None
    """redis: the user of the server's access list; null: the default one."""
    password: KeyField | None = None
    """redis: a secret, the password of that user."""
    tls: ClientTLS = Field(default_factory=ClientTLS.model_construct)
    """redis: how a server with TLS is verified, and what it is shown."""
    prefix: Annotated[str, AfterValidator(_prefix)] = "bearer-proxy"
    """redis: what the keys on the server begin with; other configurations that share it take other ones."""
    key: Annotated[StoreKeys | None, BeforeValidator(_listed), WithJsonSchema(_KEYS_SCHEMA)] = None
    """file, redis: a secret, 32 bytes in base64 (bearer-proxy keygen); a list rotates: first seals, all open."""

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        self._has_nothing_of_another_kind()
        if self.kind == "memory":
            return self
        if self.kind == "file" and self.path is None:
            raise ValueError("kind: file needs path: name a folder for the sealed tokens, such as path: tokens")
        if self.kind == "redis" and self.url is None:
            raise ValueError("kind: redis needs url: write the server's, such as url: rediss://redis.example.com")
        if self.key is None:
            raise ValueError(
                f"kind: {self.kind} needs key: run `(umask 077; bearer-proxy keygen > store.key)`, and add "
                "key: {file: store.key}"
            )
        for source in self.key if self.path is not None else ():
            if source.kind == "file" and _real(reader(info).folder / str(source.reference)).is_relative_to(
                _real(self.path or Path())
            ):
                raise ValueError("a key beside what it seals protects nothing: move the key to another folder")
        if self.username is not None and self.password is None:
            raise ValueError("a username needs its password: add password: {env: NAME}")
        if self._has_tls and not self.server.tls:
            raise ValueError("tls is for servers with TLS: write url: rediss://HOST:PORT, or remove tls")
        return self

    def _has_nothing_of_another_kind(self) -> None:
        given = [name for name in _FOR if self._is_given(name)]
        foreign = [name for name in given if _FOR[name] != self.kind]
        if self.kind == "memory" and self.key is not None:
            foreign.append("key")
        if foreign:
            kind = _FOR.get(foreign[0], "file")
            raise ValueError(f"{' and '.join(foreign)}: only for kind: {kind}; write that, or remove the rest")

    def _is_given(self, name: str) -> bool:
        """Is it there, and more than its default?"""
        if name == "tls":
            return self._has_tls
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def _has_tls(self) -> bool:
        return any(value is not None for _name, value in self.tls)

    @property
    def server(self) -> addresses.RedisAddress:
        """Where a store on Redis is."""
        return addresses.redis_server(self.url or "")

    def keys(self) -> tuple[bytes, ...]:
        """The keys, as they are used."""
        return tuple(decoded(source) for source in self.key or ())
