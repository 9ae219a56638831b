"""Where the proxy listens, as it is written in a configuration.

Law: as in `values.py`: pure, and `ValueError` with a sentence that never repeats the value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema

from proxy.config.addresses import UNIX_PATH_LONGEST, host, is_loopback

#: Of a Unix socket that is the owner's alone.
PRIVATE_MODE: Final = 0o600
_MODE: Final = re.compile(r"0?6(?:00|60|66)")
#: What a group needs to connect, and what everybody needs.
_FOR_GROUP: Final = 0o060
_FOR_ALL: Final = 0o006


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (an IPv6 address without brackets) and a port; port 0 takes a free one.

    `reuse_port`: other instances of the same user may listen there too.
    """

    host: str
    port: int
    reuse_port: bool = False

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The absolute path of a Unix socket, its mode, and its group by name or number (None: the process's)."""

    path: str
    mode: int = PRIVATE_MODE
    group: str | None = None

    @property
    def is_shared(self) -> bool:
        """May others than the owner connect?"""
        return self.mode != PRIVATE_MODE

    @property
    def is_open_to_all(self) -> bool:
        """May every user of the machine connect?"""
        return bool(self.mode & _FOR_ALL)

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """What the service manager listens on and passes to the process, less what other addresses name."""

    def __str__(self) -> str:
        return "systemd"


ListenAddress = TcpAddress | UnixAddress | PassedSockets


def listen_address(value: object) -> ListenAddress:
    """`host:port`, `unix:/path`, `systemd`, or a mapping: `tcp`, `reuse_port`, or `unix`, `mode`, `group`."""
    if isinstance(value, TcpAddress | UnixAddress | PassedSockets):
        return value
    if value == "systemd":
        return PassedSockets()
    if isinstance(value, Mapping):
        return _unix(value) if "unix" in value else _tcp(value)
    if not isinstance(value, str):
        raise ValueError("write an address with its host, such as 127.0.0.1:8080")  # noqa: TRY004  all are ValueError here
    if value.startswith("unix:"):
        return UnixAddress(_socket_path(value.removeprefix("unix:")))
    before, colon, after = value.rpartition(":")
    if not colon or not before or (":" in before and not before.startswith("[")):
        raise ValueError("write an address with its host, such as 127.0.0.1:8080 or [::1]:8080")
    return TcpAddress(host(before), _port(after))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65535:
        raise ValueError("write a port between 0 and 65535")
    return int(text)


def _socket_path(path: str) -> str:
    if (
        not path.startswith("/")
        or not path.isprintable()
        or len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_LONGEST
    ):
        raise ValueError(f"write an absolute path of at most {UNIX_PATH_LONGEST} bytes, such as unix:/run/p.sock")
    return path


def _tcp(value: Mapping[object, object]) -> TcpAddress:
    reuse_port = value.get("reuse_port", False)
    if "tcp" not in value or value.keys() - {"tcp", "reuse_port"} or not isinstance(reuse_port, bool):
        raise ValueError("write host:port, or {tcp: HOST:PORT, reuse_port: true} for a port of several instances")
    address = listen_address(value["tcp"])
    if not isinstance(address, TcpAddress):
        raise ValueError("write tcp: and an address with its host, such as 127.0.0.1:8080")  # noqa: TRY004  as above
    if reuse_port and not address.port:
        raise ValueError("a port that several instances share is one that they know: write it instead of 0")
    return replace(address, reuse_port=reuse_port)


def _unix(value: Mapping[object, object]) -> UnixAddress:
    path, mode, group = value["unix"], str(value.get("mode", "0600")), value.get("group")
    if value.keys() - {"unix", "mode", "group"} or not isinstance(path, str):
        raise ValueError(
            "write unix:/path, or {unix: /path, mode: 0660, group: NAME} for a socket of several users"
        )
    if not _MODE.fullmatch(mode):
        raise ValueError("write the mode as 0600, 0660 (the group may connect, too) or 0666 (everybody)")
    if group is not None and (not isinstance(group, str | int) or isinstance(group, bool) or not str(group)):
        raise ValueError("write the name or the number of a group")
    address = UnixAddress(_socket_path(path), int(mode, 8), None if group is None else str(group))
    if group is not None and not address.mode & _FOR_GROUP:
        raise ValueError("with this mode the group may not connect: add mode: 0660, or leave group out")
    return address


def written(address: ListenAddress) -> str | dict[str, str | bool]:
    """An address as it is written in a configuration."""
    if isinstance(address, TcpAddress):
        return {"tcp": str(address), "reuse_port": True} if address.reuse_port else str(address)
    if isinstance(address, PassedSockets) or not address.is_shared:
        return str(address)
    group = {} if address.group is None else {"group": address.group}
    return {"unix": address.path, "mode": f"{address.mode:04o}", **group}


def _addresses(value: object) -> object:
    return value if isinstance(value, tuple | list) else (value,)


def _some(given: tuple[ListenAddress, ...]) -> tuple[ListenAddress, ...]:
    if not given:
        raise ValueError("name at least one address, such as 127.0.0.1:8080")
    return given


def _tcp_address(value: object) -> TcpAddress:
    address = listen_address(value)
    if not isinstance(address, TcpAddress) or address.reuse_port:
        raise ValueError("write host:port, such as 127.0.0.1:8081, or null")
    return address


_ADDRESS_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "examples": ["127.0.0.1:8080", "unix:/run/p.sock", "systemd"],
}
_SHARED_PORT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "tcp": {"type": "string", "examples": ["127.0.0.1:8080"]},
        "reuse_port": {"type": "boolean", "description": "true: several instances of one user share the port."},
    },
    "required": ["tcp"],
    "additionalProperties": False,
}
_SHARED_SOCKET_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "unix": {"type": "string", "examples": ["/run/p.sock"]},
        "mode": {
            "type": ["string", "integer"],
            "examples": ["0660"],
            "description": "0600, 0660 (the group may connect, too) or 0666 (everybody).",
        },
        "group": {"type": ["string", "integer"], "description": "The name or the number of the group."},
    },
    "required": ["unix"],
    "additionalProperties": False,
}
_LISTEN_SCHEMA: Final[dict[str, Any]] = {"anyOf": [_ADDRESS_SCHEMA, _SHARED_PORT_SCHEMA, _SHARED_SOCKET_SCHEMA]}

Listen = Annotated[
    tuple[
        Annotated[ListenAddress, PlainValidator(listen_address), WithJsonSchema(_LISTEN_SCHEMA)],
        ...,
    ],
    BeforeValidator(_addresses),
    AfterValidator(_some),
    WithJsonSchema(
        {"anyOf": [*_LISTEN_SCHEMA["anyOf"], {"type": "array", "items": _LISTEN_SCHEMA, "minItems": 1}]}
    ),
]
TcpListen = Annotated[
    TcpAddress,
    PlainValidator(_tcp_address),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8081"]}),
]
