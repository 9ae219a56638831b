"""The command line: `main`, and one module for each group of commands. They parse, call and print, no more."""

import click

from proxy import __version__
from proxy.cli.ask import healthcheck, token
from proxy.cli.configuration import check, presets, schema
from proxy.cli.demo import demo
from proxy.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bearer-proxy")
def main() -> None:
    """A local proxy that adds the bearer token, so that your tools need not.

    \b
    Try it:  bearer-proxy demo
    Use it:  bearer-proxy run --upstream https://api.example.com --token-env API_TOKEN
             curl http://127.0.0.1:8080/
    """  # noqa: D301  a mark of click: keep these lines as they are


for command in (run, check, token, presets, schema, demo, healthcheck):
    main.add_command(command)
