"""Which route a request takes, and the bytes of its target at the upstream.

Law: paths and queries are the raw bytes that came. They are cut and joined, never decoded and written again; the
upstream's origin is fixed by the config and no byte of a request can change it (threats 23, 29).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.errors import BadTarget, NoRoute, PathDenied
from proxy.globs import glob_expression

#: A path of honest software has a handful of readings; one made of hundreds of escapes and dots must not cost
#: seconds to look at (threat 118). Nor must a long one: each step looks at a whole reading, and so does each rule.
_MOST_READINGS: Final = 100
#: Bytes of all readings together: a path as long as `limits.header_bytes` has it by default may have one escape.
_MOST_READ: Final = 64 * 1024

#: What a request target may hold: printable ASCII except `#`; escapes are complete and never NUL.
_TARGET: Final = re.compile(rb"/(?:[!\"$&-~]|%(?!00)[0-9A-Fa-f]{2})*")
#: All of that but escapes; nearly every target is made of nothing else, and this sees it in half the time.
_TARGET_BYTES: Final = bytes(byte for byte in range(0x21, 0x7F) if byte not in b"#%")
#: What is left out of an authority.
_OWN_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """A scheme, a host (an IPv6 address without brackets) and a port.

    An upstream on a Unix socket is `http://localhost` to itself; `socket` is the path under which we reach it.
    """

    scheme: str
    host: str
    port: int
    socket: str | None = None

    @property
    def authority(self) -> str:
        """As in a Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _OWN_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`: methods (None: all) and path patterns in which `*` crosses `/`."""

    methods: frozenset[str] | None
    paths: tuple[str, ...]

    def __str__(self) -> str:
        """In a line, for people."""
        methods = "all methods" if self.methods is None else ", ".join(sorted(self.methods))
        return f"{methods} of {', '.join(self.paths)}"


class Policy:
    """`allow` and `deny` of a route, asked for every reading of the upstream path (threat 28).

    `deny` holds if any reading matches, case-insensitively; `allow` only if every reading does. `only`: how people
    are told of a request that is beyond `allow`, whose rules follow.
    """

    __slots__ = ("_allow", "_beyond", "_deny")

    def __init__(
        self, allow: Iterable[Rule] | None, deny: Iterable[Rule], *, only: str = "no entry of allow holds: "
    ) -> None:
        rules = list(allow or ())
        self._allow = None if allow is None else [(rule.methods, _pattern(rule.paths, 0)) for rule in rules]
        self._beyond = only + "; ".join(map(str, rules))
        self._deny = [(rule.methods, _pattern(rule.paths, re.IGNORECASE), f"deny: {rule}") for rule in deny]

    @property
    def has_rules(self) -> bool:
        """Is there anything that may not pass?"""
        return self._allow is not None or bool(self._deny)

    def check(self, method: str, path: bytes) -> None:
        """Raise `PathDenied` unless `method` may go to this upstream path."""
        if not self._deny and self._allow is None:
            return
        # Nearly every path can be read in one way only.
        seen = {path.decode("latin-1")} if _PLAIN.fullmatch(path) else readings(path)
        for methods, pattern, told in self._deny:
            if (methods is None or method in methods) and any(
                pattern.fullmatch(each) or pattern.fullmatch(each + "/") for each in seen
            ):
                raise PathDenied(told)
        if self._allow is None:
            return
        allowed = [pattern for methods, pattern in self._allow if methods is None or method in methods]
        if not all(any(pattern.fullmatch(each) for pattern in allowed) for each in seen):
            raise PathDenied(self._beyond)


#: No escape, no backslash, no parameter; no segment is empty or made of dots.
_PLAIN: Final = re.compile(rb"(?:/[!-$&-.0-:<-\[\]-~](?<!/\.)[!-$&-.0-:<-\[\]-~]*)*/?")


def _pattern(paths: Iterable[str], flags: int) -> re.Pattern[str]:
    alternatives = "|".join(map(glob_expression, paths))
    # `/admin` also means `/admin/`; that `/auth/*` also denies `/auth` is up to `Policy.check`.
    return re.compile(f"(?:{alternatives})/?", flags | re.DOTALL)


def readings(path: bytes) -> set[str]:
    """Every way in which an upstream might read this path.

    Raw, decoded once and twice; before, between and behind that, in any order: backslashes as slashes, without
    `;parameters`, dot segments removed, slashes merged, only the unreserved characters decoded, and cut where a `?`
    or a `#` was escaped. Raises `BadTarget` where there are too many, or they are too long together.
    """
    return {each.decode("latin-1") for each in _readings(path)}


def _readings(path: bytes) -> set[bytes]:
    # What a reading leads to does not depend on how often it was decoded before: only the new ones are looked at.
    found: set[bytes] = set()
    once = set(map(unquote_to_bytes, _in_any_order({path}, found)))
    twice = set(map(unquote_to_bytes, _in_any_order(once, found)))
    _in_any_order(twice, found)
    return found


def _in_any_order(paths: Iterable[bytes], found: set[bytes]) -> list[bytes]:
    """Add `paths` to `found`, and all that `_STEPS` make of them; gives what was not there before.

    It ends, since no step makes a path longer or less plain.
    """
    new = [path for path in paths if path not in found]
    found.update(new)
    left, read = new.copy(), sum(map(len, found))
    while left:
        path = left.pop()
        for step in _STEPS:
            other = step(path)
            if other not in found:
                found.add(other)
                new.append(other)
                left.append(other)
                read += len(other)
            if len(found) > _MOST_READINGS or read > _MOST_READ:
                raise BadTarget("The path can be read in too many ways: write it without dot segments and escapes.")
    return new


def _with_slashes(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _without_parameters(path: bytes) -> bytes:
    return re.sub(rb";[^/]*", b"", path)


def _merged(path: bytes) -> bytes:
    return re.sub(rb"/{2,}", b"/", path)


#: `-`, `.`, digits, `_`, letters, `~`: escaped or not, they mean the same (RFC 3986 section 6.2.2.2).
_UNRESERVED = re.compile(rb"%(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")


def _cut(path: bytes) -> bytes:
    """As a server reads it that decodes before it looks for the query (no path holds these as it comes)."""
    return re.split(rb"[?#]", path, maxsplit=1)[0]


def _with_plain_letters(path: bytes) -> bytes:
    return _UNRESERVED.sub(lambda match: unquote_to_bytes(match[0]), path)


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4 for an absolute path."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1:] in ([b"."], [b".."]):
        kept.append(b"")
    return b"/" + b"/".join(kept)


_STEPS: Final = (_with_slashes, _without_parameters, _with_plain_letters, _merged, _without_dots, _cut)


_ESCAPED_DOT: Final = re.compile(rb"%2[Ee5]")


def climbs(path: bytes) -> bool:
    """Would dot segments in `path`, in any reading, lead above where it begins?"""
    # No dot segment without one of these; `%25` may be the beginning of a dot that is escaped twice.
    if path.find(b"..") < 0 and (path.find(b"%") < 0 or not _ESCAPED_DOT.search(path)):
        return False
    return any(map(_climbs, _readings(path)))


def _climbs(path: bytes) -> bool:
    depth = 0
    for segment in path.split(b"/"):
        if segment == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif segment not in (b"", b"."):
            # An empty segment adds no depth: a server that merges slashes does not count it.
            depth += 1
    return False


#: Everything may pass.
NO_POLICY: Final = Policy(None, ())


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `routes`: where it begins, and where it leads.

    `prefix` and `base_path` are raw ASCII bytes without a trailing slash (`b""` for the root).
    """

    name: str
    upstream: Origin
    prefix: bytes = b""
    base_path: bytes = b""
    strip_prefix: bool = True
    host: str | None = None
    policy: Policy = NO_POLICY

    def target(self, path: bytes) -> bytes:
        """The path at the upstream for a request path that this route matched.

        Raises `BadTarget` where dot segments would climb above the route.
        """
        rest = path[len(self.prefix) :]
        if climbs(rest):
            raise BadTarget
        return self.base_path + (rest if self.strip_prefix else path) or b"/"


def split_target(target: bytes) -> tuple[bytes, bytes | None]:
    """Path and query (None: there is no `?`) of an origin-form target (RFC 9112 section 3.2.1).

    Raises `BadTarget` for every other form and for characters that no target may hold.
    """
    if (target.translate(None, _TARGET_BYTES) or not target.startswith(b"/")) and not _TARGET.fullmatch(target):
        raise BadTarget
    mark = target.find(b"?")
    return (target, None) if mark < 0 else (target[:mark], target[mark + 1 :])


class RouteTable:
    """Finds the route of a request: by host if any route names it, then by the longest prefix."""

    __slots__ = ("_anywhere", "_by_host")

    def __init__(self, routes: Iterable[Route]) -> None:
        ordered = sorted(routes, key=lambda route: len(route.prefix), reverse=True)
        self._anywhere = tuple(route for route in ordered if route.host is None)
        self._by_host: dict[str, tuple[Route, ...]] = {}
        for route in ordered:
            if route.host is not None:
                self._by_host[route.host] = (*self._by_host.get(route.host, ()), route)

    def find(self, host: str, path: bytes) -> Route:
        """The route for a lower-case `host` without port and a raw path; raises `NoRoute`."""
        for route in self._by_host.get(host, self._anywhere):
            prefix = route.prefix
            # On a segment boundary: /bill does not match /billing.
            if not prefix or path == prefix or path.startswith(prefix + b"/"):
                return route
        raise NoRoute

    def __iter__(self) -> Iterator[Route]:
        for routes in self._by_host.values():
            yield from routes
        yield from self._anywhere
