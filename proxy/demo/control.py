"""The control endpoint of a double: its operations over HTTP, for tests and demonstrations in another process.

`GET /__control__/state`, `POST /__control__/set` with a JSON object of switches, and `POST /__control__/NAME` for
each operation of the double. It asks for no key: a double serves public accounts, on loopback.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web
from pydantic import ValidationError

PREFIX: Final = "/__control__"


class Controlled(Protocol):
    """What the endpoint drives."""

    def state(self) -> dict[str, Any]:
        """JSON-able values without any token."""

    def set(self, /, **changes: object) -> dict[str, Any]:
        """Change switches and give them all; raises pydantic.ValidationError, and nothing changes then."""

    def operations(self) -> Mapping[str, Callable[[], int]]:
        """The others, by name; each gives how many tokens or requests it touched."""


def routes(double: Controlled) -> list[web.RouteDef]:
    """The endpoint of `double`."""

    async def get_state(_request: web.Request) -> web.Response:
        return web.json_response(double.state())

    async def post_set(request: web.Request) -> web.Response:
        try:
            changes = await request.json()
        except ValueError:
            changes = None
        if not isinstance(changes, dict):
            return _refused(400, "The body must be a JSON object of switches.")
        try:
            return web.json_response({"switches": double.set(**changes)})
        except ValidationError as error:
            return _refused(400, *(f"{each['loc'][0]}: {each['msg']}." for each in error.errors()))

    async def post_operation(request: web.Request) -> web.Response:
        operations = double.operations()
        operation = operations.get(request.match_info["operation"])
        if operation is None:
            return _refused(404, f"There is no such operation, only: {', '.join(['set', *operations])}.")
        return web.json_response({"touched": operation()})

    return [
        web.get(f"{PREFIX}/state", get_state),
        web.post(f"{PREFIX}/set", post_set),
        web.post(f"{PREFIX}/{{operation}}", post_operation),
    ]


def _refused(status: int, *sentences: str) -> web.Response:
    return web.json_response({"errors": sentences}, status=status)
