"""Reads where a token goes and what happens to the client's own: `place` and `inject`."""

from collections.abc import Mapping
from typing import Any, Final

from proxy.config import values
from proxy.injection import Inject, Place, Replace

PLACE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "header": {"type": "string"},
        "scheme": {"type": ["string", "null"]},
        "query": {"type": "string"},
        "cookie": {"type": "string"},
    },
    "additionalProperties": False,
}
INJECT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"enum": ["overwrite", "if-absent"]},
        {
            "type": "object",
            "properties": {"replace": {"type": "string"}},
            "required": ["replace"],
            "additionalProperties": False,
        },
    ]
}


def place(value: object) -> Place:
    """One place of a token, from `{header: NAME, scheme: WORD}`, `{query: NAME}` or `{cookie: NAME}`."""
    if not isinstance(value, Mapping) or not set(value) <= {"header", "scheme", "query", "cookie"}:
        raise ValueError("write {header: NAME, scheme: WORD}, {query: NAME} or {cookie: NAME}")
    names = [(kind, value[kind]) for kind in ("header", "query", "cookie") if kind in value]
    if not names and "scheme" in value:
        names = [("header", "Authorization")]
    if len(names) != 1 or not isinstance(names[0][1], str):
        raise ValueError("write exactly one of header, query and cookie, with a name")
    kind, name = names[0]
    if kind == "header":
        return _header_place(name, value)
    if "scheme" in value:
        raise ValueError("scheme belongs to a header: remove it here")
    values.token_word(name)
    if kind == "query":
        return Place("query", name)
    if name.startswith(values.OWN_COOKIES):
        raise ValueError(f"cookies called {values.OWN_COOKIES}… belong to the proxy: choose another name")
    return Place("cookie", name)


def _header_place(name: str, value: Mapping[str, object]) -> Place:
    values.header_name(name)
    if name.lower() in {"cookie", "x-proxy-key"}:
        raise ValueError("this header is not one for a token: write {cookie: NAME} or another header")
    # Outside Authorization (RFC 9110 section 11.6.2) a bare value is the custom: X-Api-Key, PRIVATE-TOKEN.
    scheme = value.get("scheme", "Bearer" if name.lower() == "authorization" else None)
    if scheme is not None and not isinstance(scheme, str):
        raise ValueError("write the scheme as one word such as Bearer, or null for the raw token")
    return Place("header", name, values.token_word(scheme) if scheme else None)


def distinct(places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The same places, if there is one and none is there twice."""
    if not places:
        raise ValueError("name at least one place: {header: NAME}, {query: NAME} or {cookie: NAME}")
    # Header names do not differ by case; the names of parameters and cookies do.
    keys = [(each.kind, each.name.lower() if each.kind == "header" else each.name) for each in places]
    if len(set(keys)) < len(keys):
        raise ValueError("two places are the same: remove one")
    return places


def inject(value: object) -> Inject:
    """`overwrite`, `if-absent` or `{replace: PLACEHOLDER}`."""
    if value in ("overwrite", "if-absent"):
        return value
    if isinstance(value, Mapping) and set(value) == {"replace"} and isinstance(value["replace"], str):
        if not value["replace"] or " " in value["replace"]:
            raise ValueError("write a placeholder without spaces")
        return Replace(values.header_value(value["replace"]).encode("ascii"))
    raise ValueError("write overwrite, if-absent or {replace: PLACEHOLDER}")
