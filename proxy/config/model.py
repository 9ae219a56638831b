"""The configuration as a value: always in its long form, every default filled in, every secret read."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from proxy.config.credentials import CredentialConfig, StaticCredential
from proxy.config.fields import (
    SECRET_NAME,
    BrowserOrigin,
    Count,
    Host,
    Method,
    Name,
    PathPattern,
    PeerUids,
    SecretField,
    Section,
    Size,
    Timeout,
    Variable,
)
from proxy.config.listeners import Listen, TcpAddress, TcpListen
from proxy.config.problems import KeyPath
from proxy.config.routing import RouteConfig
from proxy.config.secrets import SecretSource
from proxy.config.store import StoreConfig
from proxy.config.tracing import TracingConfig
from proxy.injection import Replace
from proxy.redact import Borrowed, Secret

#: Client keys go into headers, cookies, passwords and path segments, so no character needs quoting anywhere.
_CLIENT_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,}")


def _local_key(source: SecretSource) -> SecretSource:
    if not _CLIENT_KEY.fullmatch(source.value.reveal()):
        raise ValueError(
            "a key has at least 16 characters, all of them letters, digits, '_' or '-': choose such a one"
        )
    return source


LocalKey = Annotated[SecretField, AfterValidator(_local_key)]


class ClientKeyConfig(Section):
    """One client's own key."""

    key: LocalKey
    """The secret that this client sends."""
    methods: tuple[Method, ...] | None = None
    """The methods that it may use; null: all."""
    paths: tuple[PathPattern, ...] = ("*",)
    """The paths that it may ask for, with the route's prefix; * crosses slashes."""

    @model_validator(mode="after")
    def _allows_something(self) -> Self:
        if not self.paths or self.methods == ():
            raise ValueError("with this key nothing may be done: name methods and paths, or leave them out")
        return self


class PeersConfig(Section):
    """Which users of this machine may connect (Linux)."""

    uids: PeerUids = None
    """any, or a list of users: self (the proxy's own) and numbers; null: [self], with client keys any."""


class GuardConfig(Section):
    """Which local requests are admitted."""

    hosts: tuple[Host, ...] = ()
    """Host names besides localhost, 127.0.0.1, [::1] and the routes' hosts."""
    origins: tuple[BrowserOrigin, ...] = ()
    """Browser origins that may call."""
    client_key: LocalKey | None = None
    """A secret that clients must send; needed beyond loopback."""
    client_keys: dict[Name, ClientKeyConfig] = Field(default_factory=dict)
    """Secrets of single clients, by the client's name in the log."""
    peers: PeersConfig = Field(default_factory=PeersConfig.model_construct)
    """Which users of this machine may connect."""
    browser: bool = False
    """true: a browser may open what the upstream has as a page."""

    @property
    def has_keys(self) -> bool:
        """Must a client send a key?"""
        return self.client_key is not None or bool(self.client_keys)


_MOST_EXCHANGES: Final = 100_000


def _kept(count: int) -> int:
    if not 0 <= count <= _MOST_EXCHANGES:
        raise ValueError(f"write a number from 0 to {_MOST_EXCHANGES}")
    return count


class InspectorConfig(Section):
    """What the page of the admin listener shows."""

    exchanges: Annotated[int, AfterValidator(_kept)] = 500
    """How many of the last exchanges are kept, masked; 0: there is no page."""
    bodies: Annotated[Size, AfterValidator(lambda size: _at_most(size, 1 << 20))] = 0
    """Bytes kept of each body, masked; 0: none until it is switched on in the page. 1MiB at most. Each
    exchange then takes some 2.3 times the memory of what is kept of both its bodies."""


def _no_inspector(value: object) -> object:
    return {"exchanges": 0} if value is False else value


class AdminConfig(Section):
    """The admin listener: health, metrics, states."""

    listen: TcpListen | None = TcpAddress("127.0.0.1", 8081)
    """host:port; null: off."""
    key: LocalKey | None = None
    """null: a random one per start, in the run file."""
    inspector: Annotated[
        InspectorConfig, BeforeValidator(_no_inspector, json_schema_input_type=InspectorConfig | Literal[False])
    ] = Field(default_factory=InspectorConfig)
    """The page that shows requests; false: there is none, and nothing is kept."""

    @property
    def listen_is_default(self) -> bool:
        """Was the address not chosen, so that a free port will do if it is taken?"""
        return "listen" not in self.model_fields_set


class LogConfig(Section):
    """What is logged to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe event that is logged."""
    format: Literal["text", "json"] = "text"
    """One line an event, as text or JSON."""
    access: bool = True
    """A line for every request."""


