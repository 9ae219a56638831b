"""What became of each field of a request: what crossed, what stopped here, what was added or rewritten, and why.

Law: what crossed is read off what was sent; only the reasons are worked out, once the exchange is written down.
"""

from collections.abc import Container
from typing import Final

from proxy.admin.shown import (
    ADDED,
    ANEW,
    DROPPED,
    NOT_LISTED,
    REWRITTEN,
    Shown,
    Words,
    as_field,
    fields,
    packed,
)
from proxy.fields import Field, canonical
from proxy.headers import FRAMING, HOP_BY_HOP
from proxy.injection import AUTHORIZATION
from proxy.notes import FullNotes, Sent
from proxy.reasons import NAMED_THE_PROXY, WITH_THE_UPSTREAMS_NAME, Reasons, cookie_names
from proxy.redact import MASK

#: Fields of a request in which the proxy may be named (`headers.request_lines`).
_NAMING: Final = frozenset({b"origin", b"referer", b"destination"})
#: What stands before the name of a place, by its kind.
_PLACES: Final = {"header": "", "query": "?", "cookie": "Cookie "}


def crossing(notes: FullNotes, sent: Sent, credential: str, words: Words) -> str:
    """The fields of a request as they came, and as they went upstream; of each that did not just cross why.

    The request is that of `notes`, sent as `sent` with a token of `credential`, where it had one. Packed, and the
    same text where it is the same: a client sends the same fields again and again, and what becomes of them is the
    same each time.
    """
    memo, outgoing = notes.section.memo, sent.outgoing
    bare = None if notes.binding is None else notes.binding.bare
    token = (credential, sent.generation, sent.places, sent.constants)
    key = (words.edition, bare, outgoing.lines, outgoing.cookies, token)
    kept: tuple[object, str] | None = memo.get(crossing)
    if kept is not None and kept[0] == key:
        return kept[1]
    came, went = _crossing(notes, sent, words)
    went += _added(sent, credential)
    found = packed(came, went)
    # The last alone: with spans each request has lines of its own.
    memo[crossing] = (key, found)
    return found


def _crossing(notes: FullNotes, sent: Sent, words: Words) -> tuple[list[Shown], list[Shown]]:
    """All but the cookies and the credential."""
    given, lines = notes.section.fields, sent.outgoing.lines.split(b"\r\n")[:-1]
    came = fields(given, words)
    reasons = _reasons(notes, sent)
    if reasons is None:
        return came, fields(map(as_field, lines), words)
    # The client's fields by their lines: those that do not stop whatever else is said.
    own = {field[2]: at for at, field in enumerate(given) if not _is_dropped(field[0], reasons)}
    went, named, crossed = [], set[bytes](), set[bytes]()
    for line in lines:
        at = own.get(line)
        if at is not None:
            lower, shown = given[at][0], came[at]
            crossed.add(line)
        else:
            field = as_field(line)
            lower, shown = field[0], words.field(field).so(_why_added(line, reasons))
        named.add(lower)
        went.append(shown)
    cookies = list(cookie_names(sent.outgoing.cookies))
    for at, field in enumerate(given):
        fate = None if field[2] in crossed else _fate(field, named, cookies, reasons)
        if fate is not None and not _stays_masked(fate, came[at].note):
            came[at] = came[at].so(fate)
    return came, went


def _added(sent: Sent, credential: str) -> list[Shown]:
    """The cookies, and the credential by its places."""
    found: list[Shown] = []
    if sent.outgoing.cookies:
        size = sum(map(len, sent.outgoing.cookies))
        found.append(Shown("Cookie", f"{MASK} ({size} bytes)", NOT_LISTED))
    for place in sent.places:
        what = _PLACES[place.kind] + place.name
        shown = f"{place.scheme} {MASK}" if place.scheme else MASK
        found.append(Shown(what, shown, f"{ADDED}credential {credential}, generation {sent.generation}"))
    found += [Shown(name, MASK, f"{ADDED}credential {credential}") for name in sent.constants]
    return found


def _fate(given: Field, named: Container[bytes], cookies: list[bytes], reasons: Reasons) -> str:
    """What became of a field that did not cross as it came; fields of the names in `named` were sent."""
    lower, value, _line = given
    if lower == b"cookie":
        return _of_cookies(value, cookies, reasons)
    return _why_not(lower, reasons, is_there=lower in named)


def _stays_masked(fate: str, note: str | None) -> bool:
    """What is masked is left out of a repetition, which the first word of its note decides."""
    return note is not None and fate.startswith(REWRITTEN)


def _reasons(notes: FullNotes, sent: Sent) -> Reasons | None:
    """None: nothing can have been sent."""
    binding, admission = notes.binding, notes.admission
    if binding is None or admission is None:
        return None
    strip = binding.bare
    if sent.places:
        # An Authorization that did not cross was the client key or the placeholder (`outbound.placing`).
        strip = binding.strip if binding.inject == "overwrite" else binding.bare.plus(AUTHORIZATION, *sent.places)
    return Reasons(
        options=notes.section.options,
        owner="" if binding.credential is None else binding.credential.name,
        places=sent.places,
        strip=strip,
        bare=binding.bare,
        constants=binding.constants,
        host=binding.host,
        authorization_is_key=admission.visitor.authorization_is_key,
    )


def _is_dropped(lower: bytes, reasons: Reasons) -> bool:
    """Does it stop on every way of this route? A line of ours may be the same as the client's."""
    return canonical(lower) in reasons.bare.names or lower in reasons.options


def _why_not(lower: bytes, reasons: Reasons, *, is_there: bool) -> str:
    """Why it did not cross as it came; `is_there`: a field of this name was sent all the same."""
    if is_there and (lower in FRAMING or lower in HOP_BY_HOP):
        return ANEW
    if lower in FRAMING:
        return f"{DROPPED}this request needs none"
    why = reasons.why_dropped(lower, named_proxy=is_there and lower in _NAMING)
    return (REWRITTEN if why == NAMED_THE_PROXY else DROPPED) + why


def _why_added(line: bytes, reasons: Reasons) -> str:
    """Of a line that the client did not send, or not so."""
    why = reasons.why_added(line)
    return (REWRITTEN if why == WITH_THE_UPSTREAMS_NAME else ADDED) + why


def _of_cookies(value: bytes, kept: list[bytes], reasons: Reasons) -> str:
    """Which of a field's cookies crossed; takes them out of `kept`, which are those that did."""
    whys = []
    crossed = 0
    for name in cookie_names([value]):
        if name in kept:
            kept.remove(name)
            crossed += 1
        else:
            whys.append(reasons.why_cookie_dropped(name))
    why = "; ".join(dict.fromkeys(whys))
    if not why:
        return NOT_LISTED
    return f"{NOT_LISTED}; not all of it crossed: {why}" if crossed else DROPPED + why
