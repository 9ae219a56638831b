"""The command that tries whether a secret comes out."""

import asyncio
import os
from dataclasses import asdict

import click

from proxy.cli.common import CONFIG_OPTION, JSON_OPTION, ends_with_status, print_json
from proxy.config import Config, find, load
from proxy.config.unread import UnreadSecrets
from proxy.findings import Finding
from proxy.leaktest.mint import Mint
from proxy.leaktest.run import tried
from proxy.process import close_to_others


@click.command()
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def leaktest(config: str | None, *, as_json: bool) -> int:
    """Try whether a secret comes out.

    Runs copies of the proxy with this configuration, made-up secrets and far ends of its own, lets everything go
    wrong, and searches all that they show. No secret is read, and nothing leaves this machine.

    Example: bearer-proxy leaktest -c config.yaml
    """
    close_to_others(os.environ)
    loaded = load(find(config, os.environ), environ=os.environ, reads=UnreadSecrets)
    found = asyncio.run(_tried(loaded, quiet=as_json))
    if as_json:
        print_json({"findings": [asdict(each) for each in found]})
    return int(any(each.status == "failure" for each in found))


async def _tried(config: Config, *, quiet: bool) -> list[Finding]:
    found = []
    async for finding in tried(config, Mint()):
        found.append(finding)
        if not quiet:
            click.echo(f"{finding.status:8} {finding.what}: {finding.detail}")
    return found
