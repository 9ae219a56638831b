"""The JSON Schema of the configuration as people write it, for editors."""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic.json_schema import models_json_schema

from proxy.config.credentials import TYPES
from proxy.config.fields import Section
from proxy.config.longform import SHORT_ROUTE
from proxy.config.model import Config
from proxy.config.presets import Preset, presets
from proxy.config.template import COMMON, Parameter

_SCALARS = ["string", "number", "boolean"]


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the short and the long form; descriptions are the sentences below the fields."""
    models: tuple[type[Section], ...] = (Config, *TYPES.values())
    _refs, made = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/$defs/{model}",
    )
    definitions: dict[str, Any] = made["$defs"]
    _explain(definitions)
    config = definitions.pop("Config")
    secret = definitions["StaticCredential"]["properties"]["token"]
    for preset in presets().values():
        stands_for = TYPES[preset.credential["type"]].__name__
        definitions[f"preset {preset.name}"] = _preset(preset, definitions[stands_for]["properties"], secret)
    choices = [*(model.__name__ for model in TYPES.values()), *(f"preset {name}" for name in presets())]
    credential = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in choices]}
    route = definitions["RouteConfig"]
    # The name comes from the prefix where it is not written.
    route["required"] = ["upstream"]
    properties = {key: value for key, value in config["properties"].items() if key != "warnings"}
    properties["credentials"] = {
        "type": "object",
        "additionalProperties": credential,
        "description": properties["credentials"]["description"],
    }
    short = {key: route["properties"][key] for key in sorted(SHORT_ROUTE)}
    short["credential"] = {
        "anyOf": [{"type": "string"}, *credential["anyOf"]],
        "description": "The credential itself, or the name of one.",
    }
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bearer-proxy configuration",
        "type": "object",
        "properties": properties | short,
        "additionalProperties": False,
        "oneOf": [{"required": ["upstream"]}, {"required": ["routes"]}],
    }
    return {**found, "$defs": {name: definitions[name] for name in sorted(_used(found, definitions, set()))}}


def _explain(definitions: dict[str, Any]) -> None:
    """Describe every property. Pydantic can do that, but reads the sources of all models at each start for it."""
    for model in _models(Section):
        properties = definitions.get(model.__name__, {}).get("properties", {})
        for ancestor in model.__mro__:
            for name, sentence in _sentences(ancestor) if issubclass(ancestor, Section) else ():
                properties.get(name, {})["description"] = sentence


def _models(model: type[Section]) -> Iterator[type[Section]]:
    for each in model.__subclasses__():
        yield each
        yield from _models(each)


def _sentences(model: type) -> Iterator[tuple[str, str]]:
    """The fields of a model's own and the sentence below each."""
    written = ast.parse(inspect.getsource(model)).body[0]
    for field, below in pairwise(ast.iter_child_nodes(written)):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(sentence))),
            ):
                yield name, inspect.cleandoc(sentence)


def _used(node: object, definitions: dict[str, Any], seen: set[str]) -> set[str]:
    """The definitions that `node` leads to; the normalised values behind a field's text are none of them."""
    if isinstance(node, dict):
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name and name not in seen:
            seen.add(name)
            _used(definitions[name], definitions, seen)
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _used(each, definitions, seen)
    return seen


def _preset(preset: Preset, keys: dict[str, Any], secret: dict[str, Any]) -> dict[str, Any]:
    """The schema of a credential that names a preset; `keys` are those of the type that it stands for."""
    parameters = {each.name: _parameter(each, secret) for each in preset.parameters}
    return {
        "type": "object",
        "title": preset.title,
        "properties": {
            "preset": {"enum": [preset.name, *preset.aliases]},
            **parameters,
            **{key: value for key, value in keys.items() if key in COMMON},
        },
        "required": ["preset", *(each.name for each in preset.parameters if each.required)],
        "additionalProperties": False,
    }


def _parameter(parameter: Parameter, secret: dict[str, Any]) -> dict[str, Any]:
    by_kind: dict[str, dict[str, Any]] = {
        "secret": {key: value for key, value in secret.items() if key == "anyOf"},
        "flag": {"type": "boolean"},
        "url": {"type": "string", "format": "uri"},
        "path": {"type": "string"},
        "text": {"type": "string"},
        "word": {"type": "string"},
        "file": {"type": "string"},
        "list": {"type": "array", "items": {"type": "string"}},
        "body_or_header": {"anyOf": [{"const": "body"}, {"type": "object", "required": ["header"]}]},
        "value": {"anyOf": [{"type": _SCALARS}, *secret["anyOf"]]},
    }
    made = {"enum": list(parameter.choices)} if parameter.choices else by_kind[parameter.kind]
    default = {} if parameter.default is None else {"default": parameter.default}
    return {**made, "description": parameter.help, **default}
