"""The model of the section `store`: where tokens rest, and what seals them there."""

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema, model_validator

from proxy.config.fields import REFERENCE_SCHEMA, SecretField, Section, reader
from proxy.config.secrets import SecretSource

#: AES-256.
_KEY_BYTES: Final = 32


def decoded(source: SecretSource) -> bytes:
    """The bytes of a store key. Raises `ValueError` where it is none."""
    try:
        key = base64.b64decode(source.value.reveal().strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("a store key is 32 bytes in base64: make one with `bearer-proxy keygen`")
    return key


def _store_key(source: SecretSource) -> SecretSource:
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


_KEYS_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        *REFERENCE_SCHEMA["anyOf"],
        {"type": "array", "items": REFERENCE_SCHEMA, "minItems": 1},
        {"type": "null"},
    ]
}
Folder = Annotated[Path | None, BeforeValidator(_folder), WithJsonSchema({"type": ["string", "null"]})]
StoreKeys = Annotated[tuple[Annotated[SecretField, AfterValidator(_store_key)], ...], AfterValidator(_some)]


class StoreConfig(Section):
    """Where tokens rest."""

    kind: Literal["memory", "file"] = "memory"
    """memory: gone with the process; file: sealed files in a folder, which survive a restart."""
    path: Folder = None
    """file: the folder; it is made where it does not exist."""
    key: Annotated[StoreKeys | None, BeforeValidator(_listed), WithJsonSchema(_KEYS_SCHEMA)] = None
    """file: a secret, 32 bytes in base64 (bearer-proxy keygen); a list rotates: the first seals, all open."""

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Self:
        given = {"path": self.path, "key": self.key}
        if self.kind == "memory":
            superfluous = " and ".join(name for name, value in given.items() if value is not None)
            if superfluous:
                raise ValueError(f"{superfluous}: only for kind: file; write that, or remove the rest")
            return self
        if self.path is None:
            raise ValueError("kind: file needs path: name a folder for the sealed tokens, such as path: tokens")
        if self.key is None:
            raise ValueError(
                "kind: file needs key: run `(umask 077; bearer-proxy keygen > store.key)`, and add "
                "key: {file: store.key}"
            )
        for source in self.key:
            if source.kind == "file" and (reader(info).folder / str(source.reference)).is_relative_to(self.path):
                raise ValueError("a key beside what it seals protects nothing: move the key to another folder")
        return self

    def keys(self) -> tuple[bytes, ...]:
        """The keys, as they are used."""
        return tuple(decoded(source) for source in self.key or ())
