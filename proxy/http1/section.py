"""A field section: parsed strictly and once, each line kept as it came.

Law: what RFC 9112 calls malformed is refused, never mended; what passes on is the line that came, byte for byte.
"""

import re
from typing import Final

from proxy.fields import Field, connection_options

#: More fields than any program sends.
MOST_FIELDS: Final = 256
#: field-content of RFC 9110 section 5.5: tab, visible ASCII, space, and obs-text.
TEXT: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Malformed(ValueError):  # noqa: N818  named after what happened, as all errors here
    """The structure is broken. Holds no byte of what came."""


class BadText(Malformed):
    """A control character in the value of a field."""


class TooMany(Malformed):
    """More fields, or more bytes of them, than there may be."""


class Names(dict[bytes, bytes]):
    """Field names that were found proper, each with its lower-case form. Bounded in number and length."""

    MOST: Final = 1024
    LONGEST: Final = 64

    def __missing__(self, name: bytes) -> bytes:
        """Check a name that was not seen before. Raises `Malformed`: no token (RFC 9110 section 5.6.2)."""
        if not _NAME.fullmatch(name):
            raise Malformed
        lower = name.lower()
        if len(self) < self.MOST and len(name) <= self.LONGEST:
            self[name] = lower
        return lower


#: The check of a name costs more than the rest of a field, and programs use a few dozen names.
_NAMES: Final = Names()


class Section:
    """A parsed field section; `raw` is all of it without the empty line at its end.

    `fields` are in order; `values` has the values by lower-case name; `options` are the Connection options.
    Raises `Malformed`.
    """

    __slots__ = ("fields", "options", "raw", "values")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.fields: list[Field] = []
        self.values: dict[bytes, list[bytes]] = {}
        self.options: frozenset[bytes] = NO_OPTIONS
        if raw:
            self._parse(raw)

    def _parse(self, raw: bytes) -> None:
        lines = raw.split(b"\r\n")
        if len(lines) > MOST_FIELDS:
            raise TooMany
        # What is left without text is the line ends; a bare CR or LF would break their sequence.
        has_controls = raw.translate(None, TEXT) != b"\r\n" * (len(lines) - 1)
        fields, values = self.fields, self.values
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise Malformed
            lower = _NAMES[name]
            if has_controls:
                _check_text(value)
            value = value.strip(b" \t")
            fields.append((lower, value, line))
            if lower in values:
                values[lower].append(value)
            else:
                values[lower] = [value]
        if b"connection" in values:
            self.options = connection_options(values[b"connection"])


NO_OPTIONS: Final[frozenset[bytes]] = frozenset()


def _check_text(value: bytes) -> None:
    """Raise what is wrong with a value: half a line end breaks the structure, other controls only the value."""
    if b"\r" in value or b"\n" in value:
        raise Malformed
    if value.translate(None, TEXT):
        raise BadText


def has_bare_lf(data: bytes) -> bool:
    """Is there a line end without CR? Whoever waits for the end of a head would wait for ever."""
    return data.count(b"\n") != data.count(b"\r\n")
