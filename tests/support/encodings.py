"""The forms in which a secret turns up: encoders of the standard library and of others' making.

Law: none of them is the code under test, and what each writes, `decodings.py` reads.
"""

import base64
import html
import json
import shlex
import string
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

_UNRESERVED: Final = string.ascii_letters + string.digits + "_.-~"


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _shifted(shift: int) -> Callable[[str], str]:
    """Base64 of a longer text, in which the value begins `shift` bytes after a group: `user:password`."""

    def encode(value: str) -> str:
        return base64.b64encode(b"u" * shift + value.encode() + b"::").decode()

    return encode


def _json_with(escaped: str, form: str) -> Callable[[str], str]:
    """A JSON string of a writer that escapes these characters as well, each as `form` says."""

    def encode(value: str) -> str:
        return "".join(form.format(ord(each)) if each in escaped else json.dumps(each)[1:-1] for each in value)

    return encode


def _lower_escapes(text: str) -> str:
    pieces = text.split("%")
    return "%".join([pieces[0], *(piece[:2].lower() + piece[2:] for piece in pieces[1:])])


def _dotnet(value: str) -> str:
    """System.Text.Json: capital digits, and the quote by its number."""

    def units(text: str) -> Iterator[int]:
        raw = text.encode("utf-16-be")
        return (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))

    def one(unit: int) -> str:
        plain = {0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x08: "\\b", 0x0C: "\\f"}
        if unit in plain:
            return plain[unit]
        return chr(unit) if 0x20 <= unit < 0x7F and chr(unit) not in "\"&'+<>`" else f"\\u{unit:04X}"

    return "".join(map(one, units(value)))


ENCODERS: Final[dict[str, Callable[[str], str]]] = {
    "raw": str,
    "json": json.dumps,
    "json in Unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json": lambda value: json.dumps(json.dumps(value)),
    "json of PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "json of Go": lambda value: _lower_go(json.dumps(value, ensure_ascii=False)),
    "json of .NET": _dotnet,
    "json of Gson": _json_with("<>&'=", "\\u{:04x}"),
    "quoted": quote,
    "quoted whole": lambda value: quote(value, safe=""),
    "quoted in lower case": lambda value: "".join(
        chr(byte) if chr(byte) in _UNRESERVED else f"%{byte:02x}" for byte in value.encode()
    ),
    "quoted as a form": quote_plus,
    "quoted as a component in JavaScript": lambda value: quote(value, safe="!'()*"),
    "quoted as a query": lambda value: quote(value, safe="!$&'()*+,;=:@/?"),
    "quoted twice": lambda value: quote(quote(value, safe=""), safe=""),
    "quoted twice in lower case": lambda value: _lower_escapes(quote(quote(value, safe=""), safe="")),
    "html": html.escape,
    "html, quotes left": lambda value: html.escape(value, quote=False),
    "html of Go": lambda value: html.escape(value).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    "xml": lambda value: html.escape(value).replace("&#x27;", "&apos;"),
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "backslashes": lambda value: value.encode("ascii", "backslashreplace").decode(),
    "for a shell": shlex.quote,
    "for SQL": lambda value: value.replace("'", "''"),
    "hexadecimal": lambda value: value.encode().hex(),
    "hexadecimal in capitals": lambda value: value.encode().hex().upper(),
    "base64": _base64,
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64, one behind": _shifted(1),
    "base64, two behind": _shifted(2),
    "base64, five behind": _shifted(5),
    "basic": lambda value: "Basic " + base64.b64encode(b"client-17:" + value.encode()).decode(),
    "base64, quoted": lambda value: quote(_base64(value), safe=""),
    "base64 in json of PHP": lambda value: _base64(value).replace("/", "\\/"),
}


def _lower_go(text: str) -> str:
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
