"""A token that somebody else keeps fresh in a file: Kubernetes' projected tokens, the sinks of a Vault agent.

Law: a file that cannot be read now says nothing about the token that was read before; that one stays in use.
"""

import asyncio
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from proxy.clock import Clock
from proxy.credentials.credential import Report
from proxy.errors import CredentialError, CredentialUnavailable
from proxy.grants.reply import TOKEN_LIMIT
from proxy.lifecycle import Life, Token, state
from proxy.redact import Secret

log: Final = logging.getLogger("proxy.credentials")

#: The file is looked at no more often than this, in seconds, unless a token was refused.
LOOK_SECONDS: Final = 1.0
#: Who has a token waits no longer than this, in seconds, for what the file holds now.
PATIENCE_SECONDS: Final = 0.25
_TOKEN: Final = re.compile(r"[!-~]+")

#: What tells one state of a file from another: where its links lead, and what the file system says of it.
_Seen = tuple[str, int, int, int]


class _NoTokenError(Exception):
    """There is nothing to be had from the file; the message says why."""


def _contents(path: Path, before: _Seen | None) -> tuple[_Seen, str | None]:
    """How the file looks now, and what is in it; None where it still looks as before. Raises `_NoTokenError`."""
    try:
        real = os.path.realpath(path)
        # To open a pipe that nobody writes to would wait for ever without O_NONBLOCK.
        number = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise _NoTokenError(f"{path} is no regular file")
            seen = (real, status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == before:
                return seen, None
            data = os.read(number, 2 * TOKEN_LIMIT)
        finally:
            os.close(number)
    except OSError as error:
        raise _NoTokenError(f"{path} cannot be read ({os.strerror(error.errno or 0)})") from None
    text = data.decode("latin-1").strip()
    if len(text) > TOKEN_LIMIT or not _TOKEN.fullmatch(text):
        raise _NoTokenError(f"{path} is empty, or holds something that is no token")
    return seen, text


class FileSource:
    """The token in `path`, read again whenever the file, or the link that leads to it, has changed.

    `register` masks a token before it is used; `expiry` reads the end, in epoch seconds, out of the token itself;
    `fits`: can it be sent in its places? A file system may hang: it is read in a thread, and who has a token waits
    `PATIENCE_SECONDS` for a newer one.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        clock: Clock,
        register: Callable[[Iterable[Secret]], None],
        expiry: Callable[[str], float | None],
        fits: Callable[[str], bool],
    ) -> None:
        self._name = name
        self._path = path
        self._clock = clock
        self._register = register
        self._expiry = expiry
        self._fits = fits
        self._token: Token | None = None
        self._seen: _Seen | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        #: Why the last look gave nothing; None after one that did.
        self._trouble: str | None = None

    async def token(self, wait: float) -> Token:
        """The token, as it stands in the file now. Raises `CredentialUnavailable` where there never was one."""
        if self._clock.now() - self._looked_at >= LOOK_SECONDS or self._token is None:
            await self._look(wait)
        if self._token is None:
            raise self._unavailable()
        return self._token

    async def newer_than(self, refused: Token, *, wait: float, ask: bool) -> Token | None:  # noqa: ARG002  the contract's
        """What the file holds, where that is another token by now."""
        await self._look(wait)
        token = self._token
        return token if token is not None and token.generation > refused.generation else None

    async def refresh(self, wait: float) -> None:
        """Read the file again. Raises `CredentialUnavailable` where that cannot be."""
        self._seen = None
        await self._look(wait)
        if self._trouble is not None:
            raise self._unavailable()

    def report(self) -> Report:
        """The present state."""
        now, token = self._clock.now(), self._token
        left = token.expires_at - now if token is not None and token.expires_at is not None else None
        return Report(
            self._name,
            state(Life(token=token), now),
            0 if token is None else token.generation,
            left,
            last_error=self._trouble,
        )

    @property
    def problem(self) -> CredentialError | None:
        """That there is no token, or that it is over and nobody wrote a new one."""
        if self._token is None:
            return None if self._trouble is None else self._unavailable()
        if self.report().state != "invalid":
            return None
        return CredentialUnavailable(
            f"The token of credential {self._name!r} has expired, and {self._path} holds no newer one: look after "
            "whoever writes it."
        )

    def adapt(self, other: "FileSource") -> None:
        """Go on as `other`, which is unused and of the same file, was made."""
        self._fits = other._fits  # noqa: SLF001  its own class

    async def close(self, wait: float) -> None:  # noqa: ARG002  the contract's
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def _unavailable(self) -> CredentialUnavailable:
        trouble = self._trouble or f"{self._path} could not be read in time"
        return CredentialUnavailable(f"Credential {self._name!r}: {trouble}; nothing was sent upstream.")

    async def _look(self, wait: float) -> None:
        """Read the file if it is not the one that was read last; one look at a time."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._read(), name=f"look at the file of {self._name}")
        await asyncio.wait({self._looking}, timeout=wait if self._token is None else min(wait, PATIENCE_SECONDS))

    async def _read(self) -> None:
        self._looked_at = now = self._clock.now()
        try:
            seen, text = await asyncio.to_thread(_contents, self._path, self._seen)
        except _NoTokenError as error:
            self._keep(str(error))
            return
        if text is not None and not self._fits(text):
            self._keep(f"{self._path} holds characters that cannot be sent in its place")
            return
        self._seen, self._trouble = seen, None
        if text is not None and (self._token is None or self._token.value != Secret(text)):
            self._publish(Secret(text), now)

    def _keep(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("token_file_unusable", extra={"fields": {"credential": self._name, "reason": trouble}})
        self._trouble = trouble

    def _publish(self, value: Secret, now: float) -> None:
        self._register([value])
        expires_at_wall = self._expiry(value.reveal())
        expires_at = None if expires_at_wall is None else now + expires_at_wall - self._clock.wall()
        generation = 1 if self._token is None else self._token.generation + 1
        self._token = Token(value, generation, now, expires_at)
