"""The command that makes a key for the store."""

import base64
import os

import click

from proxy.cli.common import JSON_OPTION, ends_with_status, print_json


@click.command()
@JSON_OPTION
@ends_with_status
def keygen(*, as_json: bool) -> int:
    """Print a new key for the store: 32 random bytes, in base64.

    Example: (umask 077; bearer-proxy keygen > store.key)
    """
    key = base64.b64encode(os.urandom(32)).decode("ascii")
    if as_json:
        print_json({"ok": True, "key": key})
    else:
        click.echo(key)
    return 0
