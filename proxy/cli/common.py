"""What several commands share: the options that name a configuration, and how errors end a command."""

import functools
import json
import os
import sys
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec

import click

from proxy.cli.looks import painted, waiting
from proxy.config import Config, Source, find, load, quick
from proxy.config.presets import presets
from proxy.config.secrets import SecretReader
from proxy.errors import BearerProxyError, ConfigError
from proxy.findings import Finding
from proxy.patterns import PATTERNS
from proxy.process import close_to_others
from proxy.redact import Redactor

P = ParamSpec("P")

CONFIG_OPTION: Final = click.option(
    "-c",
    "--config",
    metavar="PATH",
    help="The configuration file. Default: $BEARER_PROXY_CONFIG, the text in $BEARER_PROXY_CONFIG_YAML, "
    "./bearer-proxy.yaml, or bearer-proxy/config.yaml in $XDG_CONFIG_HOME.",
)
_QUICK_OPTIONS: Final = (
    click.option("--upstream", metavar="URL", help="This one upstream, without a configuration file."),
    click.option("--token-env", metavar="NAME", help="With --upstream: the variable that holds the token."),
    click.option("--token-file", metavar="PATH", help="With --upstream: the file that holds the token."),
    click.option("--token-stdin", is_flag=True, help="With --upstream: read the token from standard input."),
    click.option("--listen", metavar="ADDR", help="With --upstream: host:port or unix:/path. [127.0.0.1:8080]"),
)
#: A token is shorter; more on standard input is the wrong file.
_STDIN_LIMIT: Final = 64 * 1024
JSON_OPTION: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say of the configuration: the file that holds it, or its quick form."""

    config: str | None
    upstream: str | None
    token_env: str | None
    token_file: str | None
    listen: str | None
    token_stdin: bool

    def source(self) -> Source:
        """The configuration that is meant. Raises `ConfigError`; `UsageError` for options that exclude others."""
        if self.upstream is None:
            if self.token_env or self.token_file or self.token_stdin or self.listen:
                raise click.UsageError(
                    "--token-env, --token-file, --token-stdin and --listen go with --upstream URL."
                )
            return find(self.config, os.environ)
        if self.config:
            raise click.UsageError("Use either --config or --upstream.")
        stdin = sys.stdin.read(_STDIN_LIMIT) if self.token_stdin else None
        return quick(
            self.upstream,
            self.listen,
            token_env=self.token_env,
            token_file=self.token_file,
            token_stdin=stdin,
        )


def takes_source(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that `run` has for its configuration, as one argument: `given`."""

    @functools.wraps(command)
    def taking(
        *args: object,
        config: str | None,
        upstream: str | None,
        token_env: str | None,
        token_file: str | None,
        listen: str | None,
        token_stdin: bool,
        **others: object,
    ) -> None:
        given = Given(config, upstream, token_env, token_file, listen, token_stdin)
        command(*args, given=given, **others)

    for option in reversed((CONFIG_OPTION, *_QUICK_OPTIONS)):
        taking = option(taking)
    return taking


def ends_with_status(command: Callable[P, int]) -> Callable[P, None]:
    """Make what `command` returns the exit status; a known error is printed to standard error, one problem a line.

    With `--json` that is a document on standard output.
    2: the configuration cannot be used; 1: it failed at run time.
    """

    @functools.wraps(command)
    def ending(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except ConfigError as error:
            _print_problems(error.problems)
            status = 2
        except BearerProxyError as error:
            _print_problems([str(error)])
            status = 1
        click.get_current_context().exit(status)

    return ending


def _print_problems(problems: list[str]) -> None:
    if click.get_current_context().params.get("as_json"):
        print_json({"ok": False, "problems": problems})
        return
    for problem in problems:
        click.echo(problem, err=True)


def load_closed(source: Source, *, reads: type[SecretReader] = SecretReader) -> Config:
    """The configuration, secrets read, in a process that nobody else can look into. Raises `ConfigError`."""
    close_to_others(os.environ)
    return load(source, environ=os.environ, reads=reads)


def masking() -> Redactor:
    """What masks in the log: no value yet, but all that credentials and the tokens of presets look like."""
    return Redactor([*PATTERNS, *(pattern for preset in presets().values() for pattern in preset.redact)])


async def report(findings: AsyncIterable[Finding], *, as_json: bool, about: str) -> int:
    """Print what was found, each line as soon as it is, or one document; 1 where something is a failure.

    `about` says on a terminal what is waited for meanwhile.
    """
    found = []
    with waiting(about) as line:
        async for each in findings:
            found.append(each)
            if not as_json:
                line.say(f"{painted(f'{each.status:8}', each.status)} {each.what}: {each.detail}")
    if as_json:
        print_json({"findings": [asdict(each) for each in found]})
    return int(any(each.status == "failure" for each in found))


def print_json(document: Any) -> None:  # noqa: ANN401  whatever JSON takes
    """Print an indented JSON document in ASCII."""
    click.echo(json.dumps(document, indent=2))


def state_folder(environ: Mapping[str, str]) -> Path:
    """The folder for what outlives the process. Raises `ConfigError` where no variable says it.

    In a unit of systemd that is its `StateDirectory=`, the first of several (systemd.exec(5)).
    """
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "bearer-proxy"
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if environ.get("HOME"):
        return Path(environ["HOME"]) / ".local" / "state" / "bearer-proxy"
    raise ConfigError(["neither HOME nor XDG_STATE_HOME is set: set one, so that there is a place for state"])
