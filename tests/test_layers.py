"""The import law: who may import whom, by which room of the house, and what the pure part may not touch.

The law is the data below, to be read as a document; the tests hold every module of `proxy/` to it. Imports inside
functions and for type checkers count as well. A new room or a new arrow is entered here first.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import proxy

ROOT: Final = Path(proxy.__file__).parent

#: No I/O, no asyncio, no clock, no randomness. These import each other and the modules of `DATA` only.
PURE: Final = {
    *("errors", "redact", "lifecycle", "grants", "guard", "routes", "globs", "fields", "query", "headers", "http1"),
    "clientkeys",
    "destination",
    "tokenguard",
    "offlimits",
    *("forms", "injection", "names", "patterns", "reasons", "refusals", "reverse", "rewrite"),
    *("literals", "readings"),
}
#: The standard library's data modules.
DATA: Final = {
    *(
        "base64",
        "binascii",
        "bisect",
        "collections",
        "collections.abc",
        "dataclasses",
        "datetime",
        "email.utils",
        "enum",
    ),
    *("hashlib", "hmac", "html", "ipaddress", "json", "math", "re", "struct", "typing", "urllib.parse"),
}
#: Every other room may import the pure part, `config` (its types), the package's version, and these.
MAY_IMPORT: Final[dict[str, set[str]]] = {
    "__main__": {"cli", "hangup", "healthcheck"},
    "cli": {
        *("server", "demo", "doctor", "leaktest", "findings", "adminclient", "healthcheck"),
        *("process", "runfile", "clock", "compiled", "lines", "logs", "child", "explain", "manager", "hangup"),
        # `login` and `logout` work without a running instance.
        *("build", "credentials", "stores"),
    },
    "demo": {"server", "clock", "lines", "logs"},
    "doctor": {"server", "build", "credentials", "findings", "probing", "storecheck", "accesslog", "tls"},
    "explain": {"build", "binding", "clock", "credentials", "listener", "outbound", "upgrade"},
    "child": {"process"},
    "hangup": set(),
    # What it tests runs in processes of its own.
    "leaktest": {"findings", "runfile"},
    "storecheck": {"build", "findings", "stores"},
    "findings": set(),
    "probing": {"accesslog"},
    "server": {
        "build",
        "configured",
        "world",
        "office",
        "listener",
        "doors",
        "lag",
        "sockets",
        "process",
        "peers",
        "credentials",
        "waking",
        "work",
    },
    "office": {"admin", "build", "accesslog", "credentials", "listener", "notes", "clock", "tracing"},
    "tracing": {"accesslog", "binding", "listener", "notes", "witness"},
    "configured": {"build", "relay", "accesslog", "credentials", "listener", "notes"},
    "doors": {"sockets"},
    "lag": set(),
    "manager": {"sockets"},
    "world": {"accesslog", "clock", "lines", "sockets"},
    "build": {"binding", "credentials", "upstream", "stores", "clock", "tls", "peers"},
    "relay": {
        "outbound",
        "passage",
        "inbound",
        "delivery",
        "upgrade",
        "accesslog",
        "binding",
        "body",
        "notes",
        "replay",
        "listener",
        "credentials",
        "upstream",
        "clock",
    },
    "outbound": {"binding", "listener"},
    "passage": {"accesslog", "binding", "inbound", "listener", "notes", "credentials", "upstream", "clock"},
    "notes": {"accesslog", "binding", "body", "credentials", "listener", "upstream"},
    "witness": {"binding", "body", "credentials", "notes", "upstream"},
    "inbound": {"accesslog", "binding", "listener", "credentials"},
    "delivery": {"body", "listener", "upstream"},
    "upgrade": {"accesslog", "alarm", "body", "listener", "upstream"},
    "admin": {"accesslog", "listener", "notes", "credentials", "clock", "compiled", "lines", "body", "work"},
    "listener": {"accesslog", "alarm", "body", "flow", "problem", "work"},
    "peers": set(),
    "sockets": set(),
    "process": set(),
    "problem": set(),
    "binding": {"credentials", "upstream"},
    "credentials": {"stores", "clock", "tls"},
    "upstream": {"alarm", "body", "flow", "work"},
    "healthcheck": {"adminclient", "runfile"},
    "adminclient": {"runfile"},
    "runfile": set(),
    "accesslog": {"lines"},
    "body": {"replay"},
    "replay": set(),
    "alarm": set(),
    "flow": set(),
    "clock": set(),
    "compiled": set(),
    "config": set(),
    "lines": set(),
    "logs": {"lines"},
    "work": set(),
    "stores": set(),
    "tls": set(),
    "waking": {"clock"},
}
#: What must not even be reached through others.
NEVER_REACHES: Final[dict[str, set[str]]] = {
    "relay": {"admin", "server", "cli", "demo"},
    "admin": {"relay", "server", "build", "cli", "demo"},
    "listener": {"relay", "server", "admin", "upstream", "credentials"},
    "credentials": {"upstream", "listener", "relay", "server", "admin"},
    "upstream": {"credentials", "listener", "relay", "server", "admin"},
    "stores": {"credentials", "upstream", "relay"},
    "config": {"server", "relay", "credentials", "upstream", "stores", "admin"},
    # It has to answer in a tenth of a second, so it loads next to nothing.
    "healthcheck": {"config", "server", "credentials", "redact"},
}
#: Who may use what is not the standard library.
PACKAGES: Final[dict[str, set[str]]] = {
    "aiohttp": {"demo", "credentials"},
    "click": {"cli"},
    "cryptography": {"credentials", "stores", "leaktest"},
    "keyring": {"config"},
    "jwt": {"credentials", "demo"},
    "opentelemetry": {"tracing"},
    "pydantic": {"config", "demo"},
    "redis": {"stores"},
    # It is how the exporter of opentelemetry asks, which is told to mind no proxies of the environment.
    "requests": {"tracing"},
    "uvloop": {"cli", "demo"},
    "yaml": {"config", "cli"},
    "yarl": {"credentials"},
}
#: What aiohttp has for servers, as the doubles of the demo are; everything else of it is, or leads to, its client.
AIOHTTP_SERVER: Final = {"web", "typedefs", "BodyPartReader"}
#: Who may use its client: token endpoints only, never the data path (docs/adr/0001).
AIOHTTP_CLIENT: Final = {"credentials/token_endpoint.py"}

#: Calls whose result is only a name for something.
NAMES_ONLY: Final = {"TypeVar", "NewType", "logging.getLogger"}


@cache
def _trees() -> dict[str, ast.Module]:
    """Every module by its path in the package."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def _room(module: str) -> str:
    """`proxy.config.load` and `config/load.py` are of the room `config`; the package itself is its version."""
    parts = module.removesuffix(".py").replace("/", ".").removeprefix("proxy.").split(".")
    return "version" if parts[0] in {"proxy", "__init__"} else parts[0]


