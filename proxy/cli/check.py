"""The command that says what is wrong with a configuration."""

import asyncio
import os

import click
import yaml

from proxy.cli.common import (
    JSON_OPTION,
    Given,
    ends_with_status,
    load_closed,
    print_json,
    state_folder,
    takes_source,
)
from proxy.config import Config
from proxy.config.effective import effective
from proxy.redact import Redactor
from proxy.server import Instance, World


@click.command()
@takes_source
@JSON_OPTION
@ends_with_status
def check(given: Given, *, as_json: bool) -> int:
    """Show what is wrong with a configuration, or all of it.

    Every mistake is named at once; without one, the whole configuration is printed, secrets masked.

    Example: bearer-proxy check -c config.yaml
    """
    loaded = load_closed(given.source())
    asyncio.run(_build(loaded))
    text = effective(loaded)
    if as_json:
        print_json({"ok": True, "problems": [], "warnings": loaded.warnings, "config": yaml.safe_load(text)})
        return 0
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(text, nl=False)
    return 0


async def _build(config: Config) -> None:
    """Make everything that a run would make, listeners apart: some mistakes show only then."""
    await Instance(config, World(Redactor(), state_folder(os.environ))).close()
