"""Ours without the inspector's hooks, so that "switched off" can be compared with "not there" (`ours-bare`).

`EDITS` takes out of a copy of the source all that a request meets only for the sake of who looks on: what
`notes.py` asks for, who watches bodies and tunnels, when a connection was there. What stays is what stood there
before there was an inspector; who looks for tokens in bodies (`token_guard`) sees them as it did then.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A copy of these is a checkout, as far as a build and a start need one.
PARTS: Final = ("proxy", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")


class DoesNotFit(Exception):  # noqa: N818  what happened, as in proxy/errors.py
    """Which of `EDITS` the source does not have, or has more than once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file` below proxy/, `put` stands where `find` stood, once."""

    file: str
    find: str
    put: str = ""


EDITS: Final = (
    # -- the relay asks nobody for notes
    Edit(
        "relay.py",
        "exchange, notes = self._noted(request)",
        "exchange = Exchange(request.method, request.client, perf_counter())",
    ),
    Edit(
        "relay.py",
        "self._relay(request, connection, exchange, notes, out)",
        "self._relay(request, connection, exchange, out)",
    ),
    Edit(
        "relay.py",
        "exchange: Exchange, notes: Notes, out: ClientAnswer\n",
        "exchange: Exchange, out: ClientAnswer\n",
    ),
    Edit("relay.py", "        watchers = notes.goes(admission, binding, request.body)\n"),
    Edit("relay.py", "            exchange,\n            notes,\n", "            exchange,\n"),
    Edit("relay.py", "            notes.fails(error)\n"),
    Edit("relay.py", "            notes.answers(lines)\n"),
    Edit(
        "relay.py",
        "idle, watching = binding.timeouts.idle, notes.opens()\n",
        "idle = binding.timeouts.idle\n",
    ),
    Edit(
        "relay.py",
        "lines, out, exchange=exchange, idle=idle, watchers=watching)",
        "lines, out, exchange=exchange, idle=idle)",
    ),
    # -- a body is seen by the token guard alone
    Edit(
        "relay.py",
        "echoes, guards = _watch(binding, rendered, exchange)\n"
        "                idle, watchers = binding.timeouts.idle, watchers + guards\n",
        "echoes, guard = _watch(binding, rendered, exchange)\n                idle = binding.timeouts.idle\n",
    ),
    Edit("relay.py", "echoes=echoes, watchers=watchers)", "echoes=echoes, guard=guard)"),
    Edit(
        "relay.py",
        "-> tuple[tuple[bytes, ...], tuple[Watcher, ...]]:",
        "-> tuple[tuple[bytes, ...], TokenGuard | None]:",
    ),
    Edit(
        "relay.py",
        "    echoes = () if rendered is None else rendered.echoes\n"
        "    if not echoes or not binding.watches_bodies:\n"
        "        return echoes, ()\n",
        "    if rendered is None or not rendered.echoes:\n"
        "        return (), None\n"
        "    if not binding.watches_bodies:\n"
        "        return rendered.echoes, None\n",
    ),
    Edit(
        "relay.py",
        "    return echoes, (TokenGuard(echoes, found),)\n",
        "    return rendered.echoes, TokenGuard(rendered.echoes, found)\n",
    ),
    Edit("delivery.py", "from proxy.body import Watcher\n"),
    Edit(
        "delivery.py",
        "from proxy.listener.answer import ClientAnswer, block\n",
        "from proxy.listener.answer import ClientAnswer, block\nfrom proxy.tokenguard import TokenGuard\n",
    ),
    Edit("delivery.py", "watchers: tuple[Watcher, ...],\n", "guard: TokenGuard | None = None,\n"),
    Edit(
        "delivery.py",
        "    for watcher in watchers:\n        watcher.see(first)",
        "    if guard is not None:\n        guard.see(first)",
    ),
    Edit("delivery.py", "out.takes_chunks else None, watchers)", "out.takes_chunks else None, guard)"),
    Edit("delivery.py", "watchers: tuple[Watcher, ...]\n)", "guard: TokenGuard | None\n)"),
    Edit(
        "delivery.py",
        "        for watcher in watchers:\n            watcher.see(piece)",
        "        if guard is not None:\n            guard.see(piece)",
    ),
    Edit("body.py", '        "watch",\n'),
    Edit("body.py", "        #: Sees what is read, each byte once.\n        self.watch: Watcher | None = None\n"),
    Edit("body.py", "        if self.watch is not None:\n            self.watch.see(piece)\n"),
    Edit(
        "upgrade.py",
        "idle: float,\n    watchers: tuple[Watcher, Watcher] | None = None,\n",
        "idle: float,\n",
    ),
    Edit("upgrade.py", "    ours, theirs = (None, None) if watchers is None else watchers\n"),
    Edit("upgrade.py", "idle, spoke, ours))", "idle, spoke))"),
    Edit("upgrade.py", "            if theirs is not None:\n                theirs.see(piece)\n"),
    Edit("upgrade.py", "    watcher: Watcher | None,\n"),
    Edit("upgrade.py", "        if watcher is not None:\n            watcher.see(piece)\n"),
    # -- what the proxy says itself is forgotten once it is said
    Edit("accesslog.py", '        "connection",\n'),
    Edit("accesslog.py", '        "own",\n'),
    Edit(
        "accesslog.py",
        "        #: Field lines and body of an answer of our own, and the Connection line of any.\n"
        "        self.own: tuple[bytes, bytes] | None = None\n"
        '        self.connection = b""\n',
    ),
    Edit("listener/answer.py", "        self._exchange.own = (lines, body)\n"),
    Edit("listener/answer.py", "        self._exchange.connection = line\n"),
    # -- an attempt is noted nowhere
    Edit("passage.py", '        "notes",\n'),
    Edit("passage.py", "        notes: Notes,\n"),
    Edit("passage.py", "        self.notes = notes\n"),
    Edit("passage.py", "        noted = self.notes.sends(self.outgoing, rendered)\n"),
    Edit("passage.py", "            attempt = await send(", "            return await send("),
    Edit(
        "passage.py",
        "        except ProxyError as error:\n"
        "            if noted is not None:\n"
        "                noted.error = error.code\n"
        "            raise\n",
    ),
    Edit(
        "passage.py", "        if noted is not None:\n            noted.answered(attempt)\n        return attempt\n"
    ),
    Edit(
        "passage.py",
        "self.exchange.refusals = 1\n        self.notes.refused()\n",
        "self.exchange.refusals = 1\n",
    ),
    Edit(
        "passage.py",
        "self.exchange.refusals = 2\n            self.notes.refused()\n",
        "self.exchange.refusals = 2\n",
    ),
    Edit(
        "passage.py",
        '            stay: Stay = "fixed" if refusal.explicit else "fixed, perhaps good"\n'
        "            self.notes.stays(stay, rendered.credential.source)\n",
    ),
    Edit("passage.py", '            self.notes.stays("same", rendered.credential.source)\n'),
    Edit("passage.py", '            self.notes.stays("body", rendered.credential.source)\n'),
    Edit(
        "passage.py", '            self.notes.stays("none" if is_open else "closed", refused.credential.source)\n'
    ),
    Edit("passage.py", "        self.notes.repeats(attempt)\n"),
    Edit("upstream/attempt.py", '        "connected_at",\n'),
    Edit("upstream/attempt.py", '        "is_kept",\n'),
    Edit("upstream/attempt.py", "self.was_resent = self.is_kept = False", "self.was_resent = False"),
    Edit("upstream/attempt.py", "        self.connected_at = 0.0\n"),
    Edit(
        "upstream/attempt.py",
        "        connected_at = 0.0\n"
        "        connection = None if fresh else pool.take()\n"
        "        if connection is None:\n"
        "            connection = await pool.acquire(fresh=fresh)\n"
        "            connected_at = perf_counter()\n",
        "        connection = (None if fresh else pool.take()) or await pool.acquire(fresh=fresh)\n",
    ),
    Edit(
        "upstream/attempt.py",
        "attempt.was_resent, attempt.is_kept, attempt.connected_at = was_resent, was_used, connected_at",
        "attempt.was_resent = was_resent",
    ),
    # -- what nobody calls any more still has to compile
    Edit("notes.py", "        self.is_kept = attempt.is_kept\n        self.connected_at = attempt.connected_at\n"),
    Edit("notes.py", "self.request_body = body.watch = Piece", "self.request_body = Piece"),
    Edit("admin/passed.py", " or notes.admission is None or exchange.own:", " or notes.admission is None:"),
    Edit("admin/passed.py", ", notes.section), *split(exchange.connection))", ", notes.section),)"),
    Edit("admin/passed.py", "lines, exchange.connection, way)", "lines, way)"),
    Edit("admin/passed.py", "split(lines + exchange.connection)", "split(lines)"),
    Edit(
        "admin/entries.py",
        """self._response(exchange, notes)
            if exchange.own is None
            else self._own(exchange, *exchange.own, bodies=bodies),
""",
        "self._response(exchange, notes),\n",
    ),
)


def strip(tree: Path) -> None:
    """Take the hooks out of the checkout `tree`, in place. Raises `DoesNotFit`, and has changed nothing then."""
    files = {name: (tree / "proxy" / name).read_text("utf-8") for name in {edit.file for edit in EDITS}}
    for edit in EDITS:
        if (count := files[edit.file].count(edit.find)) != 1:
            raise DoesNotFit(f"proxy/{edit.file} has this {count} times, not once: {edit.find!r}")
        files[edit.file] = files[edit.file].replace(edit.find, edit.put)
    for name, text in files.items():
        (tree / "proxy" / name).write_text(text, "utf-8")


def copy(tree: Path, folder: Path) -> Path:
    """Make `folder` a checkout of what `tree` has, without the hooks; gives it. Raises `DoesNotFit`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in PARTS:
        if (tree / part).is_dir():
            shutil.copytree(tree / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(tree / part, folder / part)
    strip(folder)
    return folder
