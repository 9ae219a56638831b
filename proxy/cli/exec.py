"""The command that serves for as long as another command runs."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import click

from proxy import logs
from proxy.build.guard import in_a_host_field, key_for
from proxy.child import NOT_EXECUTABLE, NOT_FOUND, Child
from proxy.cli.common import CONFIG_OPTION, ends_with_status, load_closed, masking, state_folder
from proxy.cli.reload import warn
from proxy.cli.run import end, run_to_end
from proxy.config import Config, RouteConfig, TcpAddress, find, quick
from proxy.config.exported import DEFAULT, default_route, variable_of
from proxy.config.model import LogConfig
from proxy.lines import Lines
from proxy.names import shown_words
from proxy.process import raise_descriptors, settle
from proxy.server import Instance, World

log: Final = logging.getLogger("proxy")

#: Where it listens, whatever the configuration says: the program is on this machine.
_HOST: Final = "127.0.0.1"


@click.command("exec", context_settings={"allow_interspersed_args": False})
@CONFIG_OPTION
@click.option("--upstream", metavar="URL", help="Serve this one upstream, without a configuration file.")
@click.option("--token-env", metavar="NAME", help="With --upstream: the variable that holds the token.")
@click.option("--token-file", metavar="PATH", help="With --upstream: the file that holds the token.")
@click.argument("command", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@ends_with_status
def exec_(
    command: tuple[str, ...],
    config: str | None,
    upstream: str | None,
    token_env: str | None,
    token_file: str | None,
) -> int:
    """Serve while CMD runs, and tell it where.

    CMD finds the URL in BEARER_PROXY_URL, that of each route in BEARER_PROXY_URL_NAME, and those of exec.env; it
    does not get the variables that hold secrets. The exit status is that of CMD, 128 and more for a signal.

    \b
    Examples: bearer-proxy exec -c config.yaml -- make sync
              bearer-proxy exec --upstream https://api.example.com --token-env API_TOKEN -- ./report
    """  # noqa: D301  a mark of click: keep these lines as they are
    redactor, lines = masking(), Lines(sys.stderr)
    logs.set_up(redactor, level="warning", lines=lines)
    if upstream is None:
        if token_env or token_file:
            raise click.UsageError("--token-env and --token-file go with --upstream URL.")
        source = find(config, os.environ)
    else:
        if config:
            raise click.UsageError("Use either --config or --upstream.")
        source = quick(upstream, f"{_HOST}:0", token_env=token_env, token_file=token_file)
    loaded = beside_a_program(load_closed(source))
    logs.set_up(redactor, level=loaded.log.level, style=loaded.log.format, lines=lines)
    world = World(redactor, state_folder(os.environ), lines=lines)
    child = Child()
    raise_descriptors()
    return run_to_end(_serve(loaded, world, child, command))


def beside_a_program(config: Config) -> Config:
    """The same on free ports of loopback; what is logged does not drown what the program says."""
    admin, guard, said = config.admin, config.guard, config.log
    if admin.listen is not None:
        admin = admin.model_copy(update={"listen": replace(admin.listen, port=0)})
    if isinstance(guard.peers.uids, tuple):
        # The program runs as the proxy does, whoever else may connect.
        peers = guard.peers.model_copy(update={"uids": ("self", *guard.peers.uids)})
        guard = guard.model_copy(update={"peers": peers})
    if "level" not in said.model_fields_set:
        access = said.access if "access" in said.model_fields_set else False
        said = LogConfig(level="warning", format=said.format, access=access)
    listen = (TcpAddress(_HOST, 0),)
    return config.model_copy(update={"listen": listen, "admin": admin, "guard": guard, "log": said})


async def _serve(config: Config, world: World, child: Child, command: tuple[str, ...]) -> int:
    """Start, serve until the program has ended, end; gives its status."""
    warn(config)
    instance = await Instance.start(config, world)
    settle(config.admin.inspector.exchanges)
    leaving = asyncio.create_task(_told(instance.leave, child))
    try:
        log.info("admin_listening", extra={"fields": {"url": instance.admin_url}})
        given = exported(config, urlsplit(instance.urls[0]).port or 0)
        if DEFAULT not in given and not config.exec.env:
            detail = f"no route is at /, so there is no {DEFAULT}: use that of a route, {', '.join(given)}"
            log.warning("no_default_url", extra={"fields": {"detail": detail}})
        return await child.run(command, _environ(config, given))
    except OSError as error:
        click.echo(f"{shown_words(command[0])} cannot be started: {os.strerror(error.errno or 0)}", err=True)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        leaving.cancel()
        await end(instance, child.hurry)


async def _told(leave: asyncio.Event, child: Child) -> None:
    """Somebody wants the proxy to end (`/quit`): not before the program has."""
    await leave.wait()
    child.end()


def exported(config: Config, port: int) -> dict[str, str]:
    """The URLs by the variables that hold them: that of the default route first, if there is one."""
    urls = {route.name: _url(route, config, port) for route in config.routes}
    default = default_route(config.routes)
    return {
        **({} if default is None else {DEFAULT: urls[default.name]}),
        **{variable_of(name): url for name, url in urls.items()},
        **{variable: urls[name] for variable, name in config.exec.env.items()},
    }


def _url(route: RouteConfig, config: Config, port: int) -> str:
    """Where the route is, with the client key where one is needed, and without a slash at its end."""
    host = _HOST if route.host is None else in_a_host_field(route.host)
    prefix = route.prefix.rstrip("/")
    key = key_for(config, f"{prefix}/")
    return f"http://{host}:{port}{'' if key is None else f'/~{key.secret.reveal()}'}{prefix}"


def _environ(config: Config, given: Mapping[str, str]) -> dict[str, str]:
    """What the program finds: no secret of ours, and no URL of a proxy in which this one runs itself."""
    withheld = {*config.withheld(), DEFAULT}
    return {**{name: value for name, value in os.environ.items() if name not in withheld}, **given}
