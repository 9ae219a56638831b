"""Turns the text of a configuration into plain data with the line of every key path, and plain data into text.

Law: only the scalars of JSON have a type (`off`, `0123`, `1:30` and dates stay text), there are no tags, and what
aliases make of a small file is bounded. The parser's own messages quote the text, so none of them is shown.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import yaml

from proxy.config.problems import KeyPath, Problems

#: No configuration is longer (bytes), deeper, or of more parts than this; a file of nested aliases is.
LONGEST: Final = 1 << 20
DEEPEST: Final = 32
MOST_NODES: Final = 20_000

#: PyYAML's wording (begin of it): what to write instead.
_SYNTAX: Final = (
    ("found character '\\t'", "a tab cannot indent in YAML: use spaces"),
    ("found character", "a value cannot begin with this character in YAML: put it in quotes"),
    ("found undefined alias", "a value that begins with '*' is an alias in YAML: put it in quotes"),
    ("found duplicate anchor", "a value that begins with '&' is an anchor in YAML: put it in quotes"),
    ("mapping values are not allowed", "a second colon stands here: indent the line properly, or quote the value"),
    ("could not find expected ':'", "a colon with a space after it is missing: write key: value"),
    ("found unexpected end of stream", "a quote is not closed: close it"),
    ("found unknown escape character", "a backslash in double quotes is an escape: use single quotes"),
    ("but found another document", "a second document begins here: keep one, without '---'"),
    ("did not find expected", "a bracket or brace is not closed, or a comma is missing: close it"),
    ("expected ',' or", "a bracket or brace is not closed, or a comma is missing: close it"),
    ("expected <block end>", "the indentation does not fit the lines above: align it"),
)
_BROKEN: Final = "this is not valid YAML: check indentation, colons and quotes here"

#: The tags whose values are taken, and what each is; `!!other:int` ends like one of them, and is none.
_KINDS: Final = {
    f"tag:yaml.org,2002:{each}": each for each in ("map", "seq", "str", "null", "bool", "int", "float")
}


class _OutOfBounds(Exception):  # noqa: N818  what happened, as in errors.py
    """Nested deeper, or of more parts, than any configuration is: a sentence, and the line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of JSON (YAML 1.2 section 10.2) in place of YAML 1.1's surprises, and bounds.

    Reading ends at the first node beyond them: a whole MiB of nodes would take the parser ten seconds and more.
    libyaml's, which is faster, has other sentences for mistakes, and deep nesting overflows its stack.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  filled below, per class

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = 0
        self._depth = -1

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node, with all below it. Raises `_OutOfBounds`."""
        self._count += 1
        self._depth += 1
        if self._count > MOST_NODES or self._depth > DEEPEST:
            is_deep = self._depth > DEEPEST
            how = f"is nested deeper than {DEEPEST} levels" if is_deep else f"has more than {MOST_NODES} values"
            sentence = f"the configuration {how}: this is not the right file"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML has no types for it
            raise _OutOfBounds(sentence, mark.line + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"-?(?:0|[1-9][0-9]{0,17})", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse(text: str, problems: Problems) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """The data of a configuration (lists as tuples) and the line of each key path; notes what is wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST:
        problems.add((), "the configuration is larger than 1 MiB: this is not the right file")
        return {}, {}
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position if isinstance(error.position, int) else 0) + 1
        problems.add((), "a control character stands here: remove it", line=line)
        return {}, {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        sentence = next((ours for theirs, ours in _SYNTAX if theirs in (error.problem or "")), _BROKEN)
        problems.add((), sentence, line=mark.line + 1 if mark else 1)
        return {}, {}
    except _OutOfBounds as error:
        sentence, line = error.args
        problems.add((), sentence, line=line)
        return {}, {}
    builder = _Builder(problems)
    if root is None or builder.is_null(root) or not root.value:
        problems.add((), "the configuration is empty: write at least upstream: https://…")
    elif not isinstance(root, yaml.MappingNode):
        problems.add((), "a configuration is a mapping: write key: value, such as upstream: https://…")
    else:
        data = builder.build(root, ())
        return (data if isinstance(data, dict) else {}), builder.lines
    return {}, {}


class _Builder:
    """Builds plain data from nodes, within bounds."""

    def __init__(self, problems: Problems) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._problems = problems
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    @staticmethod
    def is_null(node: yaml.Node) -> bool:
        return _KINDS.get(node.tag) == "null"

    def build(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401  plain data
        """The data of one node; a part that is out of bounds becomes None."""
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MOST_NODES or len(path) > DEEPEST:
            if self._count <= MOST_NODES + 1:
                self._count = MOST_NODES + 1
                sentence = (
                    f"nested deeper than {DEEPEST} levels, or more than {MOST_NODES} values: remove the aliases"
                )
                self._problems.add((), sentence, line=line)
            return None
        self.lines.setdefault(path, line)
        kind = _KINDS.get(node.tag)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return tuple(self.build(each, (*path, index)) for index, each in enumerate(node.value))
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and kind in {"null", "bool", "int", "float"}:
            # A tag that says otherwise than the text (`!!int a`) is a mistake, too, also where an alias repeats it.
            with suppress(ValueError, LookupError, ArithmeticError, yaml.YAMLError):
                return self._scalars.construct_object(node)
        self._problems.add(
            (), "tags (a '!' before a value) are not taken: remove it, or quote the value", line=line
        )
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.build(key_node, (*path, "")) if isinstance(key_node, yaml.ScalarNode) else None
            self.lines.pop((*path, ""), None)
            if not isinstance(key, str):
                self._problems.add((), "a key is text: put it in quotes", line=line)
                continue
            if key in found:
                first = self.lines[*path, key]
                self._problems.add((), f"this key stands here twice (first in line {first}): keep one", line=line)
                continue
            self.lines[*path, key] = line
            found[key] = self.build(value_node, (*path, key))
        return found


class _Dumper(yaml.SafeDumper):
    """SafeDumper without aliases, which nobody reads with ease."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _flow(data: Iterable[object]) -> bool:
    """Does it read best on one line? Lists of plain values do."""
    return not any(isinstance(each, dict | list | tuple) for each in data)


def _list(dumper: _Dumper, data: Sequence[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=_flow(data))


def _dict(dumper: _Dumper, data: Mapping[str, object]) -> yaml.Node:
    # References and places: {env: NAME}, {header: Authorization, scheme: Bearer}.
    short = not data or next(iter(data)) in _SHORT_MAPPINGS
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=short)


_SHORT_MAPPINGS: Final = frozenset({"env", "file", "command", "systemd", "header", "query", "cookie"})
_Dumper.add_representer(tuple, _list)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _dict)


def dump(data: object) -> str:
    """YAML in the order of the keys, without aliases."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
