"""The types of the configuration's fields: how each is read, and what an editor's schema says of it."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from proxy.config import addresses, values
from proxy.config.places import INJECT_SCHEMA, PLACE_SCHEMA, distinct, inject, place
from proxy.config.secrets import FORMS, KINDS, LiteralSecret, SecretReader, SecretSource
from proxy.grants.login import Value
from proxy.injection import Inject, Place
from proxy.redact import Secret
from proxy.routes import Origin

#: Fields of a login and headers with such names hold secrets; written out, they count as literals.
SECRET_NAME: Final = re.compile(
    r"^(?!.*[-_](?:type|version)$)"
    r".*(?:password|passwd|passphrase|secret|token|key|credential|authorization|assertion|cookie)",
    re.IGNORECASE,
)
#: What stands for a token of the step before; any other `$` is an ordinary character.
SUBSTITUTES: Final = frozenset({"$access_token", "$refresh_token"})

REFERENCE_SCHEMA: Final[dict[str, Any]] = {
    "description": f"A reference to a secret: {FORMS}. A literal only where the file is private (mode 0600).",
    "anyOf": [
        {"type": "string"},
        *(
            {
                "type": "object",
                "properties": {kind: {"type": "string"}, "json": {"type": "string"}},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind in KINDS
        ),
        {
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "json": {"type": "string"},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
    ],
}
_SCALAR_SCHEMA: Final[dict[str, Any]] = {"type": ["string", "number", "boolean", "null"]}


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no coercion, no change after load.

    A start builds the validators that it needs, and defaults are not validated.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        defer_build=True,
    )


def reader(info: ValidationInfo) -> SecretReader:
    """The reader of secrets that `load` passes as context."""
    if not isinstance(info.context, SecretReader):
        raise TypeError("the configuration's models are validated by proxy.config.load")
    return info.context


def _read_secret(value: object, info: ValidationInfo) -> SecretSource:
    return reader(info).read(value)


def _own(source: SecretSource) -> SecretSource:
    if source.kind == "credential":
        raise ValueError("a key is not the token of another credential: write another reference")
    return source


def _mark_literals(value: object) -> object:
    """Plain values under names that mean secrets become literals, which only a private file may hold."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: LiteralSecret(str(each))
        if SECRET_NAME.search(str(name))
        and isinstance(each, str | int | float)
        and not isinstance(each, bool)
        and each not in SUBSTITUTES
        else each
        for name, each in value.items()
    }


def _login_value(value: object, info: ValidationInfo) -> object:
    if isinstance(value, Mapping | LiteralSecret):
        return reader(info).read(value)
    return scalar(value)


def _claims(value: object, info: ValidationInfo) -> dict[str, Any]:
    """A JSON object; a member that is a reference to a secret becomes one."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("write a mapping, such as {iss: tools, sub: ann@example.com}")
    return {
        name: reader(info).read(each) if isinstance(each, Mapping) and _is_reference(each) else _listed(each)
        for name, each in value.items()
    }


def _is_reference(value: Mapping[Any, Any]) -> bool:
    return set(value) - {"json"} <= {*KINDS, "command"} and len(value) <= 2


def _listed(value: object) -> object:
    """Plain JSON: YAML's lists are tuples here."""
    if isinstance(value, Mapping):
        return {str(name): _listed(each) for name, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value


def _text_value(value: object, info: ValidationInfo) -> object:
    """Text, or a reference to one; numbers are taken as they are written."""
    if isinstance(value, Mapping):
        return reader(info).read(value)
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool) and value != ""):
        return None if value is None else str(value)
    raise ValueError("write text, or a reference to it such as {env: NAME}")


def plain_text(value: SecretSource | str | None) -> Secret | str | None:
    """A text as the grants take it."""
    return value.value if isinstance(value, SecretSource) else value


