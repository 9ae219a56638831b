"""Routes, each with what its requests need."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from proxy.binding import Binding, Timeouts
from proxy.build.guard import in_a_host_field, rule
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.config.anycredential import CommonCredential, ExpiredRuleConfig
from proxy.config.routing import RouteConfig
from proxy.credentials.credential import Credential
from proxy.errors import ConfigError
from proxy.headers import stripping
from proxy.injection import AUTHORIZATION, Place
from proxy.refusals import ExpiredRule, RefusalRules, glob
from proxy.rewrite import Rewriter
from proxy.routes import Policy, Route, RouteTable
from proxy.tls import client_context
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from proxy.upstream.tunnel import OutboundProxy


def bindings(
    config: Config, by_name: Mapping[str, Credential], *, clock: Clock | None = None
) -> dict[str, Binding]:
    """Every route with what its requests need, by the route's name; `clock`: None is the system's."""
    now = (clock or SystemClock()).now
    routes = {given.name: _route(given) for given in config.routes}
    table = RouteTable(routes.values())
    # Routes that trust alike share a context: to read the machine's certificates takes 20 ms and more.
    context = cache(client_context)
    return {
        given.name: _binding(
            given,
            routes[given.name],
            table=table,
            credential=by_name.get(given.credential or ""),
            described=config.credentials.get(given.credential or ""),
            context=context,
            now=now,
        )
        for given in config.routes
    }


def _route(given: RouteConfig) -> Route:
    return Route(
        given.name,
        given.upstream_origin,
        given.prefix.rstrip("/").encode(),
        given.base_path.encode(),
        given.strip_prefix,
        None if given.host is None else in_a_host_field(given.host),
        Policy(None if given.allow is None else map(rule, given.allow), map(rule, given.deny)),
    )


def _binding(
    given: RouteConfig,
    route: Route,
    *,
    table: RouteTable,
    credential: Credential | None,
    described: CommonCredential | None,
    context: Callable[..., ssl.SSLContext],
    now: Callable[[], float],
) -> Binding:
    removed = [*given.headers.set, *given.headers.remove]
    bare = stripping((), names=removed)
    strip = bare
    if credential is not None and described is not None:
        names = [*removed, *described.strip_headers, *described.headers]
        places = (AUTHORIZATION, *credential.places)
        strip = stripping(places, names=names, query=[*described.strip_query, *_bearer_parameters(places[1:])])
    return Binding(
        route,
        Pool(
            _dialer(given, context),
            size=given.pool.size,
            idle=given.pool.idle,
            connect=given.timeouts.connect,
            now=now,
        ),
        credential,
        _refusal_rules(given, described),
        strip,
        bare,
        _rewriter(given, route, table),
        inject=given.inject,
        host=given.host_header,
        forwarded=given.forwarded,
        constants="".join(f"{name}: {value}\r\n" for name, value in given.headers.set.items()).encode(),
        timeouts=Timeouts(given.timeouts.token, given.timeouts.first_byte, given.timeouts.idle),
        replay=(given.replay.memory, given.replay.disk),
        watches_bodies=given.token_guard == "alarm",  # noqa: S105  a switch
    )


def _bearer_parameters(places: Iterable[Place]) -> Iterator[str]:
    """The client's own bearer token in the query, where ours is in a header.

    RFC 6750 sections 2 and 3.1 call both of them malformed, and some servers take the query's (threat 49).
    """
    if any(place.kind == "header" and (place.scheme or "").lower() == "bearer" for place in places):
        yield "access_token"


def _rewriter(given: RouteConfig, route: Route, table: RouteTable) -> Rewriter:
    switches = given.rewrite
    return Rewriter(
        route,
        table,
        host=given.host_header,
        location=switches.location,
        cookies=switches.cookies,
        cors=switches.cors,
        hsts=switches.hsts,
    )


def _dialer(given: RouteConfig, trusting: Callable[..., ssl.SSLContext]) -> Dialer:
    tls, via = given.tls, given.via
    context = None
    if given.upstream_origin.scheme == "https":
        try:
            context = trusting(tls.ca, cert=tls.cert, key=tls.key, insecure=tls.insecure)
        except (OSError, ssl.SSLError):
            written = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
            keys = ", ".join(f"tls.{key}" for key, path in written.items() if path is not None)
            mend = (
                "write PEM files that this user can read, and a key without a passphrase that fits the certificate"
            )
            raise ConfigError([f"Route {given.name!r}: {keys} cannot be used: {mend}."]) from None
    through = None
    if via is not None:
        password = None if via.password is None else via.password.value
        through = OutboundProxy(via.origin.host, via.origin.port, via.username, password)
    return Dialer(given.upstream_origin, tls=context, server_name=tls.server_name, via=through)


def _refusal_rules(route: RouteConfig, described: CommonCredential | None) -> RefusalRules:
    refresh_on = frozenset(route.refresh_on)
    if described is None or described.expired is None:
        return RefusalRules(refresh_on)
    return RefusalRules(refresh_on, tuple(_expired_rule(rule, refresh_on) for rule in described.expired))


def _expired_rule(given: ExpiredRuleConfig, refresh_on: frozenset[int]) -> ExpiredRule:
    statuses = refresh_on if given.statuses is None else given.statuses
    return ExpiredRule(
        None if statuses == "any" else frozenset(statuses),
        {name.lower(): glob(pattern) for name, pattern in given.headers.items()},
        dict(given.body),
        {name.lower(): glob(pattern) for name, pattern in given.unless.headers.items()},
    )
