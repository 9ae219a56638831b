"""The commands for credentials that need a person: `login`, `logout`."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

import click

from proxy import adminclient, logs, runfile
from proxy.build import Surroundings
from proxy.build import latch as build_latch
from proxy.build.opened import Lenders, Opened, opened, resting
from proxy.cli.common import (
    CONFIG_OPTION,
    JSON_OPTION,
    ends_with_status,
    load_closed,
    print_json,
    state_folder,
)
from proxy.cli.completion import credential_names
from proxy.cli.looks import waiting
from proxy.cli.table import duration, instant
from proxy.cli.terminal import Terminal
from proxy.clock import SystemClock
from proxy.config import Config, CredentialConfig, OAuthCredential, find
from proxy.credentials.endpoint import Clients
from proxy.credentials.interactive import Person, keep
from proxy.credentials.logout import LoggedOut, log_out
from proxy.errors import BearerProxyError
from proxy.patterns import PATTERNS
from proxy.redact import Redactor
from proxy.stores.base import Record, Store

#: The instance itself bounds a refresh by the `timeouts.token` of its routes; this only ends a hang.
_REFRESH_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = 5.0
#: aiohttp does not wait for a connection's last TLS message; its documentation advises this much.
_GOODBYE_SECONDS: Final = 0.25
_RESTART: Final = "Restart it, so that it stops using the token."


def _needs_person(given: CredentialConfig) -> bool:
    return isinstance(given, OAuthCredential) and given.interactive


@click.command()
@click.argument("name", required=False, shell_complete=credential_names(_needs_person))
@CONFIG_OPTION
@click.option(
    "--no-browser", is_flag=True, help="Open no browser here; print the page's address, and take the last."
)
@JSON_OPTION
@ends_with_status
def login(name: str | None, config: str | None, *, no_browser: bool, as_json: bool) -> int:
    """Log in where a person must.

    The token, and what renews it, are kept in the store. NAME may be left out where only one credential needs it.

    Example: bearer-proxy login calendar
    """
    source = find(config, os.environ)
    loaded = load_closed(source)
    chosen = _interactive(loaded, name)
    person = Terminal(os.environ, browser=not no_browser)
    given = loaded.credentials[chosen]
    # What a person pastes is not to be mixed with it.
    pastes = person.can_paste and isinstance(given, OAuthCredential) and given.grant == "authorization_code"
    with waiting("waiting for you", shown=not pastes, aside=as_json) as person.line:
        record = asyncio.run(_log_in(loaded, chosen, person))
    now = time.time()
    if not as_json:
        click.echo(said_of_login(chosen, record, now))
    otherwise = "Restart it, so that it takes the new token."
    told = tell_instance(source.identity, chosen, "has the new token", otherwise)
    if as_json:
        print_json(
            {
                "ok": True,
                "credential": chosen,
                "expires_in": _left(record.expires_at, now),
                "refresh_expires_in": _left(record.refresh_expires_at, now),
                "renewed": record.refresh_token is not None,
                "instance": asdict(told),
            }
        )
    else:
        told.show()
    return 0


@click.command()
@click.argument("name", required=False, shell_complete=credential_names())
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def logout(name: str | None, config: str | None, *, as_json: bool) -> int:
    """End a login: revoke its tokens, and forget them.

    They are forgotten also where the server cannot revoke. NAME may be left out where only one credential needs a
    person.

    Example: bearer-proxy logout calendar
    """
    source = find(config, os.environ)
    loaded = load_closed(source)
    needs_person = name is None or name not in loaded.credentials or _needs_person(loaded.credentials[name])
    chosen = _interactive(loaded, name) if needs_person or name is None else name
    with waiting("asking the server to revoke"):
        ended = asyncio.run(_log_out(loaded, chosen))
    if not as_json:
        for line in said_of_logout(chosen, ended):
            click.echo(line)
    done = "uses the token no more" if needs_person else "has logged in anew"
    told = tell_instance(source.identity, chosen, done, _RESTART, ending=needs_person)
    is_done = told.follows is not False and not ended.failed
    if as_json:
        print_json({"ok": is_done, "credential": chosen, **asdict(ended), "instance": asdict(told)})
    else:
        told.show()
    return 0 if is_done else 1


def _interactive(config: Config, name: str | None) -> str:
    """The credential that is meant; a wrong use names those that can be."""
    names = [each for each, given in config.credentials.items() if _needs_person(given)]
    if not names:
        raise click.UsageError(
            "no credential here needs a person: only those with grant authorization_code or device_code do"
        )
    if name is None:
        if len(names) > 1:
            raise click.UsageError(f"several credentials need a person: write one of {', '.join(names)}")
        return names[0]
    if name not in names:
        known = name in config.credentials
        sentence = "this credential needs no person" if known else "no credential has this name"
        raise click.BadParameter(f"{sentence}: write one of {', '.join(names)}", param_hint="NAME")
    return name


def _left(instant: float | None, now: float) -> float | None:
    """Seconds until then."""
    return None if instant is None else instant - now


async def _log_in(config: Config, name: str, person: Person) -> Record:
    async with _resting(config, name) as (store, binding):
        # A store that cannot be used is told of before anybody is asked.
        await store.load(name, binding)
        async with _outside(config, name, store) as (outside, credential):
            logged_in = await credential.login(person, secrets.token_bytes).run()
            record = await keep(store, name, binding, logged_in)
            # What was rejected before has just been taken.
            await outside.latch.clear(name, config.credentials[name].digest())
    return record


async def _log_out(config: Config, name: str) -> LoggedOut:
    async with _resting(config, name) as (store, binding), _outside(config, name, store) as (_, credential):
        return await log_out(store, name, binding, credential.server)


class _Nobody:
    """Nobody counts token requests here."""

    def token_requested(self, credential: str) -> None:
        """Nothing."""

    def token_obtained(self, credential: str) -> None:
        """Nothing."""

    def token_failed(self, credential: str, code: str) -> None:
        """Nothing."""


@asynccontextmanager
async def _resting(config: Config, name: str) -> AsyncIterator[tuple[Store, bytes]]:
    """The store, and what the credential's record is bound to."""
    store, binding = resting(config, name)
    try:
        yield store, binding
    finally:
        await store.close()


