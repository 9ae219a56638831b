"""Makes the objects that serve requests from a configuration; opens nothing."""

from proxy.build.routes import bindings, guard
from proxy.build.sources import Surroundings, credentials

__all__ = ["Surroundings", "bindings", "credentials", "guard"]
