"""The refusals that need more than one key: what fits together, and what is safe together.

Law: nothing is read and nothing is changed here; each check takes the parts that are valid by themselves and notes
problems at their key paths.
"""

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from proxy.config import addresses
from proxy.config.credentialchecks import CREDENTIAL_CHECKS
from proxy.config.draft import Draft
from proxy.config.exported import check_exported
from proxy.config.listeners import ListenAddress, TcpAddress, UnixAddress
from proxy.config.model import Config, GuardConfig
from proxy.config.problems import KeyPath, Problems
from proxy.offlimits import is_metadata, is_off_limits
from proxy.routes import Origin

#: What `forwarded: true` sends.
_FORWARDED: Final = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


def check(draft: Draft, problems: Problems) -> None:
    """Every check on every part that is there."""
    for each in _CHECKS:
        each(draft, problems)


def _listeners(draft: Draft, problems: Problems) -> None:
    # As text: one that shares its port and one that does not are the same address.
    taken: set[str] = set()
    for index, address in enumerate(draft.listen):
        if str(address) in taken and not (isinstance(address, TcpAddress) and not address.port):
            problems.add(("listen", index), "this address is there twice: remove one")
        taken.add(str(address))
        if draft.guard and not draft.guard.has_keys:
            _without_a_key(address, index, draft.guard, problems)
    admin = draft.admin
    if admin and admin.listen and admin.listen.port and not admin.listen_is_default and str(admin.listen) in taken:
        problems.add(("admin", "listen"), "this address is taken by listen: choose another port")


def _without_a_key(address: ListenAddress, index: int, guard: GuardConfig, problems: Problems) -> None:
    if isinstance(address, TcpAddress) and not address.is_loopback:
        sentence = "others can reach this address: set guard.client_key, or listen on 127.0.0.1"
        problems.add(("listen", index), sentence)
    if isinstance(address, UnixAddress) and address.is_open_to_all and guard.peers.uids in (None, "any"):
        sentence = "every user of this machine may connect: set guard.client_key, or write mode: 0660 and a group"
        problems.add(("listen", index), sentence)


def _far_peers(draft: Draft, problems: Problems) -> None:
    """Whoever comes from another machine is no user of this one."""
    if draft.guard is None or draft.guard.peers.uids in (None, "any"):
        return
    if any(isinstance(each, TcpAddress) and not each.is_loopback for each in draft.listen):
        sentence = "only users of this machine may connect, although others can reach it: write uids: any"
        problems.warn(("guard", "peers", "uids"), sentence)


def _untold_names(draft: Draft, problems: Problems) -> None:
    """To a name outside of localhost browsers send no Fetch Metadata over plain HTTP (its section 2, threat 2)."""
    guard = draft.guard
    if guard is None or guard.has_keys or all(isinstance(each, UnixAddress) for each in draft.listen):
        return
    names: list[tuple[KeyPath, str]] = [(("guard", "hosts", at), name) for at, name in enumerate(guard.hosts)]
    names += [(("routes", at, "host"), route.host) for at, route in draft.routes.items() if route.host is not None]
    for path, name in names:
        if not addresses.is_loopback(name.strip("[]")):
            sentence = (
                "browsers do not tell this name which page asks: set guard.client_key, or end it in .localhost"
            )
            problems.warn(path, sentence)


def _same_keys(draft: Draft, problems: Problems) -> None:
    """Two clients with one key would be one client, with the rules of one of them."""
    guard = draft.guard
    if guard is None:
        return
    seen = [] if guard.client_key is None else [guard.client_key.value]
    for name, each in guard.client_keys.items():
        if each.key.value in seen:
            problems.add(("guard", "client_keys", name, "key"), "another client has this key: choose another")
        seen.append(each.key.value)


def _same_routes(draft: Draft, problems: Problems) -> None:
    places: dict[tuple[str | None, str], int] = {}
    names: dict[str, int] = {}
    for index, route in draft.routes.items():
        first = places.setdefault((route.host, route.prefix), index)
        if first != index:
            sentence = f"this route matches the same requests as {draft.routes[first].name}: change prefix or host"
            problems.add(("routes", index, "prefix"), sentence)
        elif names.setdefault(route.name, index) != index:
            problems.add(("routes", index, "name"), "another route has this name: choose another")


def _plain_redis(draft: Draft, problems: Problems) -> None:
    store = draft.store
    if store is None or store.url is None or store.password is None:
        return
    if not store.server.tls and store.server.socket is None and not addresses.is_loopback(store.server.host):
        problems.warn(("store", "url"), "redis:// shows the password to the network: write rediss://")