@cache
def _imports(path: str) -> tuple[tuple[str, str | None], ...]:
    """Each module that the one at `path` imports, and the name that is taken from it."""
    return tuple(_read_imports(_trees()[path]))


def _read_imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                is_room = node.module == "proxy" and alias.name != "__version__"
                yield (f"proxy.{alias.name}", None) if is_room else (node.module or "", alias.name)


def _rooms_imported(path: str) -> set[str]:
    found = {_room(module) for module, _ in _imports(path) if module.split(".")[0] == "proxy"}
    return found - {"version", _room(path)}


@cache
def _arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in _trees():
        found.setdefault(_room(path), set()).update(_rooms_imported(path))
    return found


PATHS: Final = sorted(_trees())
PURE_PATHS: Final = [path for path in PATHS if _room(path) in PURE]


def test_every_room_of_the_law_is_there_and_every_room_is_in_the_law() -> None:
    """A law about nothing would hold for ever."""
    assert set(_arrows()) - {"version"} == PURE | set(MAY_IMPORT)
    assert set(NEVER_REACHES) <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", PATHS)
def test_a_module_imports_only_what_its_room_may(path: str) -> None:
    """Down, never up, never sideways between `relay` and `admin`."""
    room = _room(path)
    allowed = PURE if room in PURE | {"version"} else PURE | {"config"} | MAY_IMPORT[room]
    assert _rooms_imported(path) <= allowed


