"""Makes the long form of what was written: the short form spelled out, presets expanded, later settings refused."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from proxy.config import presets
from proxy.config.credentials import TYPES
from proxy.config.model import Config
from proxy.config.problems import KeyPath, Problems, unknown_key
from proxy.config.routing import RouteConfig

SHORT_ROUTE: Final = frozenset(RouteConfig.model_fields) - {"name", "prefix", "strip_prefix"}
SECTIONS: Final = frozenset(Config.model_fields) - {"warnings"}
_DEFAULT: Final = "default"
_Holder = dict[str | int, Any]
#: Stands for a credential that was refused already; its name is still known.
REFUSED: Final = object()

#: Settings of the interface that this version does not have; `*` stands for any name or index.
NOT_BUILT: Final = tuple(
    tuple(path.split("."))
    for path in (
        "credentials.*.response.upstream",
        "credentials.*.response.upstream_allow",
    )
)
_SHORT_NOT_BUILT: Final = frozenset(path[2] for path in NOT_BUILT if path[0] == "routes" and len(path) == 3)


def long_form(written: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """The long form of `written`; notes problems, and in `problems.moved` where each part was written."""
    data = _spelled_out(written, problems)
    _refuse_later_settings(data, problems)
    _expand_presets(data, problems)
    _name_routes(data, problems)
    return data


def _spelled_out(written: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Routes and credentials in place of the short form's keys."""
    later = {path[0] for path in NOT_BUILT}
    short = {key: written[key] for key in written if key in SHORT_ROUTE | _SHORT_NOT_BUILT}
    data = {key: value for key, value in written.items() if key in SECTIONS | later}
    for key in written.keys() - short.keys() - data.keys():
        where, sentence = unknown_key(key, written[key], SECTIONS | {"upstream", "credential"})
        problems.add(where, sentence)
    if "routes" in data:
        for key in short:
            problems.add((key,), "this is the short form's: move it into one of the routes")
    elif "upstream" not in short:
        problems.add((), "there is no upstream: write upstream: https://… or a list of routes")
    else:
        problems.moved["routes", 0] = ()
        inline = short.get("credential")
        if isinstance(inline, Mapping):
            others = data.get("credentials", {})
            if not isinstance(others, Mapping) or _DEFAULT in others:
                problems.add(("credentials",), f"write a mapping of credentials, none of them called {_DEFAULT}")
                others = {}
            problems.moved["credentials", _DEFAULT] = ("credential",)
            data["credentials"] = {**others, _DEFAULT: inline}
            short["credential"] = _DEFAULT
        elif inline is not None and not isinstance(inline, str):
            problems.add(("credential",), f"write a mapping with type: {', '.join(TYPES)}, or with preset: NAME")
            del short["credential"]
        data["routes"] = ({"name": _DEFAULT, "prefix": "/", **short},)
    return data


def _refuse_later_settings(data: dict[str, Any], problems: Problems) -> None:
    """Note every setting of `NOT_BUILT` and take it out, so that nothing else complains about it."""
    for pattern in NOT_BUILT:
        for holder, path in _holders(data, pattern):
            problems.add(path, "this setting is not built yet: remove it")
            del holder[path[-1]]


def _holders(value: object, pattern: tuple[str, ...], path: KeyPath = ()) -> list[tuple[_Holder, KeyPath]]:
    """Every mapping that has the last key of `pattern`, with the whole key path."""
    if len(pattern) == 1:
        return [(value, (*path, pattern[0]))] if isinstance(value, dict) and pattern[0] in value else []
    return [
        found
        for key, each in _children(value)
        if pattern[0] in ("*", key)
        for found in _holders(each, pattern[1:], (*path, key))
    ]


def _children(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, dict):
        return list(value.items())
    return enumerate(value) if isinstance(value, tuple) else ()


def _expand_presets(data: dict[str, Any], problems: Problems) -> None:
    """Ordinary credentials in place of presets, and the presets' defaults in the routes that use them."""
    credentials = data.get("credentials")
    for name, given in _children(credentials):
        if not isinstance(given, dict) or "preset" not in given:
            continue
        path: KeyPath = ("credentials", name)
        data["credentials"][name] = REFUSED
        preset = presets.named(given["preset"]) if isinstance(given["preset"], str) else None
        if preset is None:
            problems.add((*path, "preset"), presets.unknown(str(given["preset"])))
            continue
        found = preset.expand(given)
        for where, sentence in found.problems:
            problems.add((*path, *where), sentence)
        if not found.problems:
            data["credentials"][name] = found.credential
        written = problems.written(path)
        problems.moved |= {path + part: written + to for part, to in found.moved.items()}
        names = _in_other_places(data["credentials"], name)
        for _index, route in _children(data.get("routes")):
            if isinstance(route, dict) and route.get("credential") in names:
                _give_defaults(route, preset.route)


def _in_other_places(credentials: Mapping[str, Any], name: Any) -> list[Any]:  # noqa: ANN401  as it was written
    """`name`, and every credential that is its token in another place: what is denied for one is for all."""
    found = [name]
    for lender in found:
        found += [
            other
            for other, given in credentials.items()
            if isinstance(given, dict) and given.get("token") == {"credential": lender} and other not in found
        ]
    return found


def _give_defaults(route: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        if key != "deny":
            route.setdefault(key, value)
        elif isinstance(route.setdefault(key, ()), tuple):
            # Behind the written ones, so that those keep their index and with it their line.
            route[key] = (*route[key], *value)


def _name_routes(data: dict[str, Any], problems: Problems) -> None:
    """A name from the prefix or the host, where a route has none."""
    for index, route in _children(data.get("routes")):
        if not isinstance(route, dict):
            continue
        if "prefix" not in route and "host" not in route:
            problems.add(("routes", index), "this route has neither prefix nor host: add prefix: /name")
        prefix, host = route.get("prefix"), route.get("host")
        stem = prefix.strip("/") if isinstance(prefix, str) else ""
        word = stem or (host if isinstance(host, str) else "") or _DEFAULT
        route.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-") or _DEFAULT)
