"""Who may speak: the guard of requests, and what the kernel is asked of connections."""

import logging
import os
from typing import Final

from proxy.clientkeys import ClientKey
from proxy.config import Config
from proxy.config.addresses import UnixAddress
from proxy.errors import ConfigError
from proxy.guard import Guard
from proxy.peers import Peers, PeersUnknown
from proxy.routes import Policy, Rule

log: Final = logging.getLogger("proxy")


def guard(config: Config) -> Guard:
    """The guard of all listeners; the routes' hosts are names of ours, too."""
    given = config.guard
    named = [*given.hosts, *(route.host for route in config.routes if route.host is not None)]
    keys = [] if given.client_key is None else [ClientKey("", given.client_key.value)]
    for name, each in given.client_keys.items():
        rule = Rule(None if each.methods is None else frozenset(each.methods), each.paths)
        keys.append(ClientKey(name, each.key.value, Policy([rule], ())))
    return Guard(hosts=map(in_a_host_field, named), origins=given.origins, client_keys=keys, browser=given.browser)


def in_a_host_field(host: str) -> str:
    """A host as it stands in a Host field: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def peers(config: Config) -> Peers | None:
    """Which users may connect; None: everybody.

    Raises `ConfigError` where that was asked for and this machine does not tell; where it is only the default, a
    warning says that everybody may.
    """
    given = config.guard.peers.uids
    if given == "any" or (given is None and config.guard.any_key is not None):
        return None
    uids = [os.geteuid() if uid == "self" else uid for uid in given or ("self",)]
    # Who widened a socket's mode has said who may connect.
    shared = [each.path for each in config.listen if isinstance(each, UnixAddress) and each.shared]
    try:
        return Peers(uids, open_sockets=shared if given is None else ())
    except PeersUnknown:
        if given is not None:
            sentence = "this machine does not say who connects: write uids: any, and set guard.client_key"
            raise ConfigError([f"guard.peers.uids: {sentence}."]) from None
        log.warning("peers_unknown", extra={"fields": {"mend": "set guard.client_key, or listen on unix:/path"}})
        return None
