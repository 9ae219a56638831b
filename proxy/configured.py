"""What one configuration makes: credentials, routes with their pools, the guard, and the relay over all of them.

Law: a start and a reload make it in the same way, and a request ends with what it began with. What goes on over a
reload is the source of a credential whose token is got as before and may go where it went before: its token, its
generation, its request in flight (threat 123).
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from proxy import build
from proxy.accesslog import Exchange
from proxy.config import Config, meets_admin
from proxy.config.anycredential import CommonCredential
from proxy.config.store import StoreConfig
from proxy.credentials.credential import Report
from proxy.credentials.file import FileSource
from proxy.credentials.source import TokenSource
from proxy.errors import CredentialError
from proxy.listener.request import Request
from proxy.notes import Notes
from proxy.redact import Redactor
from proxy.relay import Relay


def mask(config: Config, redactor: Redactor) -> None:
    """Let nobody show the secrets of `config`, before anything is made of it."""
    # One that is borrowed is still empty.
    for value in (*(source.value for _, source in config.secrets()), *config.literals()):
        redactor.register(value)


class Configured:
    """All that `config` makes in `around`, whose clients are its own; `begin` and `observe` as in `Relay`.

    To make it takes a while (the machine's certificates are read for TLS), and no loop.
    """

    def __init__(
        self,
        config: Config,
        around: build.Surroundings,
        observe: Callable[[Exchange], None],
        begin: Callable[[Request], tuple[Exchange, Notes]] | None,
    ) -> None:
        self.config = config
        self.credentials = build.credentials(config, around)
        self.bindings = build.bindings(config, self.credentials, clock=around.clock)
        self.relay = Relay(
            guard=build.guard(config),
            bindings=self.bindings,
            clock=around.clock,
            observe=observe,
            begin=begin,
            body_most=config.limits.body_bytes,
        )
        self._clients = around.clients
        #: What the tokens of each credential are bound to, as long as nothing was lent.
        self.bound = {name: build.binding_of(name, config) for name in config.credentials}
        #: The credentials whose sources others have now, and what those had in flight then.
        self.handed: set[str] = set()
        self.flights: set[asyncio.Task[None]] = set()

    # -- its credentials

    def reports(self) -> list[Report]:
        """The state of every credential."""
        return [each.source.report() for each in self.credentials.values()]

    def problems(self) -> dict[str, CredentialError]:
        """Why a credential in use has no usable token, by its name."""
        used = {route.credential for route in self.config.routes}
        found = {name: each.source.problem for name, each in self.credentials.items() if name in used}
        return {name: problem for name, problem in found.items() if problem is not None}

    def pools(self) -> dict[str, dict[str, int]]:
        """The state of each route's connections, by its name."""
        return {name: each.pool.state() for name, each in self.bindings.items()}

    @property
    def asks(self) -> bool:
        """Does one of them ask for its tokens, so that it can be rejected?"""
        return any(isinstance(each.source, TokenSource) for each in self.credentials.values())

    async def refresh(self, name: str) -> Report:
        """Get a new token for a credential now. Raises `KeyError`, or a `CredentialError`."""
        credential = self.credentials[name]
        await credential.source.refresh(self._wait(name))
        return credential.source.report()

    async def obtain(self, name: str) -> Report:
        """See to it that a credential has a usable token. Raises `KeyError`, or a `CredentialError`."""
        credential = self.credentials[name]
        await credential.source.token(self._wait(name))
        return credential.source.report()

    def _wait(self, name: str) -> float:
        """How long somebody may wait for a token of this credential."""
        waits = [route.timeouts.token for route in self.config.routes if route.credential == name]
        return max(waits, default=20.0)

    # -- after a suspend

    def drop_idle(self) -> None:
        """Close the connections that rest."""
        for binding in self.bindings.values():
            binding.pool.drop_idle()

    def look_ahead(self) -> None:
        """Refresh what is due."""
        for each in self.credentials.values():
            if isinstance(each.source, TokenSource):
                each.source.ahead.look()

    # -- over a reload, and at the end

    def succeed(self, before: "Configured") -> None:
        """Take the place of `before`, and go on with its sources where the tokens are bound to the same."""
        self.relay.draining = before.relay.draining
        for name, credential in self.credentials.items():
            if name not in before.credentials or before.bound[name] != self.bound[name]:
                continue
            old, new = before.credentials[name].source, credential.source
            if isinstance(old, TokenSource) and isinstance(new, TokenSource):
                flight = old.adapt(new)
                before.flights.update([] if flight is None else [flight])
            elif isinstance(old, FileSource) and isinstance(new, FileSource):
                old.adapt(new)
            else:
                continue  # it has no state
            credential.source = old
            before.handed.add(name)
        for name, each in before.credentials.items():
            if name not in before.handed and isinstance(each.source, TokenSource):
                each.source.ahead.stop()
        self._keep_gates(before)

    def _keep_gates(self, before: "Configured") -> None:
        """What a route knows of refusals holds for as long as route and tokens are the same."""
        routes = {route.name: route for route in before.config.routes}
        for route in self.config.routes:
            if routes.get(route.name) == route and route.credential in before.handed:
                self.bindings[route.name].gates = before.bindings[route.name].gates

    async def end(self, wait: float) -> None:
        """Close everything that nobody else has; token requests in flight may take `wait` seconds to end."""
        own = [each.source for name, each in self.credentials.items() if name not in self.handed]
        await asyncio.gather(*(source.close(wait) for source in own))
        if self.flights:
            await asyncio.wait(self.flights, timeout=wait)
        for binding in self.bindings.values():
            binding.pool.close()
        await self._clients.close()

    # -- what changes

    def news(self, before: "Configured") -> dict[str, str]:
        """What is different from `before`: `added`, `removed` and `changed` parts, by their names."""
        now, then = self.parts(), before.parts()
        found = {
            "added": [name for name in now if name not in then],
            "removed": [name for name in then if name not in now],
            "changed": [name for name in now if name in then and now[name] != then[name]],
        }
        return {what: ", ".join(names) for what, names in found.items() if names}

    def parts(self) -> dict[str, object]:
        """Its parts by their names; two that are alike are equal."""
        config = self.config
        parts: dict[str, object] = {f"route {route.name}": route for route in config.routes}
        for name, given in config.credentials.items():
            # What it is got with is in the digest; a secret that it borrows is another one at each look.
            rest = {*CommonCredential.model_fields, *given.INCIDENTAL}
            parts[f"credential {name}"] = (self.bound[name], {key: getattr(given, key) for key in rest})
        rest = Config.model_fields.keys() - {"routes", "credentials", "warnings"}
        return parts | {name: getattr(config, name) for name in Config.model_fields if name in rest}


def fixed(old: Config, new: Config) -> list[str]:
    """What cannot change while the proxy runs, and does: a sentence for each key."""
    keys = ["listen"] if Counter(old.listen) != Counter(new.listen) else []
    keys += [
        f"admin.{name}" for name in ("listen", "inspector") if getattr(old.admin, name) != getattr(new.admin, name)
    ]
    keys += [
        f"store.{name}" for name in StoreConfig.model_fields if getattr(old.store, name) != getattr(new.store, name)
    ]
    keys += ["tracing"] if old.tracing != new.tracing else []
    keys += ["upstream or via at the admin listener's port"] if meets_admin(new) and not meets_admin(old) else []
    return [f"{key}: this cannot change while the proxy runs: restart it, or take the change back" for key in keys]
