"""The wire corpus as data: what is sent, and what must come of it (how it is written: `tests/wire/README.md`)."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import yaml

try:  # the one written in C reads these files in a tenth of the time
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]  # its twin in Python

from tests.support.wiretext import spell

FOLDER: Final = Path(__file__).parent.parent / "wire"

#: How a connection stands after the last answer.
KEPT: Final = "kept"
CLOSED: Final = "closed"
#: Both are right, as long as the answer says which.
AS_IT_SAYS: Final = "as it says"
#: What reached the upstream, where it is no message: not a byte, or at most a message that never became whole.
NOTHING: Final = "nothing"
UNFINISHED: Final = "unfinished"
#: What a client gets of an answer that breaks: 502, or an answer that is visibly incomplete.
BROKEN: Final = "broken"


class UniqueKeys(SafeLoader):
    """YAML in which no key stands twice: a second case of the same name would replace the first."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002  PyYAML's contract
    ) -> dict[Hashable, Any]:
        """Raise a ConstructorError for a doubled key."""
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"stands twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """The data of a YAML file without doubled keys."""
    return yaml.load(path.read_text("utf-8"), UniqueKeys)  # noqa: S506  a SafeLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What all cases have: a name, and the text that goes into the holes of its group."""

    group: str
    name: str
    text: str = ""

    @property
    def id(self) -> str:
        """Unique in the corpus."""
        return f"{self.group}: {self.name}"

    def spelled(self, text: str, values: Mapping[str, bytes]) -> bytes:
        """The bytes of one of this case's texts."""
        return spell(text, {**values, "": spell(self.text, values)})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCase(Case):
    """Bytes of a client.

    `send`: each piece is sent when as many answers as pieces before it have come. `methods`: of the requests that
    are answered, where they are not GET. `answers`: a status each, and the code if we answer ourselves.
    `upstream`: messages without what is ours (Host, credential), their bodies without chunks.
    """

    send: tuple[str, ...] = (r"\{}",)
    methods: tuple[str, ...] = ()
    answers: tuple[str, ...]
    connection: str
    upstream: tuple[str, ...]
    hangs_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCase(Case):
    """Bytes of an upstream.

    `answer` is sent when the request is whole, or with `early` when its head is; `then` says what the upstream does
    next (stay, eof, reset), `later` is sent when the client has its answer. `client`: what the client gets, a
    message each; or a status and a code of ours; or `broken`. `tunnel`: what client and upstream say after a 101.
    `pooled`: does the next request go out on the same connection?
    """

    request: str = "GET / HTTP/1.1\nHost: localhost\n\n"
    answer: str = r"\{}"
    early: bool = False
    then: str = "stay"
    later: str = ""
    client: tuple[str, ...]
    trailers: tuple[str, ...] = ()
    connection: str = KEPT
    pooled: bool = True
    tunnel: tuple[str, ...] = ()


C = TypeVar("C", bound=Case)
#: Keys of a group that are not the defaults of its cases.
_ABOUT: Final = frozenset({"group", "threats", "why", "solo", "cases"})
#: What may be written without a list if it is one.
_LISTS: Final = frozenset({"send", "upstream", "client"})


@dataclass(frozen=True, slots=True)
class Group(Generic[C]):
    """Cases that show one behaviour. `solo`: why other proxies are not compared on it."""

    name: str
    threats: tuple[str, ...]
    why: str
    solo: str
    cases: tuple[C, ...] = field(repr=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those of `threats` that are cases of tests/threats.yaml."""
        return tuple(int(threat) for threat in self.threats if threat.isdigit())


def group_of(written: Mapping[str, Any], kind: type[C]) -> Group[C]:
    """The group as written; `kind` of its cases. Raises TypeError for a key that no case has."""
    name = str(written["group"])
    defaults = {key: value for key, value in written.items() if key not in _ABOUT}
    unknown = defaults.keys() - {each.name for each in fields(kind)}
    if unknown:
        raise TypeError(f"{name}: {unknown}")
    cases = []
    for case, own in written["cases"].items():
        keys = {**defaults, **(own if isinstance(own, dict) else {"text": own})}
        cases.append(kind(group=name, name=str(case), **{key: _frozen(key, value) for key, value in keys.items()}))
    threats = tuple(map(str, written["threats"]))
    return Group(name, threats, str(written["why"]), str(written.get("solo", "")), tuple(cases))


def _frozen(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(str, value))
    return (value,) if key in _LISTS else value


def requests() -> tuple[Group[RequestCase], ...]:
    """The groups of `requests.yaml`."""
    return tuple(group_of(each, RequestCase) for each in read_yaml(FOLDER / "requests.yaml"))


def answers() -> tuple[Group[AnswerCase], ...]:
    """The groups of `answers.yaml`."""
    return tuple(group_of(each, AnswerCase) for each in read_yaml(FOLDER / "answers.yaml"))
