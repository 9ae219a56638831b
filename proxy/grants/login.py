"""Any "post credentials, get a token" API, described as data (INTERFACE, `login`), and the requests it makes."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from proxy.errors import ConfigError
from proxy.grants.pointer import unescaped
from proxy.grants.request import TokenRequest
from proxy.redact import Secret

#: These strings, as a whole value, stand for the tokens of the step before.
ACCESS_TOKEN: Final = "$access_token"  # noqa: S105  a placeholder
REFRESH_TOKEN: Final = "$refresh_token"  # noqa: S105  a placeholder

Encoding = Literal["form", "json", "multipart", "query"]
#: A field's value; None: the field is not sent.
Value = Secret | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a login: the login itself, the refresh, or a step after it."""

    url: str
    method: str = "POST"
    encoding: Encoding = "form"
    fields: Mapping[str, Value] = field(default_factory=dict)
    headers: Mapping[str, Value] = field(default_factory=dict)
    accept: tuple[int, ...] = (200,)


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """Where the parts of a token reply stand.

    `token` and `refresh_token` are `/json/pointer` (RFC 6901), `header:NAME` or `text`; the others JSON pointers.
    `expires` may also be the word `jwt` (the token's own `exp`) or `vanilla` (the third part of a `va.` token).
    `refresh_lifetimes` are places for the seconds that the refresh token is good; the first that says so counts.
    """

    token: str = "/access_token"  # noqa: S105  a JSON pointer, no secret
    refresh_token: str | None = None
    lifetime: str | None = None
    lifetime_unit: Literal["seconds", "milliseconds", "minutes"] = "seconds"
    expires: str | None = None
    default_lifetime: float | None = None
    refresh_expires: str | None = None
    refresh_lifetimes: tuple[str, ...] = ()
    success: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoginDescription:
    """A whole `login` credential: how to log in, how to refresh, what follows, and how to read the replies."""

    login: Step
    response: ResponseRules
    refresh: Step | None = None
    then: tuple[Step, ...] = ()


#: What a step's header may not set: it frames the message, or would make the reply unreadable.
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110 section 5.6.2
_LINE: Final = re.compile(r"(?! )[\x20-\x7e]*(?<! )")
_PART_NAME: Final = re.compile(r'[^"\\\x00-\x1f\x7f]+')

_Plain = str | int | float | bool


def references(step: Step) -> frozenset[str]:
    """Which of `$access_token` and `$refresh_token` a step's fields and headers stand on."""
    values = (*step.fields.values(), *step.headers.values())
    return frozenset(value for value in values if isinstance(value, str)) & {ACCESS_TOKEN, REFRESH_TOKEN}


def build(
    step: Step,
    *,
    access_token: Secret | None,
    refresh_token: Secret | None,
    boundary: str,
    bearer: bool = False,
) -> TokenRequest:
    """The HTTP request of a step.

    `access_token` and `refresh_token` are those of the step before; `bearer` sends the former as
    `Authorization: Bearer`, unless the step sets that header itself. `boundary` parts a multipart body.
    The body is whole, so that `Content-Length` can be sent (TeleTracker wants it).
    Raises `ConfigError` for what cannot be sent: it names the field or header, never its value.
    """
    tokens = {ACCESS_TOKEN: access_token, REFRESH_TOKEN: refresh_token}
    fields = _filled(step.fields, tokens)
    headers = {name.lower(): (name, _text(value)) for name, value in _filled(step.headers, tokens).items()}
    for name, value in headers.values():
        _check_header(name, value)
    if bearer and access_token is not None:
        headers.setdefault("authorization", ("Authorization", f"Bearer {access_token.reveal()}"))
    headers.setdefault("accept", ("Accept", "application/json"))
    headers.setdefault("user-agent", ("User-Agent", "bearer-proxy"))
    headers["accept-encoding"] = ("Accept-Encoding", "identity")
    try:
        url, content_type, body = _encode(step, fields, boundary)
    except UnicodeEncodeError:
        raise ConfigError(
            ["A field of a token request holds text that is not Unicode; check its secret."]
        ) from None
    if content_type is not None and (step.encoding == "multipart" or "content-type" not in headers):
        headers["content-type"] = ("Content-Type", content_type)
    if body is not None:
        headers["content-length"] = ("Content-Length", str(len(body)))
    return TokenRequest(method=step.method, url=url, headers=tuple(headers.values()), body=body)


