"""The command that makes a key for the store."""

import base64
import os

import click

from proxy.cli.common import ends_with_status


@click.command()
@ends_with_status
def keygen() -> int:
    """Print a new key for the store: 32 random bytes, in base64.

    Example: (umask 077; bearer-proxy keygen > store.key)
    """
    click.echo(base64.b64encode(os.urandom(32)).decode("ascii"))
    return 0
