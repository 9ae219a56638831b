"""Why a request was answered as it was: one or two sentences for whoever asks "why was this a 401?"."""

from typing import Final

from proxy.accesslog import Exchange
from proxy.notes import FullNotes

#: What each error code means for the way of a request; the codes are those of INTERFACE.
_CODES: Final = {
    "client_closed": "The client hung up before it had the whole answer.",
    "client_stalled": "The client stopped reading its answer.",
    "drain_timeout": "The proxy was told to end, and this took longer than limits.drain.",
}


def why(exchange: Exchange, notes: FullNotes | None, detail: str | None = None) -> str:
    """Which route, credential and rule answered; `detail` is what our own error said."""
    if exchange.error:
        return " ".join(filter(None, (_of_error(exchange), _CODES.get(exchange.error, detail))))
    said = [_way(exchange, notes)]
    if exchange.credential:
        said.append(_of_token(exchange))
    elif exchange.route:
        said.append("No credential was added.")
    return " ".join(said)


def _of_error(exchange: Exchange) -> str:
    at = f"on route {exchange.route}" if exchange.route else "before any route was looked for"
    return f"The proxy itself said {exchange.error}, {at}."


def _way(exchange: Exchange, notes: FullNotes | None) -> str:
    if not exchange.route or notes is None or notes.binding is None:
        return f"The proxy answered {exchange.status} by itself."
    route = notes.binding.route
    begins = route.prefix.decode("latin-1") or "/"
    on = f" of host {route.host}" if route.host else ""
    answered = f"answered {exchange.status}" if exchange.status else "has not answered yet"
    return f"Route {route.name} ({begins}{on}) led to {route.upstream}, which {answered}."


def _of_token(exchange: Exchange) -> str:
    name, generation = exchange.credential, exchange.generation
    if exchange.retried and exchange.refusals > 1:
        return (
            f"It refused credential {name} twice, the second time generation {generation}, which was newer: "
            "a newer token does not help here."
        )
    if exchange.retried:
        return (
            f"It refused the token of credential {name} once; the request was sent again with generation "
            f"{generation}, and that was accepted."
        )
    if exchange.refusals:
        return (
            f"It refused generation {generation} of credential {name}; no newer token could be had, or one had "
            "been shown not to help, or the body could not be sent again."
        )
    waited = f" after {exchange.token_wait * 1e3:.0f} ms of waiting for it" if exchange.token_wait >= 0.001 else ""
    return f"Credential {name} was added, generation {generation}{waited}."
