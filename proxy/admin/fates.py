"""What became of each field of a request: what crossed, what stopped here, what was added or rewritten, and why.

Law: what crossed is read off what was sent; only the reasons are worked out, once the exchange is written down.
"""

from collections.abc import Iterator
from typing import Final

from proxy.admin.shown import (
    ADDED,
    ANEW,
    DROPPED,
    NOT_LISTED,
    REWRITTEN,
    Shown,
    Words,
    fields,
    split,
    told,
)
from proxy.fields import Field, canonical
from proxy.headers import FRAMING, HOP_BY_HOP
from proxy.injection import AUTHORIZATION
from proxy.notes import FullNotes, Sent
from proxy.reasons import NAMED_THE_PROXY, WITH_THE_UPSTREAMS_NAME, Reasons, cookie_names
from proxy.redact import MASK

#: Fields of a request in which the proxy may be named (`headers.request_lines`).
_NAMING: Final = frozenset({b"origin", b"referer", b"destination"})


class Crossing:
    """A request's fields as they came, and as they went upstream; of each that did not just cross why."""

    __slots__ = ("came", "went")

    def __init__(self, came: list[Shown], went: list[Shown]) -> None:
        self.came = came
        self.went = went


def crossing(notes: FullNotes, sent: Sent, credential: str, words: Words) -> Crossing:
    """Those of the request of `notes`, sent as `sent` with a token of `credential`, where it had one.

    A client sends the same fields again and again, and what becomes of them is the same each time.
    """
    memo, outgoing = notes.section.memo, sent.outgoing
    bare = None if notes.binding is None else notes.binding.bare
    token = (credential, sent.generation, sent.places, sent.constants)
    key = (words.version, bare, outgoing.lines, outgoing.cookies, token)
    kept: tuple[object, Crossing] | None = memo.get(Crossing)
    if kept is not None and kept[0] == key:
        return kept[1]
    reasons = _reasons(notes, sent)
    lines = split(outgoing.lines)
    found = Crossing(_came(notes, sent, lines, reasons, words), _went(notes, lines, reasons, words))
    found.went.extend(_added(sent, credential))
    # The last alone: with spans each request has lines of its own.
    memo[Crossing] = (key, found)
    return found


def _came(notes: FullNotes, sent: Sent, went: list[Field], reasons: Reasons | None, words: Words) -> list[Shown]:
    given = notes.section.fields
    shown = fields(given, words)
    if reasons is None:
        return shown
    lines = {line for _lower, _value, line in went}
    named = {lower for lower, _value, _line in went}
    cookies = list(cookie_names(sent.outgoing.cookies))
    for at, (lower, value, line) in enumerate(given):
        if lower == b"cookie":
            fate = _of_cookies(value, cookies, reasons)
        elif line not in lines or _is_dropped(lower, reasons):
            fate = _why_not(lower, reasons, is_there=lower in named)
        else:
            continue
        name, text, note = shown[at]
        if not _stays_masked(fate, note):
            shown[at] = name, text, told(fate, note)
    return shown


def _went(notes: FullNotes, went: list[Field], reasons: Reasons | None, words: Words) -> list[Shown]:
    shown = fields(went, words)
    if reasons is None:
        return shown
    lines = {line for _lower, _value, line in notes.section.fields}
    for at, (lower, _value, line) in enumerate(went):
        if line not in lines or _is_dropped(lower, reasons):
            name, text, note = shown[at]
            shown[at] = name, text, told(_why_added(line, reasons), note)
    return shown


def _added(sent: Sent, credential: str) -> Iterator[Shown]:
    """The cookies, and the credential by its places."""
    if sent.outgoing.cookies:
        size = sum(map(len, sent.outgoing.cookies))
        yield "Cookie", f"{MASK} ({size} bytes)", NOT_LISTED
    for place in sent.places:
        what = {"header": place.name, "query": f"?{place.name}", "cookie": f"Cookie {place.name}"}[place.kind]
        shown = f"{place.scheme} {MASK}" if place.scheme else MASK
        yield what, shown, f"added: credential {credential}, generation {sent.generation}"
    for name in sent.constants:
        yield name, MASK, f"added: credential {credential}"


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
