"""Says in our own words what pydantic found; its own messages may quote the input, so none is shown."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.config.problems import KeyPath, Problems, unknown_key
from proxy.config.secrets import SecretReader

T = TypeVar("T")

_SENTENCES: Final = {
    "missing": "this key is missing: add it",
    "string_type": "write text, in quotes if it looks like a number or a word such as true",
    "bool_type": "write true or false",
    "int_type": "write a whole number",
    "tuple_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping, such as {key: value}",
    "model_type": "write a mapping, such as {key: value}",
    "greater_than": "write a number above zero",
}


def validate(kind: type[T], data: object, path: KeyPath, *, reader: SecretReader, problems: Problems) -> T | None:
    """`data` as `kind`, or None after every problem was noted at its key path below `path`."""
    try:
        return _validator(kind)(data, context=reader)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            where, sentence = _translate(kind, data, each["loc"], each["type"], each.get("ctx", {}))
            problems.add((*path, *where), sentence)
        return None


def _validator(kind: type[T]) -> Callable[..., T]:
    """What validates as `kind`; an adapter for a model would build its validators once more."""
    # What has an origin is no class: the annotated types of fields.py.
    if get_origin(kind) is None and issubclass(kind, BaseModel):
        return kind.model_validate
    return TypeAdapter(kind).validate_python


def _translate(
    kind: object, data: object, found: tuple[int | str, ...], reason: str, context: Mapping[str, Any]
) -> tuple[KeyPath, str]:
    loc = tuple(part for part in found if part != "[key]")
    if reason == "extra_forbidden":
        model = _model_at(kind, loc[:-1])
        where, sentence = unknown_key(str(loc[-1]), _value_at(data, loc), model.model_fields if model else ())
        return (*loc[:-1], *where), sentence
    if reason == "value_error":
        return loc, str(context["error"])
    if reason == "literal_error":
        return loc, f"write {str(context['expected']).replace(chr(39), '')}"
    return loc, _SENTENCES.get(reason, "this value is of the wrong kind: see config.example.yaml")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _model_at(kind: object, path: KeyPath) -> type[BaseModel] | None:
    """The model that stands at `path` below `kind`; indexes and keys of mappings lead through it."""
    model = next(_models(kind), None)
    for part in path:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), None)
    return model


def _value_at(data: Any, path: KeyPath) -> object:  # noqa: ANN401  plain data
    for part in path:
        data = data[part]
    return data
