"""The way of a request that is not sent: listener, guard, route, rules, credential, fields.

Law: nothing is decided here. Guard, routes, rules and stripping are the relay's own, in its order (`relay.py`);
this module only notes what they said, and why. The request is its head alone: nobody knows the body.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from proxy import build
from proxy.binding import Binding
from proxy.clock import Clock
from proxy.config import Config, RouteConfig
from proxy.config.addresses import origin_text
from proxy.destination import permit_destinations
from proxy.errors import BadRequest, NoRoute, PathDenied, ProxyError
from proxy.explain.crossing import Crossing, Note
from proxy.guard import Guard, methods_of, preflight_lines
from proxy.injection import Place, Replace
from proxy.listener.heads import HeadReader
from proxy.listener.request import Request
from proxy.outbound import outgoing, placing
from proxy.redact import MASK, Redactor
from proxy.routes import Policy, Route, RouteTable
from proxy.upgrade import HANDSHAKE_LINES, is_handshake

Outcome = Literal["forwarded", "answered", "refused"]
#: Where a request is on its way, in order.
Stage = Literal["listener", "guard", "route", "rules", "upstream"]


@dataclass(slots=True)
class Explanation:
    """What would become of a request; `None` and empty lists where it does not come so far.

    `stage` is how far it came; `refusal` is the answer that it would get from us instead. `answered`: the proxy
    itself says yes (a CORS preflight).
    """

    outcome: Outcome = "refused"
    stage: Stage = "listener"
    status: int | None = None
    code: str | None = None
    detail: str | None = None
    client: str | None = None
    route: str | None = None
    route_why: str | None = None
    rule: str | None = None
    upstream: str | None = None
    credential: str | None = None
    credential_why: str | None = None
    dropped: list[Note] = field(default_factory=list)
    added: list[Note] = field(default_factory=list)
    kept: list[Note] = field(default_factory=list)


def explained(config: Config, raw: bytes, *, port: int | None, clock: Clock, redactor: Redactor) -> Explanation:
    """What would become of the head `raw`, taken on a listener at `port` (None: a Unix socket).

    `redactor` masks what is shown, and learns the configuration's secrets here. Raises `ConfigError` for what
    cannot be built.
    """
    for value in (*(source.value for _, source in config.secrets()), *config.literals()):
        redactor.register(value)
    bindings = build.bindings(config, build.masked(config, clock), clock=clock)
    found = Explanation()
    try:
        _follow(_Way(config, build.guard(config), bindings, redactor), raw, port, found)
    except ProxyError as error:
        found.status, found.code, found.detail = error.status, error.code, error.detail
        found.rule = error.rule if isinstance(error, PathDenied) else found.rule
    return found


@dataclass(frozen=True, slots=True)
class _Way:
    """What a request meets."""

    config: Config
    guard: Guard
    bindings: dict[str, Binding]
    redactor: Redactor

    def route(self, name: str) -> RouteConfig:
        """A route as it is written."""
        return next(each for each in self.config.routes if each.name == name)


def _follow(way: _Way, raw: bytes, port: int | None, found: Explanation) -> None:
    """The steps of `Relay._relay`, up to where a token would be asked for. Raises what it would answer."""
    reader = HeadReader(way.config.limits.header_bytes)
    reader.buffer = raw
    head = reader.next()
    if head is None:
        raise BadRequest
    request = Request(*head, body=None, client="unix" if port is None else "127.0.0.1", port=port)

    found.stage = "guard"
    admission = way.guard.admit(request)
    methods = methods_of(request)
    if admission.key is not None:
        found.client = admission.key.name or "the key that all share"
        _permit(admission.key.policy, methods, admission.path)
    if admission.preflight:
        preflight_lines(request.section.values, admission.visitor.origin)
        found.outcome, found.status = "answered", 204
        return

    found.stage = "route"
    table = RouteTable(binding.route for binding in way.bindings.values())
    host = admission.visitor.host
    try:
        route = table.find(host, admission.path)
    except NoRoute:
        found.route_why = _competing(table, host)
        raise
    found.route, found.route_why = route.name, _why(route, table)
    path = route.target(admission.path)

    found.stage = "rules"
    _permit(route.policy, methods, path)
    if b"destination" in request.section.values:
        permit_destinations(request, methods, admission, route=route, table=table)
    found.rule = "allow and deny let it pass" if route.policy.has_rules else "the route has none"
    switches = bool(request.section.options) and is_handshake(request)

    found.stage = "upstream"
    binding = way.bindings[route.name]
    places, strip = placing(request, admission, binding)
    sent = outgoing(request, admission, binding, path, strip=strip, holds_key=way.guard.holds_key)
    if switches:
        sent.lines += HANDSHAKE_LINES
    crossing = Crossing(
        request=request,
        admission=admission,
        binding=binding,
        places=places,
        strip=strip,
        sent=sent,
        guard=way.guard,
        redactor=way.redactor,
    )
    found.outcome = "forwarded"
    found.upstream = f"{request.method} {_url(binding, crossing.target())}"
    _tell_credential(binding, places, found)
    found.dropped, found.added, found.kept = crossing.dropped(), crossing.added(), crossing.kept()


def _permit(policy: Policy, methods: Iterable[str], path: bytes) -> None:
    """As the relay does."""
    for method in methods:
        policy.check(method, path)


def _why(route: Route, table: RouteTable) -> str:
    """Which of the routes that compete it is."""
    prefix = f"prefix {route.prefix.decode('ascii') or '/'}"
    if route.host is not None:
        return f"host {route.host}, {prefix}: the longest of those that name this host"
    return f"{prefix}: the longest that matches" if len(list(table)) > 1 else prefix


def _competing(table: RouteTable, host: str) -> str:
    """The routes that would have been looked at."""
    named = [route for route in table if route.host == host]
    there = named or [route for route in table if route.host is None]
    prefixes = ", ".join(route.prefix.decode("ascii") or "/" for route in there)
    which = f"of host {host}" if named else "that name no host"
    return f"the routes {which} begin at {prefixes}" if there else "every route names another host"


def _url(binding: Binding, target: str) -> str:
    origin = binding.route.upstream
    return f"{origin_text(origin)}:{target}" if origin.socket is not None else f"{origin}{target}"


def _tell_credential(binding: Binding, places: tuple[Place, ...], found: Explanation) -> None:
    """Whose credential goes along, and where."""
    credential, inject = binding.credential, binding.inject
    if credential is None:
        found.credential_why = "the route has none: the client's own passes"
        return
    if places:
        found.credential = credential.name
        found.credential_why = f"in {', '.join(map(_place, places))}"
    elif isinstance(inject, Replace):
        found.credential_why = f"not that of the route, {credential.name}: the placeholder of inject is not there"
    else:
        found.credential_why = (
            f"not that of the route, {credential.name}: inject: if-absent, and the client has one"
        )


def _place(place: Place) -> str:
    if place.kind == "header":
        return f"header {place.name} ({place.scheme} {MASK})" if place.scheme else f"header {place.name} ({MASK})"
    return f"{place.kind} {place.name} ({MASK})"
