"""The commands that tell what a configuration may say: `presets`, `schema`."""

from dataclasses import asdict

import click
import yaml

from proxy.cli.common import JSON_OPTION, ends_with_status, print_json
from proxy.config.presets import named, show, unknown
from proxy.config.presets import presets as all_presets
from proxy.config.schema import schema as json_schema


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
