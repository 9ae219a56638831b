"""The commands that ask a running instance: `token`, `healthcheck`."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from proxy import adminclient, runfile
from proxy import healthcheck as health
from proxy.cli.common import CONFIG_OPTION, JSON_OPTION, ends_with_status, print_json
from proxy.cli.completion import credential_names
from proxy.cli.looks import waiting
from proxy.cli.table import lines
from proxy.errors import BearerProxyError

_WAIT_SECONDS: Final = 5.0
#: The instance itself bounds a refresh by the `timeouts.token` of its routes; this only ends a hang.
_REFRESH_SECONDS: Final = 300.0


class _AskError(BearerProxyError):
    """The running instance cannot be asked, or refused; the message is what to print."""


@click.command()
@click.argument("name", required=False, shell_complete=credential_names())
@click.option("--refresh", is_flag=True, help="Get a new token now; NAME may be left out where there is only one.")
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def token(name: str | None, config: str | None, *, refresh: bool, as_json: bool) -> int:
    """Show the state of the credentials, never a value.

    Example: bearer-proxy token billing --refresh
    """
    running = runfile.find(config, os.environ)
    reports = _asked(running, "GET", "/api/credentials")["credentials"]
    names = [report["name"] for report in reports]
    if name is not None and name not in names:
        raise click.BadParameter(f"no credential has this name: write one of {', '.join(names)}", param_hint="NAME")
    chosen = [report for report in reports if name in (None, report["name"])]
    if refresh:
        if len(chosen) != 1:
            raise click.UsageError(f"--refresh is for one credential: write one of {', '.join(names)}")
        path = f"/api/credentials/{chosen[0]['name']}/refresh"
        with waiting("asking for a new token"):
            chosen = [_asked(running, "POST", path, wait=_REFRESH_SECONDS)]
    if as_json:
        print_json({"credentials": chosen})
    else:
        _print(chosen)
    return 0


def _asked(running: runfile.Running, method: str, path: str, *, wait: float = _WAIT_SECONDS) -> dict[str, Any]:
    status, answer = adminclient.ask(running, method, path, wait=wait)
    if status != 200:
        raise _AskError(str(answer.get("detail") or f"the admin listener answered with status {status}"))
    return answer


def _print(reports: Iterable[Mapping[str, Any]]) -> None:
    for line in lines(reports, time.time()):
        click.echo(line)


@click.command()
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def healthcheck(config: str | None, *, as_json: bool) -> int:
    """Exit with 0 if the running instance is ready, else 1.

    Example: bearer-proxy healthcheck
    """
    return health.check(config, as_json=as_json)
