"""The models of routes: one upstream each, and how requests reach it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.config import addresses
from proxy.config.clienttls import ClientTLS
from proxy.config.fields import (
    Count,
    HeaderName,
    HeaderValue,
    Host,
    HostHeader,
    InjectField,
    Method,
    Name,
    PathPattern,
    Prefix,
    SecretField,
    Section,
    Size,
    Status,
    Timeout,
    UpstreamURL,
)
from proxy.routes import Origin


def _outbound_proxy(value: str) -> str:
    addresses.outbound_proxy(value)
    return value


def _username(value: str) -> str:
    # RFC 7617 section 2: the first colon is where the password begins.
    if not value or not value.isprintable() or ":" in value:
        raise ValueError("write a user name without colons and control characters")
    return value


class ReplayConfig(Section):
    """How much of a request body is kept, so that the request can be sent again with a newer token."""

    memory: Size = 1 << 20
    """Bytes kept in memory."""
    disk: Size = 64 << 20
    """Bytes beyond them kept in an unlinked temporary file; 0: none."""


class TimeoutsConfig(Section):
    """How long the parts of an exchange may take."""

    token: Timeout = 20.0
    """Waiting for a token."""
    connect: Timeout = 10.0
    """Connecting to the upstream, TLS included."""
    first_byte: Timeout = 60.0
    """From the end of the request to the first byte of the answer."""
    idle: Timeout = 300.0
    """Between two bytes in either direction."""


class PoolConfig(Section):
    """Connections to the upstream."""

    size: Count = 100
    """At most this many at once."""
    idle: Timeout = 15.0
    """How long one may rest before it is closed."""


class TLSConfig(ClientTLS):
    """How the upstream is verified, and what it is shown."""

    server_name: Host | None = None
    """The name that is asked for (SNI) and must be in the certificate; null: the upstream's host."""
    insecure: bool = False
    """true: do not verify; anybody on the way can read the token."""


class ViaConfig(Section):
    """The outbound proxy through which the upstream is reached."""

    url: Annotated[str, AfterValidator(_outbound_proxy)]
    """http://host:port of the outbound proxy."""
    username: Annotated[str, AfterValidator(_username)] | None = None
    """Who we are to it; null: it does not ask."""
    password: SecretField | None = None
    """The password of that user."""

    @property
    def origin(self) -> Origin:
        """Host and port of the outbound proxy."""
        return addresses.outbound_proxy(self.url)

    @model_validator(mode="after")
    def _has_a_pair(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: add the other one")
        return self


def _with_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class PolicyRule(Section):
    """One entry of allow or deny."""

    methods: tuple[Method, ...] | None = None
    """Absent: all methods."""
    paths: tuple[PathPattern, ...] = ("*",)
    """Upstream paths; * crosses slashes."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set or not self.paths or self.methods == ():
            raise ValueError("name at least one path or method, such as {methods: [GET], paths: [/v2/*]}")
        return self


class HeaderRules(Section):
    """Changes to the headers that go upstream."""

    set: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Set, whatever the client sent."""
    remove: tuple[HeaderName, ...] = ()
    """Removed."""


class RewriteConfig(Section):
    """What of an answer is rewritten, so that browsers and other clients stay with the proxy."""

    location: bool = True
    """Location, Content-Location, Link and Refresh: the upstream's own address becomes the proxy's."""
    cookies: bool = True
    """Set-Cookie: without Domain and Secure, Path moved along with the route."""
    cors: bool = True
    """Access-Control-*: the upstream's grants give way to those for guard.origins."""
    hsts: bool = True
    """Strict-Transport-Security, Alt-Svc, Clear-Site-Data and their like are dropped."""


class RouteConfig(Section):
    """One upstream, and where it appears."""

    name: Name
    """Appears in logs and metrics; default: from the prefix."""
    prefix: Prefix = "/"
    """Path prefix; the longest match on a segment boundary wins."""
    strip_prefix: bool = True
    """false: the upstream sees the prefix."""
    host: Host | None = None
    """Only requests for this host."""
    upstream: UpstreamURL
    """The URL of the upstream; its path is put before that of the request."""
    credential: str | None = None
    """The name of a credential; absent: the client's own credentials pass."""
    inject: InjectField = "overwrite"
    """What happens to a credential that the client sends: overwrite, if-absent or {replace: PLACEHOLDER}."""
    refresh_on: tuple[Status, ...] = (401, 403)
    """Statuses that may mean that the token is expired."""
    replay: ReplayConfig = Field(default_factory=ReplayConfig.model_construct)
    """How much of a request body is kept for a repetition."""
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig.model_construct)
    """How long things may take."""
    pool: PoolConfig = Field(default_factory=PoolConfig.model_construct)
    """Connections to the upstream."""
    tls: TLSConfig = Field(default_factory=TLSConfig.model_construct)
    """How the upstream is verified, and what it is shown."""
    via: Annotated[ViaConfig | None, BeforeValidator(_with_url, json_schema_input_type=str | ViaConfig | None)] = (
        None
    )
    """The outbound proxy through which the upstream is reached: http://host:port, or {url, username, password}."""
    insecure_http: bool = False
    """true: plain http to something that is not loopback."""
    host_header: HostHeader = "upstream"
    """upstream, client, or a literal."""
    forwarded: bool = False
    """true: send X-Forwarded-For, -Host, -Proto."""
    rewrite: RewriteConfig = Field(default_factory=RewriteConfig)
    """What of an answer is rewritten for browsers."""
    allow: tuple[PolicyRule, ...] | None = None
    """When given, everything else is denied."""
    deny: tuple[PolicyRule, ...] = ()
    """Denied, even where allow holds; added to the preset's."""
    headers: HeaderRules = Field(default_factory=HeaderRules.model_construct)
    """Headers to set and remove."""
    token_guard: Literal["off", "alarm"] = "off"  # noqa: S105  a switch
    """alarm: notice the token in the bodies of answers, count and log it; no byte is changed."""

    @property
    def upstream_origin(self) -> Origin:
        """Scheme, host and port of the upstream."""
        return addresses.upstream(self.upstream)[0]

    @property
    def base_path(self) -> str:
        """The path of the upstream URL without trailing slash; empty for the root."""
        return addresses.upstream(self.upstream)[1]
