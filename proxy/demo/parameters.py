"""Reads the parameters of a TeleTracker request: from the body in three encodings, and from the query."""

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, web


async def in_body(request: web.Request) -> dict[str, str]:
    """The variables in the body: form, multipart or JSON; none where it cannot be read as what it says it is."""
    try:
        match request.content_type:
            case "application/x-www-form-urlencoded":
                return dict(parse_qsl(await request.text(), keep_blank_values=True))
            case "application/json":
                item = json.loads(await request.text())
                pairs = item.items() if isinstance(item, dict) else ()
                return {name: str(value) for name, value in pairs if value is not None}
            case "multipart/form-data":
                return {
                    part.name: await part.text()
                    async for part in await request.multipart()
                    if isinstance(part, BodyPartReader) and part.name
                }
    except ValueError:
        pass  # broken JSON, a broken multipart, text that is not UTF-8: the answer names what is missing
    return {}


async def anywhere(request: web.Request) -> dict[str, str]:
    """The variables of a GET or DELETE: in the query or in the body, which wins."""
    return dict(request.query) | await in_body(request)


def require(fields: Mapping[str, str], *names: str) -> None:
    """Check that there is a value for each of `names`.

    Raises HTTPBadRequest that names the missing ones, as the vendor does.
    """
    if absent := [name for name in names if not fields.get(name)]:
        raise web.HTTPBadRequest(reason=f"Missing variables: {', '.join(absent)}.")
