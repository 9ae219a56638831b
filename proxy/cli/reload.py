"""Reads the configuration again, where somebody asks for it or a file of it has changed.

Law: what cannot be used changes nothing, and is told whole in one event (threat 123).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from proxy import logs
from proxy.config import Config, Source, again, load
from proxy.config.watched import Watched, files
from proxy.errors import ConfigError
from proxy.manager import Manager
from proxy.server import Instance, World

log: Final = logging.getLogger("proxy")

#: Seconds between two looks at the files; a change is read when the look after it finds no other.
LOOK_SECONDS: Final = 2.0


class Reloading:
    """Lets `instance`, which serves by `config`, follow what `source` says; `applied` is called after each change.

    `manager` is told of it. `asked` is set by whoever wants it read now, `environ` is where secrets may come from,
    `look_seconds` is how often files are looked at.
    """

    def __init__(
        self,
        instance: Instance,
        source: Source,
        config: Config,
        world: World,
        *,
        environ: Mapping[str, str],
        asked: asyncio.Event,
        applied: Callable[[], None],
        manager: Manager | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._instance = instance
        self._source = source
        self._config = config
        self._world = world
        self._environ = environ
        self._applied = applied
        self._manager = manager or Manager()
        self._look_seconds = look_seconds
        self._watched = Watched(files(config, source))
        self._asked = asked

    async def run(self) -> None:
        """Follow, until this is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if self._source.path is None else self._look_seconds):
                    await self._asked.wait()
            # In a thread, as all that reads files: a file system may hang.
            if self._asked.is_set() or await asyncio.to_thread(self._watched.look):
                self._asked.clear()
                self._manager.reloading()
                is_new = await self._reload()
                self._instance.machinery.read(is_applied=is_new)
                how = "reloaded" if is_new else "the last reload was refused, the log says why"
                self._manager.ready(f"Serving on {', '.join(self._instance.urls)}; {how}")

    async def _reload(self) -> bool:
        try:
            source, config = await asyncio.to_thread(self._read)
            news = await self._instance.reload(config)
        except ConfigError as error:
            detail = "; ".join(map(in_log, error.problems))
            log.warning("reload_refused", extra={"fields": {"problems": len(error.problems), "detail": detail}})
            return False
        except Exception:
            log.exception("internal_error")
            log.warning("reload_refused", extra={"fields": {"detail": "a defect of the proxy, see internal_error"}})
            return False
        if config.log != self._config.log:
            given = config.log
            logs.set_up(self._world.redactor, level=given.level, style=given.format, lines=self._world.lines)
        self._source, self._config = source, config
        warn(config)
        log.info("reloaded", extra={"fields": news or {"changed": "nothing"}})
        self._applied()
        return True

    def _read(self) -> tuple[Source, Config]:
        self._watched.take()
        source = again(self._source)
        config = load(source, environ=self._environ)
        self._watched.follow(files(config, source))
        return source, config


def warn(config: Config) -> None:
    """Log what is allowed but doubtful."""
    for warning in config.warnings:
        log.warning("config_warning", extra={"fields": {"detail": in_log(warning)}})


def in_log(sentence: str) -> str:
    """A sentence on the configuration without the colon behind its key, for which the word behind it is masked."""
    return " - ".join(sentence.split(": ", 2))
