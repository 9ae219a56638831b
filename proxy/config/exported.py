"""The variables by which a program that `exec` starts finds the routes.

Law: a variable stands for one route, or for none.
"""

import re
from collections.abc import Sequence
from typing import Final

from proxy.config.draft import Draft
from proxy.config.problems import Problems, did_you_mean
from proxy.config.routing import RouteConfig

#: The URL of the route that is meant where none is named.
DEFAULT: Final = "BEARER_PROXY_URL"


def variable_of(name: str) -> str:
    """The variable that holds the URL of the route called `name`."""
    return f"{DEFAULT}_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def default_route(routes: Sequence[RouteConfig]) -> RouteConfig | None:
    """The route at `/`, sooner one that is for all hosts, or the only one; None: none is meant before others."""
    roots = sorted((route for route in routes if route.prefix == "/"), key=lambda route: route.host is not None)
    if roots and (roots[0].host is None or len(roots) == 1):
        return roots[0]
    return routes[0] if len(routes) == 1 else None


def check_exported(draft: Draft, problems: Problems) -> None:
    """Note two routes with one variable, and variables of `exec.env` that lead nowhere or are taken."""
    taken: dict[str, str] = {}
    for index, route in draft.routes.items():
        variable = variable_of(route.name)
        first = taken.setdefault(variable, route.name)
        if first != route.name:
            sentence = f"for `exec` this route is {variable}, and so is {first}: choose another name"
            problems.add(("routes", index, "name"), sentence)
    for variable, name in () if draft.exec is None else draft.exec.env.items():
        if variable == DEFAULT or variable in taken:
            problems.add(("exec", "env", variable), "`exec` sets this variable by itself: choose another")
        if name not in draft.route_names:
            known = ", ".join(sorted(draft.route_names))
            hint = did_you_mean(name, draft.route_names) or f": write one of {known}"
            problems.add(("exec", "env", variable), f"no route has this name{hint}")
