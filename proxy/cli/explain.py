"""The command that says what would become of a request."""

import base64
import os
from collections.abc import Iterator
from dataclasses import asdict
from urllib.parse import unquote_to_bytes

import click

from proxy.cli.common import JSON_OPTION, Given, ends_with_status, load_closed, masking, print_json, takes_source
from proxy.cli.completion import methods
from proxy.cli.looks import painted
from proxy.clock import SystemClock
from proxy.config import Config, ListenAddress, PassedSockets, TcpAddress, UnixAddress
from proxy.explain.crossing import Note
from proxy.explain.way import Explanation, explained


@click.command()
@click.argument("method", shell_complete=methods)
@click.argument("url")
@click.option("-H", "--header", "headers", multiple=True, metavar="FIELD", help="A header: 'Name: value'; several.")
@takes_source
@JSON_OPTION
@ends_with_status
def explain(method: str, url: str, headers: tuple[str, ...], given: Given, *, as_json: bool) -> int:
    """Say what would become of a request, without sending it.

    Which listener, guard, route and rule judge it, where it would go, with which credential, and which headers are
    dropped and added. URL is as a client would call it, or a path. The exit status is 1 where it would be refused.

    Example: bearer-proxy explain GET http://127.0.0.1:8080/calls -H 'Origin: http://localhost:3000'
    """
    loaded = load_closed(given.source())
    authority, target = _parts(url)
    address, is_there = _listener(loaded, authority)
    port = _port(address, authority)
    raw = _head(method, target, _fields(authority, address, headers))
    found = explained(loaded, raw, port=port, clock=SystemClock(), redactor=masking())
    listener = str(address) if is_there else f"none has this port; as if it came to {address}"
    if as_json:
        print_json({"listener": listener, **asdict(found)})
    else:
        for what, detail in _rows(listener, found):
            shown = painted(detail, found.outcome) if what == "outcome" else detail
            click.echo(f"{what:10}  {shown}".rstrip())
    return int(found.outcome == "refused")


def _parts(url: str) -> tuple[str, str]:
    """Host and port (empty for a path alone), and the target as it is written; clients keep the fragment."""
    shown, _, _ = url.partition("#")
    if shown.startswith("/"):
        return "", shown
    if not shown.lower().startswith("http://"):
        sentence = "write it as a client calls the proxy, such as http://127.0.0.1:8080/calls, or a path alone"
        raise click.BadParameter(sentence, param_hint="URL")
    rest = shown[len("http://") :]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    target = rest[end:]
    return rest[:end], target if target.startswith("/") else f"/{target}"


def _listener(config: Config, authority: str) -> tuple[ListenAddress, bool]:
    """Who takes the connection, and whether somebody does: behind a published port the port is another one."""
    if not authority:
        return config.listen[0], True
    port = _named_port(authority)
    for address in config.listen:
        if isinstance(address, TcpAddress) and address.port in (0, port):
            return address, True
    # Only the service manager knows at which ports.
    passed = PassedSockets()
    return (passed, True) if passed in config.listen else (config.listen[0], False)


def _named_port(authority: str) -> int:
    digits = authority.rpartition(":")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 80


def _port(address: ListenAddress, authority: str) -> int | None:
    if isinstance(address, UnixAddress):
        return None
    return (isinstance(address, TcpAddress) and address.port) or _named_port(authority)


def _fields(authority: str, address: ListenAddress, headers: tuple[str, ...]) -> Iterator[str]:
    """The field lines, those that clients add by themselves first."""
    for each in headers:
        if ":" not in each or "\n" in each or "\r" in each:
            raise click.BadParameter("write 'Name: value', in one line", param_hint="-H")
    names = {each.partition(":")[0].strip().lower() for each in headers}
    user, at, host = authority.rpartition("@")
    if "host" not in names:
        port = _port(address, authority)
        yield f"Host: {host or ('localhost' if port in (None, 80) else f'localhost:{port}')}"
    if at and "authorization" not in names:
        yield f"Authorization: Basic {base64.b64encode(unquote_to_bytes(user)).decode('ascii')}"
    yield from headers


def _head(method: str, target: str, fields: Iterator[str]) -> bytes:
    return os.fsencode("\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]))


def _rows(listener: str, found: Explanation) -> Iterator[tuple[str, str]]:
    """What was found out, step by step; the last row is the outcome."""
    yield "listener", listener
    if found.stage != "listener":
        yield "guard", "refuses it" if found.stage == "guard" and found.outcome == "refused" else "admits it"
    if found.client is not None:
        yield "client", found.client
    if found.route_why is not None:
        yield "route", found.route_why if found.route is None else f"{found.route}, by {found.route_why}"
    if found.rule is not None:
        yield "rules", found.rule
    if found.upstream is not None:
        yield "upstream", found.upstream
    if found.credential_why is not None:
        yield "credential", " ".join(filter(None, [found.credential, found.credential_why]))
    for what, notes in (("dropped", found.dropped), ("added", found.added), ("kept", found.kept)):
        for note in notes:
            yield what, _line(note)
    answer = [str(each) for each in (found.status, found.code) if each is not None]
    said = f" with {' '.join(answer)}" if answer else ""
    yield "outcome", f"{found.outcome}{said}{f': {found.detail}' if found.detail else ''}"


def _line(note: Note) -> str:
    value = "" if note.value is None else f": {note.value}"
    return f"{note.name}{value}{f' ({note.why})' if note.why else ''}"
