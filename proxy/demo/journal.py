"""What a double writes down about the requests it saw.

Law: a token's value is never written down. The journal speaks of generations: 1 for the first token that a
double issued, 0 for a value that it never issued.
"""

import dataclasses
import re
from collections.abc import Container
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from proxy.redact import MASK

#: Entries that a journal keeps: enough for a load test, bounded for `demo --serve`.
KEPT: Final = 20_000
#: Header fields whose value is a credential, whatever it is.
CREDENTIAL_HEADERS: Final = frozenset({"authorization", "authentication"})


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One request as a double saw it.

    `target` is path and query as sent, with credentials masked. `generation` is that of the token the request
    is judged by (None: none there), `places` every place that held a credential (`header:authorization`,
    `query:access_token`, `cookie:NAME`), once for each time. `grant` names the token request (None: an API
    request), `issued` the generation that it gave.
    """

    number: int
    method: str
    target: str
    status: int
    generation: int | None
    places: tuple[str, ...]
    grant: str | None
    issued: int | None


@dataclasses.dataclass(slots=True)
class Visit:
    """What a handler notes about its request while it answers."""

    grant: str | None = None
    issued: int | None = None


VISIT: Final = web.RequestKey("visit", Visit)


def places(request: web.Request, known: Container[str]) -> list[str]:
    """Where credentials stand: the usual places, and any other that holds one of the `known` values."""
    found = [
        f"header:{name.lower()}"
        for name, value in request.headers.items()
        if name.lower() in CREDENTIAL_HEADERS
        or (name.lower() != "cookie" and any(word in known for word in value.split()))
    ]
    found += [f"query:{name}" for name, value in request.query.items() if name == "access_token" or value in known]
    found += [f"cookie:{name}" for name, value in request.cookies.items() if value in known]
    return found


def masked(target: str, known: Container[str]) -> str:
    """`target`, path and query as sent, without any of the `known` values and without any `access_token`."""
    target = re.sub(r"([?&]access_token=)[^&]*", rf"\g<1>{MASK}", target)
    return re.sub(r"[^/?&=]+", lambda part: MASK if unquote(part[0]) in known else part[0], target)
