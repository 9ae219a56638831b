"""The commands that tell what a configuration may say: `presets`, `init`, `schema`."""

import os
from dataclasses import asdict

import click
import yaml

from proxy.cli.common import JSON_OPTION, ends_with_status, print_json
from proxy.cli.completion import preset_names
from proxy.config.presets import named, unknown
from proxy.config.presets import presets as all_presets
from proxy.config.presettext import show, starter
from proxy.config.schema import schema as json_schema
from proxy.config.sources import FILE_NAME
from proxy.errors import ConfigError


@click.command()
@click.argument("name", required=False, shell_complete=preset_names)
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
@click.argument("preset", shell_complete=preset_names)
@click.option("-o", "--output", metavar="PATH", default=FILE_NAME, show_default=True, help="Where; - prints it.")
@JSON_OPTION
@ends_with_status
def init(preset: str, output: str, *, as_json: bool) -> int:
    """Write a configuration to begin with, from a preset.

    Example: bearer-proxy init github-app
    """
    known = named(preset)
    if known is None:
        raise click.BadParameter(unknown(preset), param_hint="PRESET")
    text, path = starter(known.name), None if output == "-" else output
    if path is not None:
        _write_new(path, text)
    if as_json:
        print_json({"ok": True, "preset": known.name, "path": path, "text": text})
    elif path is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"Wrote {path}. Fill it in, then run `bearer-proxy check`, and `bearer-proxy doctor`.")
    return 0


def _write_new(path: str, text: str) -> None:
    """Write a file that was not there. Raises `ConfigError`."""
    try:
        # Who fills in secrets after all finds a file that nobody else reads.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123  a descriptor
            file.write(text)
    except FileExistsError:
        raise ConfigError([f"{path} is there already: name another file with -o PATH"]) from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be written ({os.strerror(error.errno or 0)})"]) from None


@click.command()
@ends_with_status
def schema() -> int:
    """Print the JSON Schema of the configuration, for editors.

    Example: bearer-proxy schema > bearer-proxy.schema.json
    """
    print_json(json_schema())
    return 0
