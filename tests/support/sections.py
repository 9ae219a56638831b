"""Field sections as they came over the wire, made of names and values."""

from collections.abc import Iterable

from proxy.http1.request import RequestSection
from proxy.http1.section import Section

Pairs = Iterable[tuple[bytes, bytes]]


def wire(pairs: Pairs) -> bytes:
    """The field lines, without the empty line behind them."""
    return b"\r\n".join(b"%b: %b" % pair for pair in pairs)


def section(pairs: Pairs) -> Section:
    """What the parser makes of these fields, one or more lines in their order."""
    return Section(wire(pairs))


def request_section(pairs: Pairs, minor: int = 1) -> RequestSection:
    """The same, of a request of HTTP/1.`minor`."""
    return RequestSection(wire(pairs), minor)
