"""Why a request was answered as it was: a few sentences for whoever asks "why was this a 401?"."""

from typing import Final

from proxy.accesslog import Exchange
from proxy.errors import ProxyError
from proxy.notes import FullNotes, Sent, Stay

#: Statuses that are about who asks.
_LIKE_REFUSALS: Final = {401, 403}
#: How it ended where no answer of ours says so.
_ENDED: Final = {
    "client_closed": "The client hung up before it had the whole answer.",
    "client_stalled": "The client stopped reading its answer.",
    "drain_timeout": "The proxy was told to end, and this took longer than limits.drain.",
}
#: Why a refused token was not followed by a newer one, and what mends it.
_STAYED: Final[dict[Stay, str]] = {
    "fixed": "This is a fixed token: make a new one at the vendor and put it in its place.",
    "fixed, perhaps good": (
        "This is a fixed token, and the answer does not say that it is bad: the credential may lack a right."
    ),
    "closed": (
        "Asking for a newer token did not help a moment ago, so none was asked for now: "
        "the credential may lack a right."
    ),
    "none": "No newer token came within timeouts.token.",
    "same": "The same token came back when a newer one was asked for: to send it again proves nothing.",
    "body": (
        "A newer token is there now, but the body was longer than replay keeps, so it could not be sent again: "
        "send the request anew, or raise replay."
    ),
}


def why(exchange: Exchange, notes: FullNotes | None) -> str:
    """Which route and credential it took, what refused it, and what mends that where something does."""
    said = [] if exchange.error and (notes is None or not notes.sent) else _way(exchange, notes)
    return " ".join([*said, *_end(exchange, notes, was_sent=bool(said))])


def _way(exchange: Exchange, notes: FullNotes | None) -> list[str]:
    """What the upstream said, and to which token."""
    if notes is None or notes.binding is None:
        return [f"The proxy answered {exchange.status} by itself."]
    route, last = notes.binding.route, notes.sent[-1] if notes.sent else None
    begins = route.prefix.decode("latin-1") or "/"
    on = f" of host {route.host}" if route.host else ""
    answered = "did not answer" if exchange.error else "has not answered yet"
    if last is not None and last.head is not None:
        answered = f"answered {last.head.status}"
    way = f"Route {route.name} ({begins}{on}) led to {notes.binding.upstream}, which {answered}."
    return [way, _of_token(exchange, notes, last) if exchange.credential else "No credential was added."]


def _of_token(exchange: Exchange, notes: FullNotes, last: Sent | None) -> str:
    name, generation = exchange.credential, exchange.generation
    if last is None:
        return f"A token of credential {name} is waited for."
    if exchange.refusals > 1:
        return (
            f"It refused credential {name} twice, the second time generation {generation}, which was newer: "
            "a newer token does not help here."
        )
    if exchange.retried:
        accepted = ", and that was accepted" if last.head is not None and not last.is_refused else ""
        return (
            f"It refused the token of credential {name} once; the request was sent again with generation "
            f"{generation}{accepted}."
        )
    if exchange.refusals:
        return f"It refused generation {generation} of credential {name}. {_stayed(exchange, notes)}".rstrip()
    waited = f" after {exchange.token_wait * 1e3:.0f} ms of waiting for it" if exchange.token_wait >= 0.001 else ""
    return f"Credential {name} was added, generation {generation}{waited}. {_passed(notes, last)}".rstrip()


def _passed(notes: FullNotes, last: Sent) -> str:
    """Why an answer that looks like a refusal of the token was not taken for one."""
    if notes.binding is None or last.head is None or last.head.status not in _LIKE_REFUSALS:
        return ""
    if not notes.binding.rules.concerns(last.head.status):
        return "Neither refresh_on nor expired names this status, so no newer token was asked for."
    if notes.answer_lines:
        return "By what it says this answer does not refuse the token, so no newer one was asked for."
    return ""


def _stayed(exchange: Exchange, notes: FullNotes) -> str:
    """Why it was not sent again."""
    if notes.stay is None:
        return "" if exchange.error else "A newer token is waited for."
    if notes.stay == "none" and notes.trouble:
        return f"No newer token could be had: {notes.trouble}"
    return _STAYED[notes.stay]


def _end(exchange: Exchange, notes: FullNotes | None, *, was_sent: bool) -> list[str]:
    """What the proxy itself said, and the reason that it gave; nothing where it let the answer pass."""
    code, at = exchange.error, f", on route {exchange.route}" if exchange.route else ""
    if not code:
        return []
    if code in _ENDED:
        return [_ENDED[code]] if was_sent else [f"Nothing was sent upstream{at}.", _ENDED[code]]
    said = f"The proxy itself said {code}{at}."
    if code == ProxyError.code:
        return [said, ProxyError.explanation]
    if notes is None or not notes.detail:
        return [said]
    return [said, f"Its rules say: {notes.rule}." if notes.rule else notes.detail]
