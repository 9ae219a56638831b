"""The compiled build: what of it can be seen in the source, and that the tests run what they claim to run.

`make test` runs the source, which alone can be covered; `make test-compiled` builds the wheel with mypyc, and runs
the tests of the data path on that, these among them (docs/adr/0007-compiled.md).
"""

import ast
import importlib
import importlib.machinery
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from proxy.compiled import is_compiled

ROOT: Final = Path(__file__).parent.parent
HOOK: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
    "hooks"
]["custom"]
FILES: Final = sorted({path for pattern in HOOK["modules"] for path in ROOT.glob(pattern)})
MODULES: Final = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
#: Set by `make test-compiled`.
EXPECTED: Final = os.environ.get("BEARER_PROXY_TEST_COMPILED") == "1"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.threat(48)
@pytest.mark.parametrize("module", MODULES)
def test_what_is_tested_is_what_was_asked_for(module: str) -> None:
    """A library left beside a source would hide it from `make test`; a source found first, the library."""
    file = importlib.import_module(module).__file__
    assert file is not None
    assert file.endswith(".py") is not EXPECTED
    if not EXPECTED:
        assert Path(file).is_relative_to(ROOT)


def test_the_program_knows_which_build_it_is() -> None:
    """`--version` and the metrics say it."""
    assert is_compiled() is EXPECTED


def test_it_is_compiled_only_where_the_build_is_asked_to() -> None:
    """A plain install from source needs no compiler."""
    assert HOOK["enable-by-default"] is False


@pytest.mark.parametrize("pattern", HOOK["modules"])
def test_every_pattern_names_modules(pattern: str) -> None:
    """One that names none would be a module that was moved, and is no longer compiled."""
    assert list(ROOT.glob(pattern))


# What mypyc reads otherwise than Python does. Each cost a failure that only the compiled build had.


def named_twice(function: Function) -> Iterator[str]:
    """Names of `except ... as name` for different types: the second is checked against the type of the first."""
    types: dict[str, set[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            types.setdefault(node.name, set()).add(ast.unparse(node.type))
    return (name for name, found in types.items() if len(found) > 1)


def asked_in_finally(function: Function) -> Iterator[str]:
    """Names that a `try` assigns and its `finally` compares with None: it is compiled for the better end only."""
    for node in ast.walk(function):
        if isinstance(node, ast.Try):
            assigned = {
                each.id
                for each in _within(node.body)
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            for each in _within(node.finalbody):
                if isinstance(each, ast.Compare) and {"None"} & set(map(ast.unparse, each.comparators)):
                    yield from assigned & {ast.unparse(each.left)}


def waits_in_handler(function: Function) -> Iterator[str]:
    """What is awaited in `except` or `finally`: the exception in hand is the thread's, not the coroutine's.

    Whatever runs meanwhile sees it, and may leave another in its place, which is then the one that goes on.
    """
    for node in ast.walk(function):
        if isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            for each in _within([*handled, *node.finalbody]):
                if isinstance(each, ast.Await | ast.AsyncWith | ast.AsyncFor | ast.Yield | ast.YieldFrom):
                    yield ast.unparse(each)


def same_constant(function: Function) -> Iterator[str]:
    """Constants of other modules that something is compared with by `is`: each one that is compiled has its own."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            names = (each.id for each in node.comparators if isinstance(each, ast.Name))
            yield from (name for name in names if name.isupper() and not name.startswith("_"))


def _within(body: list[ast.stmt]) -> Iterator[ast.AST]:
    return (node for statement in body for node in ast.walk(statement))


#: By name what is looked for.
TRAPS: Final[dict[str, Callable[[Function], Iterator[str]]]] = {
    "named twice": named_twice,
    "asked in finally": asked_in_finally,
    "waits in handler": waits_in_handler,
    "same constant": same_constant,
}


def trapped(text: str) -> list[tuple[str, str, str]]:
    """Functions of a module that mean something else when they are compiled: name, trap, and what is in it."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    return [(each.name, name, found) for each in functions for name, trap in TRAPS.items() for found in trap(each)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source_means_the_same_when_it_is_compiled(path: Path) -> None:
    """As far as a look at it can tell; the tests of the data path tell the rest."""
    assert trapped(path.read_text()) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("except A as e:\n  pass\n except B as e:\n  pass", [("f", "named twice", "e")]),
        ("except A as e:\n  pass\n except B as g:\n  pass", []),
        ("finally:\n  if x is not None:\n   x.end()", [("f", "asked in finally", "x")]),
        ("finally:\n  x.end()", []),
        ("finally:\n  await g()", [("f", "waits in handler", "await g()")]),
        ("except A:\n  raise\n else:\n  await g()", []),
        ("finally:\n  g(y is A_B, y is _A, y == A_B)", [("f", "same constant", "A_B")]),
    ],
)
def test_a_source_that_would_mean_something_else_is_noticed(body: str, found: list[tuple[str, str, str]]) -> None:
    """The checks above find what they are for."""
    assert trapped(f"async def f():\n x = None\n try:\n  x = g()\n {body}\n") == found
