"""Presets as text for people: what one stands for, and a configuration to begin with."""

import json

from proxy.config.presets import Preset, named
from proxy.config.template import Parameter
from proxy.config.yamltext import dump


def show(name: str) -> str:
    """The configuration that a preset stands for, its parameters, and where each fact comes from.

    Raises `KeyError` where there is no such preset.
    """
    preset = _known(name)
    examples = {each.name: _example(each, preset) for each in preset.parameters if each.required or each.unless}
    route = {"prefix": "/", "upstream": preset.upstream, "credential": preset.name}
    config = {
        "routes": [{**route, **preset.route}],
        "credentials": {preset.name: preset.expand(examples).credential},
    }
    lines = [f"# {preset.title}", f"# preset: {', '.join([preset.name, *preset.aliases])}", "#", "# Parameters:"]
    lines += [f"#   {each.name} ({each.state}): {each.help}" for each in preset.parameters]
    lines += [
        "#",
        "# It stands for:",
        dump(config).rstrip(),
        "#",
        "# What it relies on (V: read there, I: inferred):",
    ]
    lines += [f"#   [{fact.mark}] {fact.what}\n#       {fact.source}" for fact in preset.facts]
    if preset.redact:
        lines += ["#", "# Masked in logs wherever it stands, besides the tokens themselves:"]
        lines += [f"#   {pattern.regex.pattern}" for pattern in preset.redact]
    return "\n".join(lines) + "\n"


def starter(name: str) -> str:
    """A commented configuration with this preset: what must be given is there, the rest stands in comments.

    Raises `KeyError` where there is no such preset.
    """
    preset = _known(name)
    lines = [
        f"# {preset.title}. `bearer-proxy presets {preset.name}` says what this preset stands for.",
        "# Fill in what is below credential, then: bearer-proxy check, bearer-proxy doctor, bearer-proxy run.",
        "# Secrets are references, such as {env: NAME}, {file: PATH}, {command: [PROGRAM, ARGUMENT]}.",
        "",
        "listen: 127.0.0.1:8080",
        f"upstream: {preset.upstream}",
        "credential:",
        f"  preset: {preset.name}",
    ]
    for each in preset.parameters:
        needed = each.required or each.unless is not None
        value = _example(each, preset) if needed or each.default is None else each.default
        lines += [f"  # {each.help} ({each.state})", f"  {'' if needed else '# '}{each.name}: {_inline(value)}"]
    return "\n".join(lines) + "\n"


def _known(name: str) -> Preset:
    preset = named(name)
    if preset is None:
        raise KeyError(name)
    return preset


def _inline(value: object) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {each}" for key, each in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _example(parameter: Parameter, preset: Preset) -> object:
    """What somebody might write for a parameter that has no default."""
    examples: dict[str, object] = {
        "url": preset.upstream,
        "file": f"{parameter.name}.json",
        "text": parameter.name,
        "word": parameter.name.upper(),
        "list": (parameter.name,),
        "path": "/path",
    }
    variable = f"{preset.name}_{parameter.name}".upper().replace("-", "_")
    if parameter.choices:
        return parameter.choices[0]
    return examples.get(parameter.kind, {"env": variable})
