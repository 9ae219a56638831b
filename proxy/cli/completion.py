"""What a shell completes behind a command: names of presets and of credentials, methods.

Law: no secret is read, nobody is asked, and what cannot be told is not: the shell shows nothing then.
"""

import os
from collections.abc import Callable
from typing import Final

import click

from proxy.cli.common import load_closed
from proxy.config import CredentialConfig, find
from proxy.config.presets import presets
from proxy.config.unread import UnreadSecrets
from proxy.errors import BearerProxyError

#: Those of RFC 9110 section 9.3 that are sent through a proxy such as this one, and PATCH (RFC 5789).
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def preset_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The presets whose names begin so; an alias where it was begun."""
    names = [*presets(), *(alias for each in presets().values() for alias in each.aliases if begun)]
    return [name for name in names if name.startswith(begun)]


def methods(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The methods that begin so, in capitals or not."""
    return [method for method in _METHODS if method.startswith(begun.upper())]


def credential_names(
    wanted: Callable[[CredentialConfig], bool] = lambda _given: True,
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes the `wanted` credentials of the configuration that the command would use."""

    def names(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        try:
            config = load_closed(find(context.params.get("config"), os.environ), reads=UnreadSecrets)
        except (BearerProxyError, OSError):
            return []
        return [name for name, given in config.credentials.items() if name.startswith(begun) and wanted(given)]

    return names
