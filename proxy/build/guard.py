"""Who may speak: the guard of requests, and whose connections are taken."""

import os
from collections.abc import Iterator
from contextlib import suppress

from proxy.clientkeys import ClientKey
from proxy.config import Config, UnixAddress
from proxy.config.model import ClientKeyConfig
from proxy.config.routing import PolicyRule
from proxy.errors import PathDenied
from proxy.guard import Guard
from proxy.peers import Peers
from proxy.routes import Policy, Rule


def guard(config: Config) -> Guard:
    """The guard of all listeners; the routes' hosts are names of ours, too."""
    given = config.guard
    named = [*given.hosts, *(route.host for route in config.routes if route.host is not None)]
    return Guard(
        hosts=map(in_a_host_field, named),
        origins=given.origins,
        client_keys=list(client_keys(config)),
        browser=given.browser,
    )


def in_a_host_field(host: str) -> str:
    """A host as it stands in a Host field: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def client_keys(config: Config) -> Iterator[ClientKey]:
    """The key that all share, and those of single clients."""
    if config.guard.client_key is not None:
        yield ClientKey("", config.guard.client_key.value, Policy(None, ()))
    for name, given in config.guard.client_keys.items():
        yield ClientKey(name, given.key.value, Policy([rule(given)], (), only=f"the key of client {name} is for "))


def key_for(config: Config, path: str) -> ClientKey | None:
    """The key of a client that may GET this path; where none may, any; None: no key is needed."""
    keys = list(client_keys(config))
    for key in keys:
        with suppress(PathDenied):
            key.policy.check("GET", path.encode())
            return key
    return keys[0] if keys else None


def rule(given: PolicyRule | ClientKeyConfig) -> Rule:
    """What a route, or a client key, says of methods and paths."""
    return Rule(None if given.methods is None else frozenset(given.methods), given.paths)


def peers(config: Config) -> Peers | None:
    """Whose connections are taken; None: everybody's."""
    given = config.guard.peers.uids
    if given == "any" or (given is None and config.guard.has_keys):
        return None
    # Who widened a socket's mode has said by that who may connect.
    shared = [each.path for each in config.listen if isinstance(each, UnixAddress) and each.is_shared]
    return Peers(
        [os.geteuid() if uid == "self" else uid for uid in given or ("self",)],
        open_sockets=shared if given is None else (),
        tcp=not all(isinstance(each, UnixAddress) for each in config.listen),
        required=given is not None,
    )


def owner(config: Config) -> Peers | None:
    """Who the admin listener always has room for: the proxy's own user, where the machine tells."""
    return None if config.admin.listen is None else Peers([os.geteuid()], quiet=True)