def _plain_http(draft: Draft, problems: Problems) -> None:
    for index, route in draft.routes.items():
        origin = route.upstream_origin
        # Through an outbound proxy, localhost is another machine's.
        is_far = _is_exposed(origin) or (
            origin.scheme == "http" and route.via is not None and origin.socket is None
        )
        if is_far and not route.insecure_http:
            sentence = "plain http shows the token to the network: write https://, or set insecure_http: true"
            problems.add(("routes", index, "upstream"), sentence)
        if origin.socket is not None and route.via is not None:
            sentence = "a Unix socket is on this machine: remove via, or write the upstream's https:// URL"
            problems.add(("routes", index, "via"), sentence)
        if route.tls.insecure:
            problems.warn(
                ("routes", index, "tls", "insecure"), "anybody on the way to the upstream can read the token"
            )
    for name, credential in draft.credentials.items():
        for path, url in () if getattr(credential, "insecure_http", False) else credential.urls().items():
            if _is_exposed(addresses.url(url, query=True)[0]):
                sentence = "plain http shows the secrets to the network: write https://, or set insecure_http: true"
                problems.add(("credentials", name, *path), sentence)


def _is_exposed(origin: Origin) -> bool:
    return origin.scheme == "http" and not addresses.is_loopback(origin.host)


def _loops(draft: Draft, problems: Problems) -> None:
    own = list(draft.listen)
    if draft.admin and draft.admin.listen and not draft.admin.listen_is_default:
        own.append(draft.admin.listen)
    for index, route in draft.routes.items():
        if any(_reaches(route.upstream_origin, address) for address in own):
            sentence = "this is the proxy's own address, a loop: write the address of the upstream"
            problems.add(("routes", index, "upstream"), sentence)
        if route.via is not None and any(_reaches(route.via.origin, address) for address in own):
            sentence = "this is the proxy's own address, a loop: write the address of the outbound proxy"
            problems.add(("routes", index, "via"), sentence)


def meets_admin(config: Config) -> bool:
    """Does a route lead, or its outbound proxy, to where the admin listener is where nobody says where?"""
    address = config.admin.listen
    if address is None or not config.admin.listen_is_default:
        return False
    ways = [route.upstream_origin for route in config.routes]
    ways += [route.via.origin for route in config.routes if route.via is not None]
    return any(_reaches(origin, address) for origin in ways)


def _reaches(origin: Origin, address: ListenAddress) -> bool:
    if not isinstance(address, TcpAddress) or origin.socket is not None:
        return isinstance(address, UnixAddress) and origin.socket == address.path
    if origin.port != address.port:
        return False
    there, here = _numbered(origin.host), _numbered(address.host)
    return (
        there == here
        or (here in _WILDCARDS and addresses.is_loopback(there))
        or there in _WILDCARDS
        or ("localhost" in {there, here} and addresses.is_loopback(there) and addresses.is_loopback(here))
    )


def _metadata_services(draft: Draft, problems: Problems) -> None:
    """A route to them would give the machine's own identity to every client (WIRE 3.13)."""
    for index, route in draft.routes.items():
        host = _numbered(route.upstream_origin.host)
        if is_off_limits(host) and not is_metadata(host):
            sentence = (
                "this address is of the link alone, where anybody may answer: write another one of the upstream"
            )
            problems.add(("routes", index, "upstream"), sentence)
        elif is_metadata(host):
            sentence = (
                "this is the cloud's metadata service, which gives the machine's identity to whoever asks: use a "
                "credential of type metadata"
            )
            problems.add(("routes", index, "upstream"), sentence)


def _numbered(host: str) -> str:
    """A host in one form: 2852039166, 0xa9fea9fe and ::ffff:169.254.169.254 are all the same address."""
    name = host.rstrip(".").lower()
    with suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(name))
    with suppress(ValueError):
        address = ipaddress.IPv6Address(name)
        return str(address.ipv4_mapped or address)
    return name


def _forwarding(draft: Draft, problems: Problems) -> None:
    for index, route in draft.routes.items():
        places: dict[KeyPath, str] = {("set", name): name for name in route.headers.set}
        places |= {("remove", place): name for place, name in enumerate(route.headers.remove)}
        for path, name in places.items():
            if route.forwarded and name.lower() in _FORWARDED:
                sentence = "forwarded: true sends this header already: remove one of the two"
                problems.add(("routes", index, "headers", *path), sentence)


def _foreign_grants(draft: Draft, problems: Problems) -> None:
    for index, route in draft.routes.items():
        if route.credential is not None and not route.rewrite.cors:
            sentence = (
                "the upstream's CORS grants were not made for requests with your credential: what a browser has "
                "cached may be read by pages that guard.origins does not name"
            )
            problems.warn(("routes", index, "rewrite", "cors"), sentence)


_CHECKS: Final[tuple[Callable[[Draft, Problems], None], ...]] = (
    _listeners,
    _far_peers,
    _untold_names,
    _same_keys,
    _same_routes,
    _plain_http,
    _plain_redis,
    _loops,
    _metadata_services,
    _forwarding,
    _foreign_grants,
    check_exported,
    *CREDENTIAL_CHECKS,
)
