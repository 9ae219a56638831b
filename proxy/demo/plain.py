"""A plain client: one HTTP request a connection, with nothing but `http.client`, and the same as a curl command."""

import asyncio
import functools
import http.client
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

#: Seconds; nothing on loopback takes this long, so a hang becomes a failed step.
DEADLINE: Final = 10.0
#: How many requests can be under way at once.
AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a person would type it, sent `times` times at once.

    `lines`: a body that counts from 1 to this number, a number a line; 0: no body.
    """

    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    lines: int = 0
    times: int = 1

    @property
    def body(self) -> bytes | None:
        """The body, None where there is none."""
        return "".join(f"{number}\n" for number in range(1, self.lines + 1)).encode() or None

    def curl(self, base: str) -> str:
        """The command line that sends the same to `base`."""
        words = ["curl", *(word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}"))]
        if self.lines:
            words += ["--data-binary", "@-"]
        elif self.method != "GET":
            words += ["-X", self.method]
        command = shlex.join([*words, base + self.target])
        if self.lines:
            command = f"seq {self.lines} | {command}"
        return command if self.times == 1 else f"seq {self.times} | xargs -P {self.times} -I - {command}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """Its body as text."""
        return self.body.decode("utf-8", "replace")


async def send(request: Request, base: str) -> list[Answer]:
    """Send the request to `base`, as often at once as it says.

    Raises `OSError` or `http.client.HTTPException` where no whole answer comes.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        ask = functools.partial(loop.run_in_executor, threads, _ask, request, base)
        return await asyncio.gather(*(ask() for _ in range(request.times)))


def _ask(request: Request, base: str) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=DEADLINE)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()
