"""Makes the objects that serve requests from a configuration; opens nothing."""

from proxy.build.routes import bindings, guard
from proxy.build.sources import credentials
from proxy.build.surroundings import Surroundings

__all__ = ["Surroundings", "bindings", "credentials", "guard"]