def scalar(value: object) -> object:
    """Text, a number, true, false or null."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError("write text, a number, true, false or null")


def _places(value: object) -> object:
    return (value,) if isinstance(value, Mapping) else value


def statuses(value: object) -> tuple[int, ...] | Literal["any"] | None:
    """A list of statuses, or the word `any`."""
    if value is None or value == "any":
        return value
    if not isinstance(value, tuple | list) or not value:
        raise ValueError("write a list of statuses, such as [401, 403], or the word any")
    return tuple(values.status(each) for each in value)


def _upstream(value: str) -> str:
    addresses.upstream(value)
    return value


def _token_url(value: str) -> str:
    addresses.url(value, query=True)
    return value


def _host_header(value: str) -> str:
    if value in {"upstream", "client"}:
        return value
    name, colon, port = value.rpartition(":")
    addresses.host(name if colon and port.isdigit() else value)
    return value


_DURATION_SCHEMA: Final = WithJsonSchema({"type": ["number", "string"], "examples": [30, "30s", "5m", "1h", "29d"]})
_SIZE_SCHEMA: Final = WithJsonSchema({"type": ["integer", "string"], "examples": [65536, "64KiB", "1MiB"]})

Name = Annotated[str, AfterValidator(values.name)]
Host = Annotated[str, AfterValidator(addresses.host)]
Variable = Annotated[str, AfterValidator(values.variable)]
HeaderName = Annotated[str, AfterValidator(values.header_name)]
HeaderValue = Annotated[str, AfterValidator(values.header_value)]
TokenWord = Annotated[str, AfterValidator(values.token_word)]
Method = Annotated[str, AfterValidator(values.method)]
Prefix = Annotated[str, AfterValidator(addresses.prefix)]
Pointer = Annotated[str, AfterValidator(values.pointer)]
TokenPointer = Annotated[str, AfterValidator(values.token_pointer)]
ExpiryPointer = Annotated[str, AfterValidator(values.expiry_pointer)]
PathPattern = Annotated[str, AfterValidator(addresses.path_pattern)]
BrowserOrigin = Annotated[str, AfterValidator(addresses.browser_origin)]
UpstreamURL = Annotated[str, AfterValidator(_upstream)]
TokenURL = Annotated[str, AfterValidator(_token_url)]
HostHeader = Annotated[str, AfterValidator(_host_header)]
Status = Annotated[int, PlainValidator(values.status), WithJsonSchema({"type": "integer"})]
Duration = Annotated[float, PlainValidator(values.duration), _DURATION_SCHEMA]
Timeout = Annotated[float, PlainValidator(values.positive_duration), _DURATION_SCHEMA]
Size = Annotated[int, PlainValidator(values.size), _SIZE_SCHEMA]
PeerUids = Annotated[
    Literal["any"] | tuple[int | Literal["self"], ...] | None,
    PlainValidator(values.peer_uids),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"const": "self"}]}, "minItems": 1},
                {"const": "any"},
                {"type": "null"},
            ]
        }
    ),
]
Count = Annotated[int, Field(gt=0)]
SecretField = Annotated[SecretSource, PlainValidator(_read_secret), WithJsonSchema(REFERENCE_SCHEMA)]
KeyField = Annotated[SecretField, AfterValidator(_own)]
Scalar = Annotated[Value, PlainValidator(scalar), WithJsonSchema(_SCALAR_SCHEMA)]
LoginValue = Annotated[
    SecretSource | str | int | float | bool | None,
    PlainValidator(_login_value),
    WithJsonSchema({"anyOf": [*REFERENCE_SCHEMA["anyOf"], _SCALAR_SCHEMA]}),
]
TextValue = Annotated[
    SecretSource | str | None,
    PlainValidator(_text_value),
    WithJsonSchema({"anyOf": [*REFERENCE_SCHEMA["anyOf"], {"type": ["string", "integer", "null"]}]}),
]
LoginFields = Annotated[dict[str, LoginValue], BeforeValidator(_mark_literals)]
Claims = Annotated[
    dict[str, Any], PlainValidator(_claims), WithJsonSchema({"type": "object", "additionalProperties": {}})
]
LoginHeaders = Annotated[dict[HeaderName, LoginValue], BeforeValidator(_mark_literals)]
AllowedOrigin = Annotated[
    Origin, PlainValidator(addresses.credential_origin), WithJsonSchema({"type": "string", "format": "uri"})
]
Statuses = Annotated[
    tuple[int, ...] | Literal["any"] | None,
    PlainValidator(statuses),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"const": "any"}, {"type": "null"}]}
    ),
]
InjectField = Annotated[Inject, PlainValidator(inject), WithJsonSchema(INJECT_SCHEMA)]
Places = Annotated[
    tuple[Annotated[Place, PlainValidator(place), WithJsonSchema(PLACE_SCHEMA)], ...],
    BeforeValidator(_places),
    AfterValidator(distinct),
    WithJsonSchema({"anyOf": [PLACE_SCHEMA, {"type": "array", "items": PLACE_SCHEMA, "minItems": 1}]}),
]
