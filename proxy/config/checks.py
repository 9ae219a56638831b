"""The refusals that need more than one key: what fits together, and what is safe together.

Law: nothing is read and nothing is changed here; each check takes the parts that are valid by themselves and notes
problems at their key paths.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.config import addresses
from proxy.config.addresses import ListenAddress, TcpAddress, UnixAddress
from proxy.config.credentials import CredentialConfig, LoginCredential, StaticCredential
from proxy.config.fields import SECRET_NAME
from proxy.config.model import AdminConfig, GuardConfig, secrets_in
from proxy.config.problems import KeyPath, Problems, did_you_mean
from proxy.config.routing import RouteConfig
from proxy.config.store import StoreConfig
from proxy.redact import SHORTEST
from proxy.routes import Origin

#: RFC 6265 section 4.1.1.
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")
#: What `forwarded: true` sends.
_FORWARDED: Final = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a configuration that are valid by themselves; the others are missing.

    `names` are all credentials that were written, and `wanted` those that routes name by their index, valid or not;
    `literals_refused` says why secrets may not be written out (None: they may).
    """

    listen: tuple[ListenAddress, ...] = ()
    routes: Mapping[int, RouteConfig] = field(default_factory=dict)
    credentials: Mapping[str, CredentialConfig] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    wanted: Mapping[int, str] = field(default_factory=dict)
    guard: GuardConfig | None = None
    admin: AdminConfig | None = None
    store: StoreConfig | None = None
    literals_refused: str | None = None

    def users(self, credential: str) -> Iterator[tuple[int, RouteConfig]]:
        """The routes that use a credential."""
        return ((index, route) for index, route in self.routes.items() if route.credential == credential)


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
        if (
            isinstance(address, TcpAddress)
            and not address.is_loopback
            and draft.guard
            and not draft.guard.client_key
        ):
            sentence = "others can reach this address: set guard.client_key, or listen on 127.0.0.1"
            problems.add(("listen", index), sentence)
    admin = draft.admin
    if admin and admin.listen and admin.listen.port and not admin.listen_is_default and str(admin.listen) in taken:
        problems.add(("admin", "listen"), "this address is taken by listen: choose another port")


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
        if route.tls.key_warning is not None:
            problems.warn(("routes", index, "tls", "key" if route.tls.key else "cert"), route.tls.key_warning)
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


def _reaches(origin: Origin, address: ListenAddress) -> bool:
    if not isinstance(address, TcpAddress) or origin.socket is not None:
        return isinstance(address, UnixAddress) and origin.socket == address.path
    if origin.port != address.port:
        return False
    there, here = origin.host.rstrip("."), address.host
    return (
        there == here
        or (here in _WILDCARDS and addresses.is_loopback(there))
        or there in _WILDCARDS
        or ("localhost" in {there, here} and addresses.is_loopback(there) and addresses.is_loopback(here))
    )


def _credential_uses(draft: Draft, problems: Problems) -> None:
    for index, wanted in draft.wanted.items():
        if wanted not in draft.names:
            hint = did_you_mean(wanted, draft.names) or ": add it to credentials, or correct the name"
            problems.add(("routes", index, "credential"), f"there is no credential of this name{hint}")
    used = {route.credential for route in draft.routes.values()}
    for name, credential in draft.credentials.items():
        if name not in used:
            problems.warn(("credentials", name), "no route uses this credential")
        bound: Origin | None = None
        for index, route in draft.users(name):
            origin = route.upstream_origin
            if origin in credential.origins:
                continue
            if bound is not None and origin != bound:
                sentence = f"its credential is bound to another origin: add this one to the origins of {name}"
                problems.add(("routes", index, "upstream"), sentence)
            bound = bound or origin


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


def _placing(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        path: KeyPath = ("credentials", name)
        placed = {each.name.lower() for each in credential.place if each.kind == "header"}
        for header in credential.headers:
            if header.lower() in placed:
                problems.add((*path, "headers", header), "the token itself goes into this header: remove it here")
            elif SECRET_NAME.search(header) and draft.literals_refused:
                sentence = (
                    "this looks like a secret, and constants are shown: make it the token of a credential with "
                    "place, or let only this file's owner read it (mode 0600)"
                )
                problems.add((*path, "headers", header), sentence)
        in_cookie = any(each.kind == "cookie" for each in credential.place)
        if not in_cookie or not isinstance(credential, StaticCredential):
            continue
        if not _COOKIE_VALUE.fullmatch(credential.token.value.reveal()):
            sentence = "this token holds characters that no cookie may hold: place it in a header"
            problems.add((*path, "token"), sentence)


def _login_steps(draft: Draft, problems: Problems) -> None:
    for name, credential in draft.credentials.items():
        if not isinstance(credential, LoginCredential):
            continue
        path: KeyPath = ("credentials", name)
        for substitute in ("$access_token", "$refresh_token"):
            if credential.login.uses(substitute):
                problems.add(
                    (*path, "login"), f"the first step has no {substitute} yet: write a reference to a secret"
                )
        if credential.refresh is not None and credential.response.refresh_token is None:
            sentence = "a refresh needs response.refresh_token: say where it stands in the reply, or remove refresh"
            problems.add((*path, "refresh"), sentence)


def _short_secrets(draft: Draft, problems: Problems) -> None:
    parts = {
        "routes": dict(draft.routes),
        "credentials": dict(draft.credentials),
        "guard": draft.guard,
        "admin": draft.admin,
        "store": draft.store,
    }
    for path, source in secrets_in(parts):
        if source.warning:
            problems.warn(path, source.warning)
        # References under other names, a user name say, are no secrets.
        if len(source.value) < SHORTEST and SECRET_NAME.search(str(path[-1])):
            sentence = (
                f"this secret is shorter than {SHORTEST} characters: it is masked by field, not wherever it stands"
            )
            problems.warn(path, sentence)


_CHECKS: Final[tuple[Callable[[Draft, Problems], None], ...]] = (
    _listeners,
    _same_routes,
    _plain_http,
    _loops,
    _credential_uses,
    _forwarding,
    _foreign_grants,
    _placing,
    _login_steps,
    _short_secrets,
)