@asynccontextmanager
async def _outside(config: Config, name: str, store: Store) -> AsyncIterator[tuple[Surroundings, Opened]]:
    """A credential without a running instance; whatever is logged on the way is masked."""
    redactor = Redactor(PATTERNS)
    for _, each in config.secrets():
        redactor.register(each.value)
    logs.set_up(redactor, level="warning")
    outside = Surroundings(
        clock=SystemClock(),
        redactor=redactor,
        clients=Clients(),
        random=random.random,
        latch=build_latch(config, state_folder(os.environ), store),
        store=store,
        events=_Nobody(),
    )
    try:
        lenders = Lenders(config, name, outside)
        try:
            yield outside, opened(config, name, outside, lenders)
        finally:
            await lenders.close()
    finally:
        await outside.clients.close()
        # Connections are let go before the loop ends.
        await asyncio.sleep(_GOODBYE_SECONDS)


def said_of_login(name: str, record: Record, wall: float) -> str:
    """One sentence: how long it is good, and when to come again."""
    said = "logged in"
    if record.expires_at is not None:
        left = duration(record.expires_at - wall)
        said += f"; the token of {name} is good until {instant(record.expires_at)} ({left})"
    if record.refresh_token is None and record.expires_at is None:
        return f"{said}; the server does not say how long the token of {name} is good"
    if record.refresh_token is None:
        return f"{said}; the server gave no refresh token: log in again then"
    said += (
        f"; the token of {name} is renewed by itself" if record.expires_at is None else ", and is renewed by itself"
    )
    if record.refresh_expires_at is None:
        return said
    return f"{said}; log in again by {instant(record.refresh_expires_at)}"


def said_of_logout(name: str, ended: LoggedOut) -> list[str]:
    """What became of the tokens."""
    if not ended.found:
        return [f"nothing is stored for {name}"]
    if ended.problem is None:
        return [f"logged out; the tokens of {name} are revoked and forgotten"]
    return [
        f"logged out here; the tokens of {name} are forgotten, but may live on at the server",
        f"reason: {ended.problem}",
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a running instance: does it follow (None: none runs), and that in a sentence."""

    follows: bool | None = None
    said: str | None = None

    def show(self) -> None:
        """Print it; what is in the way goes to standard error."""
        if self.said is not None:
            click.echo(self.said, err=not self.follows)


def tell_instance(identity: str, name: str, done: str, otherwise: str, *, ending: bool = False) -> Told:
    """Have a running instance look at the store again: a refresh takes what is there, or finds nothing.

    What counts is its state afterwards: that it has a token, or (`ending`) that it has none.
    """
    try:
        running = runfile.read(runfile.path_for(identity, os.environ))
        if running is None:
            return Told()
        path = f"/api/credentials/{name}/refresh"
        _, answer = adminclient.ask(running, "POST", path, wait=_REFRESH_SECONDS)
        status, states = adminclient.ask(running, "GET", "/api/credentials", wait=_WAIT_SECONDS)
    except BearerProxyError as error:
        return Told(follows=False, said=f"the running instance could not be told: {error}. {otherwise}")
    reports = states["credentials"] if status == 200 else []
    if any(report["name"] == name and (report["state"] == "invalid") is ending for report in reports):
        return Told(follows=True, said=f"the running instance {done}")
    detail = answer.get("detail")
    why = f": {detail}" if detail else ""
    return Told(follows=False, said=f"the running instance has not followed{why}. {otherwise}")
