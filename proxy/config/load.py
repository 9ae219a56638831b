"""Makes a `Config` of a text: parse, spell out, validate every part by itself, check what needs more than one.

Each part is validated alone, so that a mistake in one hides none in another: all problems come at once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.config.checks import check
from proxy.config.credentials import TYPES, CredentialConfig
from proxy.config.draft import Draft
from proxy.config.fields import Name
from proxy.config.listeners import Listen
from proxy.config.longform import REFUSED, long_form
from proxy.config.model import AdminConfig, Config, ExecConfig, GuardConfig, LimitsConfig, LogConfig, give_constants
from proxy.config.problems import KeyPath, Problems, did_you_mean
from proxy.config.routing import RouteConfig
from proxy.config.secrets import SecretReader
from proxy.config.sources import Source
from proxy.config.store import StoreConfig
from proxy.config.tracing import TracingConfig
from proxy.config.translate import validate
from proxy.config.yamltext import parse
from proxy.errors import ConfigError


def load(source: Source, *, environ: Mapping[str, str], reads: type[SecretReader] = SecretReader) -> Config:
    """The configuration of `source`, with every secret read from where it is, by a reader of the type `reads`.

    Raises `ConfigError` with all problems, each `file:line: key.path: what to write instead`.
    """
    problems = Problems(source.name)
    written, problems.lines = parse(source.text, problems)
    if not written:
        raise ConfigError(problems.sentences)
    whole = long_form(written, problems)
    withheld = frozenset(_variables(whole))
    reader = reads(environ, source.folder, source.literals_refused(), withheld=withheld)
    parts = _Parts(whole, reader, problems)
    draft = Draft(
        listen=parts.section("listen", Listen) or (),
        routes=parts.routes(),
        credentials=parts.credentials(),
        names=frozenset(parts.mapping("credentials")),
        wanted=parts.wanted(),
        route_names=parts.route_names(),
        guard=parts.section("guard", GuardConfig),
        admin=parts.section("admin", AdminConfig),
        store=parts.section("store", StoreConfig),
        exec=parts.section("exec", ExecConfig),
        literals_refused=reader.literals_refused,
    )
    rest = {
        "store": draft.store,
        "exec": draft.exec,
        "log": parts.section("log", LogConfig),
        "limits": parts.section("limits", LimitsConfig),
        "tracing": parts.section("tracing", TracingConfig),
    }
    check(draft, problems)
    if problems.sentences or draft.guard is None or draft.admin is None:
        raise ConfigError(problems.sentences)
    # Every part is valid by now.
    give_constants(draft.credentials)
    return Config.model_construct(
        listen=draft.listen,
        routes=tuple(draft.routes.values()),
        credentials=dict(draft.credentials),
        guard=draft.guard,
        admin=draft.admin,
        warnings=problems.warnings,
        **rest,
    )


def _variables(written: object) -> Iterator[str]:
    """The names of the variables that hold secrets, wherever a reference to one stands."""
    if isinstance(written, Mapping):
        if isinstance(name := written.get("env"), str) and written.keys() <= {"env", "json"}:
            yield name
        written = tuple(written.values())
    if isinstance(written, list | tuple):
        for each in written:
            yield from _variables(each)


class _Parts:
    """The parts of one configuration in its long form, each validated by itself."""

    def __init__(self, data: dict[str, Any], reader: SecretReader, problems: Problems) -> None:
        self._data = data
        self._reader = reader
        self._problems = problems

    def section(self, name: str, kind: Any) -> Any:  # noqa: ANN401  the type of a field of Config
        """A top-level section: its default where it was not written, None where it is wrong."""
        if name not in self._data:
            return Config.model_fields[name].get_default(call_default_factory=True)
        return self._validate(kind, self._data[name], (name,))

    def routes(self) -> dict[int, RouteConfig]:
        """The valid routes by their index."""
        written = self._data.get("routes", ())
        if not isinstance(written, tuple) or ("routes" in self._data and not written):
            self._problems.add(("routes",), "write a list of routes, each with a prefix and an upstream")
            return {}
        found = {
            index: self._validate(RouteConfig, route, ("routes", index)) for index, route in enumerate(written)
        }
        return {index: route for index, route in found.items() if route is not None}

    def wanted(self) -> dict[int, str]:
        """The credential that each route names, by the route's index."""
        return dict(self._said("credential"))

    def route_names(self) -> frozenset[str]:
        """What the routes are called."""
        return frozenset(name for _index, name in self._said("name"))

    def _said(self, key: str) -> Iterator[tuple[int, str]]:
        """The text at this key of each route that was written, by the route's index."""
        written = self._data.get("routes", ())
        for index, route in enumerate(written if isinstance(written, tuple) else ()):
            if isinstance(route, dict) and isinstance(said := route.get(key), str):
                yield index, said

    def mapping(self, name: str) -> dict[str, Any]:
        """A section that is a mapping of names, as it was written."""
        written = self._data.get(name, {})
        return written if isinstance(written, dict) else {}

    def credentials(self) -> dict[str, CredentialConfig]:
        """The valid credentials by name."""
        if not isinstance(self._data.get("credentials", {}), dict):
            self._problems.add(("credentials",), "write a mapping: a name, and below it a credential")
        found = {}
        for name, written in self.mapping("credentials").items():
            path: KeyPath = ("credentials", name)
            self._validate(Name, name, path)
            if written is REFUSED:
                continue
            kind = written.get("type") if isinstance(written, dict) else None
            if not isinstance(written, dict):
                self._problems.add(path, f"write a mapping with type: {', '.join(TYPES)}, or with preset: NAME")
            elif not isinstance(kind, str) or kind not in TYPES:
                hint = did_you_mean(kind, TYPES) if isinstance(kind, str) else ""
                self._problems.add((*path, "type"), f"write type: {', '.join(TYPES)}, or preset: NAME{hint}")
            else:
                found[name] = self._validate(TYPES[kind], written, path)
        return {name: credential for name, credential in found.items() if credential is not None}

    def _validate(self, kind: Any, data: object, path: KeyPath) -> Any:  # noqa: ANN401  as in section
        return validate(kind, data, path, reader=self._reader, problems=self._problems)
