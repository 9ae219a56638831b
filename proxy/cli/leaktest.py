"""The command that tries whether a secret comes out."""

import asyncio
import os

import click

from proxy.cli.common import CONFIG_OPTION, JSON_OPTION, ends_with_status, load_closed, report
from proxy.config import find
from proxy.config.unread import UnreadSecrets
from proxy.leaktest.mint import Mint
from proxy.leaktest.run import tried


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
    loaded = load_closed(find(config, os.environ), reads=UnreadSecrets)
    return asyncio.run(report(tried(loaded, Mint()), as_json=as_json, about="letting everything go wrong"))
