"""The command that shows the main job without config, network or account."""

import click

from proxy.cli.common import JSON_OPTION, ends_with_status


@click.command()
@click.option("--serve", is_flag=True, help="Leave everything running, and print URLs to try.")
@JSON_OPTION
@ends_with_status
def demo(*, serve: bool, as_json: bool) -> int:
    """Show what the proxy does, on vendor APIs of its own.

    Example: bearer-proxy demo
    """
    from proxy.demo.transcript import main as play  # noqa: PLC0415  no other command needs the vendor APIs

    return play(serve=serve, as_json=as_json)
