"""The reference of commands and settings, made of the program itself.

Usage: `python -m tests.support.reference` writes docs/reference.md anew.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli import main as cli
from proxy.config.schema import schema

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference.md"
#: So many choices are all of them.
_MANY: Final = 8
_HEAD: Final = """# Reference

Made of the program by `python -m tests.support.reference`; a test compares. What things mean together is in
[configuration](configuration.md), what each vendor needs in [credentials](credentials.md).

Commands say what is wrong in one sentence a problem, on standard error; with `--json` they print
`{"ok": false, "problems": [...]}` on standard output. Exit status: 0 done, 1 failed at run time,
2 wrong usage or configuration; of `exec` that of the program. On a terminal there are colours, unless `NO_COLOR` is
set or `TERM` is `dumb`; `FORCE_COLOR` has them in a pipe, too. What is waited for is told on a terminal only.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, "## Commands", "", *_commands(), "## Settings", "", *_settings()]).rstrip() + "\n"


def _commands() -> Iterator[str]:
    with click.Context(cli, info_name="bearer-proxy", terminal_width=1000, max_content_width=1000) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            with click.Context(command, info_name=name, parent=context, terminal_width=1000) as inner:
                yield from [f"### {name}", "", f"`{command.get_usage(inner).removeprefix('Usage: ')}`", ""]
            for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
                yield from _paragraph(paragraph)
            rows = [_option(each) for each in command.params if isinstance(each, click.Option)]
            if rows:
                yield from ["| option | does |", "|---|---|", *rows, ""]


def _paragraph(text: str) -> Iterator[str]:
    lines = text.replace("\b", "").strip("\n").splitlines()
    if "Example" not in lines[0]:
        yield from [*lines, ""]
        return
    calls = [line.partition(":")[2] if "Example" in line else line for line in lines]
    yield from ["```text", *(call.strip() for call in calls), "```", ""]


def _option(option: click.Option) -> str:
    metavar = f" {option.metavar}" if option.metavar else ""
    names = ", ".join(f"`{name}{metavar}`" for name in option.opts)
    return f"| {names} | {_cell(option.help or '')} |"


def _settings() -> Iterator[str]:
    found = schema()
    for name, section in {"The file": found, **found["$defs"]}.items():
        yield from [f"### {name}", ""]
        if "properties" not in section:
            yield from [f"{_kind(section)}. {_cell(section.get('description', ''))}".rstrip(), ""]
            continue
        required = set(section.get("required", ()))
        yield from ["| setting | is | default | |", "|---|---|---|---|"]
        for key, given in section["properties"].items():
            default = (
                "needed" if key in required else f"`{json.dumps(given['default'])}`" if "default" in given else ""
            )
            yield f"| `{key}` | {_kind(given)} | {_cell(default)} | {_cell(given.get('description', ''))} |"
        yield ""


def _kind(given: Mapping[str, Any]) -> str:
    """What may stand there, in a few words."""
    for choice in ("anyOf", "oneOf"):
        if len(given.get(choice, ())) > _MANY:
            return "a credential: its `type`, or `preset: NAME`"
        if choice in given:
            return " or ".join(dict.fromkeys(_kind(each) for each in given[choice]))
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower().replace(' ', '-')})"
    if "const" in given or "enum" in given:
        values = given.get("enum", [given.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    kind = given.get("type", "anything")
    if kind == "array":
        return f"a list of {_kind(given.get('items', {}))}"
    if kind == "object" and isinstance(given.get("additionalProperties"), Mapping):
        return f"names with {_kind(given['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