@pytest.mark.parametrize("path", PATHS)
def test_a_module_uses_only_the_packages_of_its_room(path: str) -> None:
    """And the standard library."""
    found = {module.split(".")[0] for module, _ in _imports(path)} - {"proxy"}
    foreign = found - sys.stdlib_module_names
    assert foreign <= set(PACKAGES)
    assert all(_room(path) in PACKAGES[package] for package in foreign)


@pytest.mark.parametrize("path", PURE_PATHS)
def test_the_pure_part_imports_data_modules_only(path: str) -> None:
    """No os, socket, asyncio, time, random, logging, pathlib."""
    found = {module for module, _ in _imports(path) if module.split(".")[0] != "proxy"}
    assert found <= DATA


@pytest.mark.parametrize("path", PURE_PATHS)
def test_the_pure_part_waits_for_nothing_and_reads_no_clock(path: str) -> None:
    """No coroutine, no file, no output; `datetime` is there to read times, not to ask for the time."""
    for node in ast.walk(_trees()[path]):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        if isinstance(node, ast.Call):
            called = node.func
            assert not (isinstance(called, ast.Name) and called.id in {"open", "print", "input", "exec", "eval"})
            assert not (isinstance(called, ast.Attribute) and called.attr in {"now", "utcnow", "today"})


def test_imports_form_no_circle() -> None:
    """Between rooms; the order that is left is the one to read them in."""
    list(graphlib.TopologicalSorter(_arrows()).static_order())


@pytest.mark.parametrize("room", NEVER_REACHES)
def test_a_room_never_reaches_some_others(room: str) -> None:
    """Not through a third one either."""
    reached: set[str] = set()
    new = {room}
    while new:
        reached |= new
        new = {further for each in new for further in _arrows()[each]} - reached
    assert not reached & NEVER_REACHES[room]


def test_nobody_but_the_commands_imports_the_server() -> None:
    """It is where everything comes together."""
    assert {room for room, imported in _arrows().items() if "server" in imported} <= {
        "cli",
        "demo",
        "doctor",
        "__main__",
    }


@pytest.mark.threat(76)
@pytest.mark.parametrize("name", ["leaks", "decodings"])
def test_what_searches_shares_nothing_with_what_masks(name: str) -> None:
    """Or both would make the same mistake."""
    assert _rooms_imported(f"leaktest/{name}.py") == set()
    found = {module for module, _ in _imports(f"leaktest/{name}.py")} - {"proxy.leaktest.decodings"}
    assert {module.split(".")[0] for module in found} <= sys.stdlib_module_names


@pytest.mark.threat(48)
@pytest.mark.parametrize("path", PATHS)
def test_the_client_of_aiohttp_is_for_token_endpoints_only(path: str) -> None:
    """On the data path it would replay, rewrite and mangle (E8 to E21)."""
    used = {
        name if module == "aiohttp" else module.split(".")[1]
        for module, name in _imports(path)
        if module.split(".")[0] == "aiohttp"
    }
    assert used <= AIOHTTP_SERVER or path in AIOHTTP_CLIENT


@pytest.mark.parametrize("path", PATHS)
def test_no_module_has_state(path: str) -> None:
    """Containers and objects that a module binds are constants, by `Final` or by their capitals; none is empty."""
    containers = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    for node in _trees()[path].body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, (*containers, ast.Call)):
            continue
        is_final = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("Final")
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [ast.unparse(target) for target in targets]
        is_name = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in NAMES_ONLY
        assert is_final or is_name or all(name.isupper() or name == "__all__" for name in names), names
        assert ast.unparse(node.value) not in {"[]", "{}", "set()", "dict()", "list()"}, names
    assert not any(isinstance(node, ast.Global) for node in ast.walk(_trees()[path]))
