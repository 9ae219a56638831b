"""Where WebDAV's COPY and MOVE lead: a request's second path, about which the rules are as well (threat 28).

Law: what is judged is the place that the upstream reads out of the field as it goes there, not what a client meant.
"""

import re
from collections.abc import Sequence
from typing import Final

from proxy.errors import PathDenied
from proxy.guard import Admission, Head
from proxy.headers import own_reference
from proxy.reverse import NEXT_AUTHORITY, beyond, inner
from proxy.routes import Route, RouteTable, split_target

#: RFC 4918 section 10.3.
_LEAD_ELSEWHERE: Final = frozenset({"COPY", "MOVE"})
#: The rules of this module, as people are told of them.
_ELSEWHERE: Final = "the Destination names another place, and where there are rules it may not"
_BEYOND: Final = "the Destination is not below this route"
_BEHIND_PATH: Final = re.compile(rb"[?#]")


def permit_destinations(
    head: Head, methods: Sequence[str], admission: Admission, *, route: Route, table: RouteTable
) -> None:
    """Raise `PathDenied` (`BadTarget`) unless the request might have asked for each place that it leads to.

    1. A place of the upstream, by our origin, by its own or by a path alone, belongs to this very route, and the
       rules of the route and of the client key let the same methods go there.
    2. Any other is the upstream's affair where there are no rules. Where there are (a base path is one, too), it
       may be the same place by a name that we do not know.
    """
    if _LEAD_ELSEWHERE.isdisjoint(methods):
        return
    policies = [route.policy] if admission.key is None else [route.policy, admission.key.policy]
    for value in head.section.values.get(b"destination", ()):
        path = _path(value, admission, route)
        if path is None:
            if route.base_path or any(policy.has_rules for policy in policies):
                raise PathDenied(_ELSEWHERE)
            continue
        split_target(path)  # or it holds what no target may, and who resolves it reads another place
        rest = beyond(inner(route), path)
        own_path = b"" if rest is None else route.prefix + rest or b"/"
        if rest is None or table.find(admission.visitor.host, own_path) is not route:
            raise PathDenied(_BEYOND)
        path = route.target(own_path)
        for method in methods:
            route.policy.check(method, path)
            if admission.key is not None:
                admission.key.policy.check(method, own_path)


def _path(value: bytes, admission: Admission, route: Route) -> bytes | None:
    """The path at the upstream that this names, None where it names another place."""
    upstream = str(route.upstream).encode()
    reference = own_reference(
        value,
        admission.visitor.own_origin,
        admission.key_prefix,
        prefix=route.prefix if route.strip_prefix else b"",
        upstream=upstream,
        base_path=route.base_path,
    )
    tail = reference.lower().removeprefix(upstream.lower())
    is_named = len(tail) < len(reference)
    path = _BEHIND_PATH.split(reference[len(reference) - len(tail) :], maxsplit=1)[0]
    if is_named and not path:
        return b"/"
    return path if path.startswith(b"/") and (is_named or not path.startswith(NEXT_AUTHORITY, 1)) else None
