"""The commands about configurations: `check`, `presets`, `schema`."""

import asyncio
import os
from dataclasses import asdict

import click
import yaml

from proxy.cli.common import CONFIG_OPTION, JSON_OPTION, ends_with_status, print_json, state_folder
from proxy.config import Config, effective, find, load
from proxy.config import schema as json_schema
from proxy.config.presets import named, show, unknown
from proxy.config.presets import presets as all_presets
from proxy.errors import ConfigError
from proxy.redact import Redactor
from proxy.server import Instance, World


@click.command()
@CONFIG_OPTION
@JSON_OPTION
@ends_with_status
def check(config: str | None, *, as_json: bool) -> int:
    """Show what is wrong with a configuration, or all of it.

    Every mistake is named at once; without one, the whole configuration is printed, secrets masked.

    Example: bearer-proxy check -c config.yaml
    """
    try:
        loaded = load(find(config, os.environ), environ=os.environ)
        asyncio.run(_build(loaded))
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": error.problems, "warnings": [], "config": None})
        return 2
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


@click.command()
@click.argument("name", required=False)
@JSON_OPTION
@ends_with_status
def presets(name: str | None, *, as_json: bool) -> int:
    """List the presets, or show what one stands for.

    Example: bearer-proxy presets teletracker
    """
    if name is None:
        found = list(all_presets().values())
        if as_json:
            print_json([{"name": each.name, "aliases": each.aliases, "title": each.title} for each in found])
        else:
            width = max(len(each.name) for each in found)
            for each in found:
                aliases = f" (also {', '.join(each.aliases)})" if each.aliases else ""
                click.echo(f"{each.name:{width}}  {each.title}{aliases}")
        return 0
    preset = named(name)
    if preset is None:
        raise click.BadParameter(unknown(name), param_hint="NAME")
    if as_json:
        print_json(
            {
                "name": preset.name,
                "aliases": preset.aliases,
                "title": preset.title,
                "parameters": [asdict(each) for each in preset.parameters],
                "config": yaml.safe_load(show(preset.name)),
                "facts": [asdict(each) for each in preset.facts],
            }
        )
    else:
        click.echo(show(preset.name), nl=False)
    return 0


@click.command()
@ends_with_status
def schema() -> int:
    """Print the JSON Schema of the configuration, for editors.

    Example: bearer-proxy schema > bearer-proxy.schema.json
    """
    print_json(json_schema())
    return 0
