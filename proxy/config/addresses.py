"""Reads the addresses of a configuration: hosts, URLs, origins, paths.

Law: as in `values.py`: pure, `ValueError` with a sentence, and never the value (a URL may hold a password).
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from proxy.routes import Origin

_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?")
_URL_TEXT: Final = re.compile(r"[!-~]+")
_URL_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")

_UNIX_SCHEME: Final = "http+unix://"

#: The longest path that fits into `sockaddr_un` on every system (macOS: 104 bytes with the final NUL).
UNIX_PATH_LONGEST: Final = 103


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis or Valkey server: host and port, or the absolute path of a Unix socket; and one of its databases."""

    host: str
    port: int
    socket: str | None
    database: int
    tls: bool


def is_loopback(host: str) -> bool:
    """Is this a name or address that stays on this machine (RFC 6761 section 6.3)?"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host(value: str) -> str:
    """A host name or address in lower case, without port, an IPv6 address without brackets."""
    lowered = value.lower()
    if lowered.startswith("[") and lowered.endswith("]"):
        lowered = lowered[1:-1]
    if ":" in lowered:
        try:
            return str(ipaddress.IPv6Address(lowered))
        except ValueError:
            raise ValueError("write the host alone, without scheme and port") from None
    if not _HOST_NAME.fullmatch(lowered):
        raise ValueError("write a host name, such as api.example.com (an international one in its xn-- form)")
    return lowered


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65535:
        raise ValueError("write a port between 0 and 65535")
    return int(text)


def url(value: str, *, query: bool) -> tuple[Origin, str]:
    """Origin and path (without trailing slash) of an `http` or `https` URL; `query`: may it have one?"""
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError("write a whole URL that begins with https:// or http://")
    if not _URL_TEXT.fullmatch(value):
        raise ValueError("write the URL in ASCII without spaces (percent-encoded, international names as xn--)")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("write a URL with a proper host and a port between 1 and 65535") from None
    if "@" in parts.netloc:
        raise ValueError("a URL holds no user name or password: move them into a credential")
    if "?" in value and not query:
        raise ValueError("an upstream has no query: remove everything from the '?' on")
    if "#" in value:
        raise ValueError("a URL here has no fragment: remove everything from the '#' on")
    if port == 0 or parts.netloc.endswith(":") or not parts.hostname:
        raise ValueError("write a URL with a proper host and a port between 1 and 65535")
    if not _is_path(parts.path):
        raise ValueError("write a path of plain characters and %XX escapes, without '.' and '..' segments")
    origin = Origin(parts.scheme, host(parts.hostname), port or {"http": 80, "https": 443}[parts.scheme])
    return origin, parts.path.rstrip("/")


def upstream(value: str) -> tuple[Origin, str]:
    """Origin and base path of an upstream.

    One on a Unix socket is `http+unix://`, the absolute path of the socket, and for a base path a colon and that
    path, as nginx has it. In the path of the socket `%XX` stands for what cannot be written there, a colon say.
    """
    if not value.lower().startswith(_UNIX_SCHEME):
        return url(value, query=False)
    sock, colon, path = value[len(_UNIX_SCHEME) :].partition(":")
    decoded = unquote(sock, errors="surrogateescape") if _is_path(sock) else ""
    if (
        not decoded.strip("/")
        or not decoded.isprintable()
        or len(decoded.encode()) > UNIX_PATH_LONGEST
        or not _is_path(path)
        or bool(colon) != bool(path)
    ):
        raise ValueError(
            f"write http+unix:// and the socket's absolute path of at most {UNIX_PATH_LONGEST} bytes, and behind a "
            "colon the base path, if there is one: http+unix:///run/api.sock:/v2"
        )
    return Origin("http", "localhost", 80, decoded), path.rstrip("/")


def _is_path(text: str) -> bool:
    """Is this nothing, or path segments of plain characters and escapes that lead nowhere else?"""
    return bool(_URL_PATH.fullmatch(text)) and not {".", ".."} & set(text.split("/"))


def outbound_proxy(value: str) -> Origin:
    """The origin of an HTTP proxy."""
    if "@" in value:
        raise ValueError(
            "a URL holds no user name or password: write via: {url: http://HOST:PORT, username: NAME, "
            "password: {env: NAME}}"
        )
    if not value.lower().startswith("http://"):
        raise ValueError("write the outbound proxy as http://host:port; inside, https is still https")
    origin, path = url(value, query=False)
    if path:
        raise ValueError("write the outbound proxy without a path, such as http://proxy.example.com:3128")
    return origin


def redis_server(value: str) -> RedisAddress:
    """`redis://host:port/database`, `rediss://` (TLS), or `unix:///path?db=database`; the numbers may lack."""
    if not value.lower().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("write redis://HOST:PORT, rediss://HOST:PORT (with TLS) or unix:///run/redis.sock")
    if not _URL_TEXT.fullmatch(value) or "#" in value:
        raise ValueError("write the URL in ASCII without spaces and '#'")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("write a URL with a proper host and a port between 1 and 65535") from None
    if "@" in parts.netloc or "@" in parts.path or "password" in parts.query:
        raise ValueError(
            "a URL holds no user name or password: write username: NAME and password: {env: NAME} beside it"
        )
    if parts.scheme == "unix":
        return _redis_socket(parts.netloc, unquote(parts.path), parts.query)
    if port == 0 or parts.netloc.endswith(":") or not parts.hostname or parts.query:
        raise ValueError("write redis://HOST:PORT or redis://HOST:PORT/DATABASE, and nothing behind it")
    database = _database(parts.path.removeprefix("/") or "0")
    return RedisAddress(host(parts.hostname), port or 6379, None, database, parts.scheme == "rediss")


def _redis_socket(netloc: str, path: str, query: str) -> RedisAddress:
    if netloc or not path.strip("/") or not path.isprintable() or len(path.encode()) > UNIX_PATH_LONGEST:
        raise ValueError(
            f"write unix:// and the socket's absolute path of at most {UNIX_PATH_LONGEST} bytes: unix:///run/redis.sock"
        )
    word, _equals, number = (query or "db=0").partition("=")
    return RedisAddress("localhost", 6379, path, _database(number if word == "db" else ""), tls=False)


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError("write the number of the database as redis://HOST:PORT/3 or unix:///run/redis.sock?db=3")
    return int(text)


def origin_text(origin: Origin) -> str:
    """An origin as it is written in the configuration."""
    return str(origin) if origin.socket is None else f"{_UNIX_SCHEME}{quote(origin.socket)}"


def credential_origin(value: object) -> Origin:
    """An origin that may get a token: scheme, host and port, nothing behind it."""
    if not isinstance(value, str):
        raise ValueError("write an origin, such as https://api.example.com")  # noqa: TRY004  all are ValueError here
    origin, path = upstream(value)
    if path:
        raise ValueError("write an origin without a path, such as https://api.example.com")
    return origin


def browser_origin(value: str) -> str:
    """An origin as a browser writes it in `Origin` (RFC 6454 section 6.2): lower case, no default port."""
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        raise ValueError("write a browser origin, such as http://localhost:3000, without path and without '*'")
    scheme, host_text, port = match.groups()
    default = {"http": "80", "https": "443"}.get(scheme)
    return f"{scheme}://{host_text}" if port in {None, default} else f"{scheme}://{host_text}:{port}"


def prefix(value: str) -> str:
    """A route's prefix: `/`, or raw path segments without a trailing slash."""
    stripped = value.rstrip("/")
    if value == "/":
        return value
    if not value.startswith("/") or not stripped or not _URL_PATH.fullmatch(stripped):
        raise ValueError("write a prefix that begins with a slash, of plain characters and %XX escapes")
    segments = stripped.split("/")[1:]
    if any(segment in {"", ".", ".."} for segment in segments):
        raise ValueError("write a prefix without empty, '.' and '..' segments")
    if segments[0].startswith("~"):
        raise ValueError("a first segment that begins with '~' is kept for client keys: choose another prefix")
    return stripped


def path_pattern(value: str) -> str:
    """A pattern of `allow` and `deny`: an upstream path in which `*` crosses slashes."""
    if not value.startswith(("/", "*")) or not _URL_TEXT.fullmatch(value) or set(value) & set("?#"):
        raise ValueError("write a path that begins with '/' (or '*'), without a query, such as /v2/invoices/*")
    return value