class LimitsConfig(Section):
    """Bounds on what clients may do."""

    connections: Count = 1000
    """Connections at once."""
    header_bytes: Annotated[Size, AfterValidator(lambda size: _at_least(size, 1024))] = 32 * 1024
    """Bytes of a header section."""
    header_time: Timeout = 30.0
    """Time for a header section to arrive."""
    idle: Timeout = 75.0
    """How long a connection may rest between requests."""
    body_bytes: Size | None = None
    """Bytes of a request body; null: no limit."""
    drain: Timeout = 25.0
    """How long requests in flight may take to end on shutdown."""


class ExecConfig(Section):
    """What the program is given that `exec` starts."""

    env: dict[Variable, str] = Field(default_factory=dict)
    """Further variables that hold the URL of a route, by the route's name: API_BASE_URL: billing."""


def _at_most(size: int, most: int) -> int:
    if size > most:
        raise ValueError("write at most 1MiB")
    return size


def _at_least(size: int, least: int) -> int:
    if size < least:
        raise ValueError(f"write at least {least}: less than that holds no request")
    return size


class Config(Section):
    """The whole configuration."""

    listen: Listen = (TcpAddress("127.0.0.1", 8080),)
    """host:port, unix:/path, or one of the mappings below; or a list of them; port 0 takes a free one."""
    routes: tuple[RouteConfig, ...]
    """The upstreams."""
    credentials: dict[Name, CredentialConfig] = Field(default_factory=dict)
    """The credentials by name."""
    guard: GuardConfig = Field(default_factory=GuardConfig.model_construct)
    """Which local requests are admitted."""
    admin: AdminConfig = Field(default_factory=AdminConfig.model_construct)
    """The admin listener."""
    store: StoreConfig = Field(default_factory=StoreConfig.model_construct)
    """Where tokens rest."""
    log: LogConfig = Field(default_factory=LogConfig.model_construct)
    """What is logged."""
    limits: LimitsConfig = Field(default_factory=LimitsConfig.model_construct)
    """Bounds on what clients may do."""
    exec: ExecConfig = Field(default_factory=ExecConfig.model_construct)
    """What the program is given that `exec` starts."""
    tracing: TracingConfig = Field(default_factory=TracingConfig.model_construct)
    """Where spans of requests go, if anywhere."""
    warnings: list[str] = Field(default_factory=list, exclude=True)
    """What is allowed but doubtful, one sentence each."""

    def secrets(self) -> Iterator[tuple[KeyPath, SecretSource]]:
        """Every secret of the configuration with its key path, so that each can be registered for masking."""
        for section in ("routes", "credentials", "guard", "admin", "store"):
            yield from secrets_in(getattr(self, section), (section,))

    def withheld(self) -> frozenset[str]:
        """The variables of the environment that hold a secret of this configuration: no program gets them."""
        return frozenset(
            source.reference
            for _, source in self.secrets()
            if source.kind == "env" and isinstance(source.reference, str)
        )

    def literals(self) -> Iterator[Secret]:
        """What is written out and may be secret all the same: placeholders, and header fields with such names."""
        for route in self.routes:
            if isinstance(route.inject, Replace):
                yield Secret(route.inject.placeholder.decode("ascii"))
        fields = [route.headers.set for route in self.routes]
        fields += [credential.headers for credential in self.credentials.values()]
        for name, value in (each for constants in fields for each in constants.items()):
            if SECRET_NAME.search(name):
                yield Secret(value)


def secrets_in(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, SecretSource]]:  # noqa: ANN401  any part of a model
    """Every secret below `value` with its key path."""
    if isinstance(value, SecretSource):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_in(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from secrets_in(each, (*path, key))
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from secrets_in(each, (*path, index))


def borrowed_in(value: Any) -> tuple[Borrowed, ...]:  # noqa: ANN401  any part of a model
    """What stands on the life of other credentials below `value`; a constant of another one does not."""
    found = (source.value for _path, source in secrets_in(value))
    return tuple(each for each in found if isinstance(each, Borrowed) and not each.is_given)


def give_constants(credentials: Mapping[str, CredentialConfig]) -> None:
    """Give the tokens of type `static` to whoever borrows them; a whole token that is borrowed stays one life."""
    for given in credentials.values():
        for each in () if isinstance(given, StaticCredential) else borrowed_in(given):
            lender = credentials[each.lender]
            if isinstance(lender, StaticCredential) and not borrowed_in(lender):
                each.give(lender.token.value)


def owner_of(credentials: Mapping[str, CredentialConfig], name: str) -> str:
    """The credential whose token `name` sends: itself, or the one that lends it its whole token."""
    seen: set[str] = set()
    while name in credentials and name not in seen:
        seen.add(name)
        given = credentials[name]
        lent = borrowed_in(given) if isinstance(given, StaticCredential) else ()
        if not lent or lent[0].lender not in credentials:
            break
        name = lent[0].lender
    return name
