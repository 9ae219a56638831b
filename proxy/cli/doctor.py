"""The command that tries a configuration for real."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

import click

from proxy.cli.common import JSON_OPTION, Given, ends_with_status, load_closed, report, state_folder, takes_source
from proxy.config import Config
from proxy.doctor import examine
from proxy.findings import Finding
from proxy.redact import Redactor
from proxy.server import World


@click.command()
@takes_source
@JSON_OPTION
@ends_with_status
def doctor(given: Given, *, as_json: bool) -> int:
    """Try a configuration for real.

    Names, certificates, clocks, the store, token requests, and one harmless request to each upstream.
    A line is ok, a warning or a failure with what mends it; a failure makes the exit status 1.

    Example: bearer-proxy doctor -c config.yaml
    """
    # The findings say it all.
    logging.disable(logging.CRITICAL)
    examined = _examined(load_closed(given.source()))
    return asyncio.run(report(examined, as_json=as_json, about="asking servers"))


async def _examined(config: Config) -> AsyncIterator[Finding]:
    redactor = Redactor()
    async for each in examine(config, World(redactor, state_folder(os.environ))):
        yield Finding(each.status, each.what, redactor.text(each.detail))
