"""The command line: `main`, and one module for each group of commands. They parse, call and print, no more."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from proxy import __version__
from proxy.cli.looks import wish
from proxy.compiled import is_compiled
from proxy.names import shown_words

#: Where each command stands. Only the one that is called is imported: the server takes half a second.
_MODULES: Final = {
    "check": "check",
    "demo": "demo",
    "doctor": "doctor",
    "exec": "exec",
    "explain": "explain",
    "healthcheck": "ask",
    "init": "reference",
    "keygen": "keygen",
    "leaktest": "leaktest",
    "login": "login",
    "logout": "login",
    "presets": "reference",
    "run": "run",
    "schema": "reference",
    "token": "ask",
}


class _Commands(click.Group):
    """A group that imports its commands when they are called."""

    def make_context(self, *args: Any, **named: Any) -> click.Context:  # noqa: ANN401  click's contract
        """Parse what stands before the name of a command."""
        named.setdefault("color", wish(os.environ))
        with _quoting_no_secret():
            return super().make_context(*args, **named)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  same
        """Parse the rest, and call the command."""
        with _quoting_no_secret():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's contract
        """Every name, in alphabetical order."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  same
        """The command of this name."""
        if cmd_name not in _MODULES:
            return None
        there = vars(importlib.import_module(f"proxy.cli.{_MODULES[cmd_name]}")).values()
        return next(each for each in there if isinstance(each, click.Command) and each.name == cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; a slip is told with the name that is nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415  what only mistakes need

            for near in get_close_matches(args[0], _MODULES, 1):
                raise click.UsageError(f"{error.format_message()} Did you mean '{near}'?", ctx) from None
            raise


@contextmanager
def _quoting_no_secret() -> Iterator[None]:
    """Click repeats what it does not know; a token that was pasted there stays unsaid (threat 75)."""
    try:
        yield
    except click.UsageError as error:
        said = error.format_message()
        if (quiet := shown_words(said)) == said:
            raise
        raise click.UsageError(quiet, error.ctx) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="bearer-proxy",
    message=f"%(prog)s, version %(version)s{' (compiled)' if is_compiled() else ''}",
)
def main() -> None:
    """A local proxy that adds the bearer token, so that your tools need not.

    \b
    Try it:  bearer-proxy demo
    Use it:  bearer-proxy run --upstream https://api.example.com --token-env API_TOKEN
             curl http://127.0.0.1:8080/
    """  # noqa: D301  a mark of click: keep these lines as they are