def _filled(values: Mapping[str, Value], tokens: Mapping[str, Secret | None]) -> dict[str, _Plain]:
    """`values` with the tokens in their places and secrets revealed; those without a value are left out."""
    found: dict[str, _Plain] = {}
    for name, value in values.items():
        if isinstance(value, str) and value in tokens:
            token = tokens[value]
            if token is None:
                raise ConfigError(
                    [f"The field {name!r} of a token request is {value}, but no step before gives one."]
                )
            found[name] = token.reveal()
        elif value is not None:
            found[name] = _plain(value)
    return found


def _plain(value: Secret | _Plain) -> _Plain:
    return value.reveal() if isinstance(value, Secret) else value


def _text(value: _Plain) -> str:
    """As it stands in a form, a query or a header: numbers in decimal, booleans as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_header(name: str, value: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _OURS:
        raise ConfigError([f"The header {name!r} cannot be set on a token request."])
    if not _LINE.fullmatch(value):
        raise ConfigError(
            [f"The value of the header {name!r} of a token request holds characters that no header may; check it."]
        )


def _encode(step: Step, fields: Mapping[str, _Plain], boundary: str) -> tuple[str, str | None, bytes | None]:
    """URL, content type and body.

    1. Query, and GET whatever the encoding: fields in the URL. Other methods have an empty body then.
    2. Form. 3. JSON. 4. Multipart.
    """
    texts = [(name, _text(value)) for name, value in fields.items()]
    if step.encoding == "query" or step.method == "GET":
        query = urlencode(texts, quote_via=quote, errors="surrogateescape")
        url = f"{step.url}{'&' if '?' in step.url else '?'}{query}" if query else step.url
        return url, None, None if step.method == "GET" else b""
    if step.encoding == "form":
        form = urlencode(texts, errors="surrogateescape").encode("ascii")
        return step.url, "application/x-www-form-urlencoded", form
    if step.encoding == "json":
        return step.url, "application/json", _json(fields)
    return step.url, f"multipart/form-data; boundary={boundary}", _multipart(texts, boundary)


def _json(fields: Mapping[str, _Plain]) -> bytes:
    try:
        text = json.dumps(_nested(fields), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ConfigError(["A number in a token request is not finite; JSON has no form for it."]) from None
    return text.encode("utf-8", "surrogateescape")


def _nested(fields: Mapping[str, _Plain]) -> dict[str, Any]:
    """The document: a name that begins with `/` is a JSON pointer to where its value stands (RFC 6901)."""
    root: dict[str, Any] = {}
    for name, value in fields.items():
        parts = [unescaped(part) for part in name.split("/")[1:]] if name.startswith("/") else [name]
        at = root
        for part in parts[:-1]:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigError([f"The field {name!r} of a token request lies inside of one that is no object."])
        at[parts[-1]] = value
    return {name: _listed(each) for name, each in root.items()}


def _listed(value: Any) -> Any:  # noqa: ANN401  JSON is of any type
    """What has the keys 0, 1, 2 … is a list."""
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(each) for name, each in value.items()}
    return list(inner.values()) if list(inner) == [str(index) for index in range(len(inner))] else inner


def _multipart(texts: Iterable[tuple[str, str]], boundary: str) -> bytes:
    """A body of RFC 7578, in which neither a name nor a value can begin a part of its own."""
    parts = []
    for name, value in texts:
        if not _PART_NAME.fullmatch(name):
            raise ConfigError([f"The field name {name!r} cannot be sent as multipart."])
        if boundary in value:
            raise ConfigError(
                [f"The value of the field {name!r} cannot be sent as multipart: it holds the boundary."]
            )
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n')
    return f"{''.join(parts)}--{boundary}--\r\n".encode("utf-8", "surrogateescape")
