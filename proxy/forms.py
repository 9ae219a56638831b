"""The forms in which a secret turns up in text: as it is, quoted, escaped for another language, in base64.

Law: a form is listed because some software writes it; `tests/support/encodings.py` has an encoder for each.
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

#: What URL libraries leave unquoted: nothing, a path, a query (RFC 3986), and JavaScript's encodeURIComponent.
_LEFT_UNQUOTED: Final = ("", "/", "!$&'()*+,;=:@/?", "!'()*")

_MARKUP: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
#: How writers of HTML and XML put quotes: Python; Go, and Python's markupsafe; XML.
_QUOTES: Final = tuple(
    str.maketrans({'"': double, "'": single})
    for double, single in (
        ("&quot;", "&#x27;"),
        ("&#34;", "&#39;"),
        ("&quot;", "&#39;"),
        ("&quot;", "&apos;"),
        ("&quot;", "'"),
    )
)
#: What writers of JSON escape besides: PHP; Go, for HTML; .NET, in capital digits; Gson.
_JSON_EXTRAS: Final = tuple(
    str.maketrans(table)
    for table in (
        {"/": "\\/"},
        {each: f"\\u{ord(each):04x}" for each in "<>&"},
        {each: f"\\u{ord(each):04X}" for each in "<>&'+`"},
        {each: f"\\u{ord(each):04x}" for each in "<>&'="},
    )
)


def forms(value: str) -> set[str]:
    """Every form in which `value` may turn up in text; of base64 what does not depend on its neighbours."""
    raw = value.encode("utf-8", "surrogateescape")
    found = {value, *_quoted(raw), *_in_json(value), *_in_markup(value), *_in_programs(value, raw)}
    for core in _base64_cores(raw):
        found |= {core, quote(core, safe=""), core.replace("/", "\\/")}
    found |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in tuple(found) if "%" in form}
    return found


def _quoted(raw: bytes) -> Iterator[str]:
    for safe in _LEFT_UNQUOTED:
        once = quote(raw, safe=safe)
        yield once
        # A URL that is a parameter of another one.
        yield quote(once, safe="")
    yield quote_plus(raw)


def _in_json(value: str) -> Iterator[str]:
    for ascii_only in (True, False):
        plain = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield plain
        # A document that is a string in another one, as logs of logs are.
        yield json.dumps(plain, ensure_ascii=ascii_only)[1:-1]
        for extras in _JSON_EXTRAS:
            yield plain.translate(extras)
    # .NET escapes the quote by its number, too.
    plain = "".join(json.dumps(each)[1:-1] if each != '"' else "\\u0022" for each in value)
    yield re.sub(r"\\u[0-9a-f]{4}", lambda match: "\\u" + match[0][2:].upper(), plain).translate(_JSON_EXTRAS[2])


def _in_markup(value: str) -> Iterator[str]:
    plain = value.translate(_MARKUP)
    yield plain
    for quotes in _QUOTES:
        yield plain.translate(quotes)


def _in_programs(value: str, raw: bytes) -> Iterator[str]:
    """Python's own literals, a shell's, SQL's and YAML's, and hexadecimal digits."""
    yield repr(value)[1:-1]
    yield repr(raw)[2:-1]
    yield value.encode("ascii", "backslashreplace").decode()
    yield value.replace("'", "'\"'\"'")
    yield value.replace("'", "'\\''")
    yield value.replace("'", "''")
    yield raw.hex()
    yield raw.hex().upper()


def _base64_cores(raw: bytes) -> Iterator[str]:
    """The part of the base64 text that does not depend on what stands before and after the value.

    A value inside a longer text (`user:password`) begins at one of three alignments; the first and last
    characters mix with the neighbours and are left off.
    """
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        begin = (0, 2, 3)[shift]
        whole = (shift + len(raw)) * 8 // 6
        core = encoded[begin:whole]
        yield core
        yield core.replace("+", "-").replace("/", "_")
