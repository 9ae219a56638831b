"""The command that tries a configuration for real."""

import asyncio
import logging
import os
from dataclasses import asdict

import click

from proxy.cli.common import CONFIG_OPTION, JSON_OPTION, ends_with_status, load_closed, print_json, state_folder
from proxy.config import Config, find
from proxy.doctor import examine
from proxy.findings import Finding
from proxy.redact import Redactor
from proxy.server import World


@click.command()
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def doctor(config: str | None, *, as_json: bool) -> int:
    """Try a configuration for real.

    Names, certificates, clocks, the store, token requests, and one harmless request to each upstream.
    A line is ok, a warning or a failure with what mends it; a failure makes the exit status 1.

    Example: bearer-proxy doctor -c config.yaml
    """
    # The findings say it all.
    logging.disable(logging.CRITICAL)
    found = asyncio.run(_examined(load_closed(find(config, os.environ)), quiet=as_json))
    if as_json:
        print_json({"findings": [asdict(each) for each in found]})
    return int(any(each.status == "failure" for each in found))


async def _examined(config: Config, *, quiet: bool) -> list[Finding]:
    redactor = Redactor()
    found = []
    async for each in examine(config, World(redactor, state_folder(os.environ))):
        finding = Finding(each.status, each.what, redactor.text(each.detail))
        found.append(finding)
        if not quiet:
            click.echo(f"{finding.status:8} {finding.what}: {finding.detail}")
    return found
