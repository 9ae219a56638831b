"""The pages in docs/ say what the code says: every setting with its default, every fact, no path into nothing."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from proxy.config import Config, LoginCredential, RouteConfig
from proxy.config.anycredential import AskingCredential, CommonCredential, ExpiredRuleConfig, UnlessConfig
from proxy.config.clienttls import ClientTLS
from proxy.config.credentials import TYPES, ResponseConfig, StepConfig
from proxy.config.model import (
    AdminConfig,
    ClientKeyConfig,
    ExecConfig,
    GuardConfig,
    InspectorConfig,
    LimitsConfig,
    LogConfig,
    PeersConfig,
)
from proxy.config.places import place
from proxy.config.presets import Preset, presets
from proxy.config.routing import (
    HeaderRules,
    PolicyRule,
    PoolConfig,
    ReplayConfig,
    RewriteConfig,
    TimeoutsConfig,
    TLSConfig,
    ViaConfig,
)
from proxy.config.store import StoreConfig
from proxy.config.tracing import TracingConfig
from proxy.config.values import duration, size

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: The model of each section with one table, and its keys that stand elsewhere.
SECTIONS: Mapping[str, tuple[type[BaseModel], set[str]]] = {
    "Top level": (Config, {"warnings"}),
    "A route": (RouteConfig, set()),
    "replay": (ReplayConfig, set()),
    "timeouts": (TimeoutsConfig, set()),
    "pool": (PoolConfig, set()),
    "tls": (TLSConfig, set()),
    "rewrite": (RewriteConfig, set()),
    "via": (ViaConfig, set()),
    "allow and deny": (PolicyRule, set()),
    "headers of a route": (HeaderRules, set()),
    "guard": (GuardConfig, set()),
    "client_keys": (ClientKeyConfig, set()),
    "peers": (PeersConfig, set()),
    "admin": (AdminConfig, set()),
    "admin.inspector": (InspectorConfig, set()),
    "store": (StoreConfig, set()),
    "log": (LogConfig, set()),
    "limits": (LimitsConfig, set()),
    "exec": (ExecConfig, set()),
    "tracing": (TracingConfig, set()),
}
#: The same for all sections; some have several tables, one after another.
COMMON = set(CommonCredential.model_fields)
ASKING = set(AskingCredential.model_fields)
TABLES: Mapping[tuple[str, str], list[tuple[type[BaseModel], set[str]]]] = {
    ("credentials.md", "What all types take"): [(CommonCredential, set())],
    ("credentials.md", "expired"): [(ExpiredRuleConfig, set()), (UnlessConfig, set())],
    ("credentials.md", "login"): [(LoginCredential, ASKING), (StepConfig, set()), (ResponseConfig, set())],
    ("credentials.md", "Token endpoints"): [(AskingCredential, COMMON), (ClientTLS, set())],
    **{("credentials.md", name): [(model, ASKING)] for name, model in TYPES.items() if name != "login"},
    **{("configuration.md", heading): [entry] for heading, entry in SECTIONS.items()},
}


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    match = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, heading
    return match[1]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text: rows of cells, without the heads."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif found[-1]:
            found.append([])
    return [rows[2:] for rows in found if rows]


def is_default(cell: str, value: object) -> bool:
    """Does the cell of a table give this default?"""
    if isinstance(value, BaseModel):
        return cell == "see below"
    written = yaml.safe_load(cell.strip("`"))
    if isinstance(value, tuple) and not isinstance(written, list):
        value = value[0]
        written = place(written) if isinstance(written, dict) else written
    if isinstance(value, float):
        return duration(written) == value
    if isinstance(value, int) and not isinstance(value, bool):
        return size(written) == value
    if isinstance(value, tuple):
        return tuple(written) == value
    return bool(written == value or written == str(value))


@pytest.mark.parametrize(("page", "heading"), TABLES)
def test_every_setting_is_explained_with_its_default(page: str, heading: str) -> None:
    """The tables of the page name the keys of the model, all of them and no others."""
    found = tables(section(page, heading))
    models = TABLES[page, heading]
    assert len(found) == len(models)
    for rows, (model, elsewhere) in zip(found, models, strict=True):
        fields = {name: field for name, field in model.model_fields.items() if name not in elsewhere}
        assert [row[0].strip("`") for row in rows] == list(fields)
        for (key, default, meaning), field in zip(rows, fields.values(), strict=True):
            assert meaning.endswith("."), key
            if field.is_required():
                assert default in {"required", "from the prefix"}, key
            else:
                assert is_default(default, field.get_default(call_default_factory=True)), key


@pytest.mark.parametrize(
    ("cell", "value", "holds"),
    [
        ("`30s`", 30.0, True),
        ("`30s`", 31.0, False),
        ("`1MiB`", 1 << 20, True),
        ("`1KiB`", 1 << 20, False),
        ("`null`", None, True),
        ("`[]`", None, False),
        ("`false`", True, False),
    ],
)
def test_a_wrong_default_would_be_noticed(cell: str, value: object, holds: bool) -> None:  # noqa: FBT001  a column of the table
    """The comparison above knows one value from another."""
    assert is_default(cell, value) is holds


def test_no_model_is_left_out() -> None:
    """Every model below `Config` has its table."""
    seen: set[type[BaseModel]] = set()

    def walk(kind: object) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            seen.add(kind)
            for field in kind.model_fields.values():
                walk(field.annotation)
        for each in getattr(kind, "__args__", ()):
            walk(each)

    walk(Config)
    assert seen <= {model for entries in TABLES.values() for model, _ in entries}


@pytest.mark.parametrize("preset", presets().values(), ids=presets())
def test_every_preset_is_explained(preset: Preset) -> None:
    """Each parameter with its default, each fact with its mark and its source, in the preset's own words."""
    parameters, facts = tables(section("credentials.md", preset.title))
    assert [row[0].strip("`") for row in parameters] == [each.name for each in preset.parameters]
    for (name, default, meaning), each in zip(parameters, preset.parameters, strict=True):
        if each.required or each.unless:
            assert default.replace("`", "") == each.state, name
        else:
            assert (None if default == "none" else yaml.safe_load(default.strip("`"))) == each.default, name
        assert meaning.startswith(each.help), name
        assert all(f"`{choice}`" in meaning for choice in each.choices), name
    assert [tuple(row) for row in facts] == [(fact.mark, fact.what, fact.source) for fact in preset.facts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    """Relative links, with the headings they point at, and the files that are named."""
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link
    for path in re.findall(r"`((?:proxy|tests|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_tests_that_are_named_exist() -> None:
    """A test that stands for an invariant is one that runs."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "architecture.md").read_text("utf-8")))
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert named
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_page_is_found_by_what_it_is_for() -> None:
    """The index leads to each of them."""
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(re.findall(r"\]\(([\w-]+\.md)", index)) == set()


def test_the_picture_of_the_rooms_is_complete() -> None:
    """Every module and folder of the package is in the picture, and nothing that is not there."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    picture = text.partition("proxy/\n")[2].partition("```")[0]
    drawn = {word for line in picture.splitlines() for word in re.findall(r"[a-z0-9_]+(?:\.py|/)(?=\s)", line)}
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "proxy").glob("[!.]*")}
    assert drawn == there - {"__init__.py", "__pycache__/"}
