"""Makes the objects that serve requests from a configuration; opens nothing."""

from proxy.build.guard import guard, owner, peers
from proxy.build.routes import bindings
from proxy.build.sources import binding_of, credentials, masked
from proxy.build.stores import follow, latch, store
from proxy.build.surroundings import Means, Surroundings

__all__ = [
    "Means",
    "Surroundings",
    "binding_of",
    "bindings",
    "credentials",
    "follow",
    "guard",
    "latch",
    "masked",
    "owner",
    "peers",
    "store",
]
