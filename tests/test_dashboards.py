"""The dashboard and the alerts of deploy/ ask for what the proxy exposes, in words that all who read them know."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

import promql_parser
import pytest
import yaml

from proxy import errors
from tests.support.instances import ROOT
from tests.support.metricspage import rows

RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus-rules.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text("utf-8"))
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
#: What Prometheus itself puts there.
OF_PROMETHEUS: Final = {"up": {"job", "instance"}}
OF_A_SCRAPE: Final = {"job", "instance"}
#: The labels with fixed words, and which these are.
WORDS: Final = {
    "outcome": {"cured", "futile"},
    "status": {"none", "1xx", "2xx", "3xx", "4xx", "5xx"},
    "state": {"idle", "busy"},
}
EXPRESSIONS: Final = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for panel in PANELS
        for target in panel.get("targets", ())
    },
}


def codes() -> set[str]:
    """Every code of an answer of our own."""
    kinds, found = [errors.ProxyError], set()
    while kinds:
        kind = kinds.pop()
        found.add(kind.code)
        kinds += kind.__subclasses__()
    return found


def known() -> dict[str, set[str]]:
    """The labels of each series that there is."""
    found = dict(OF_PROMETHEUS)
    for name, kind, labels, _meaning in rows():
        own = {*re.findall(r"`(\w+)`", labels), *OF_A_SCRAPE}
        if kind == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_count": own, f"{name}_sum": own}
        else:
            found[name] = own
    return found


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Each selector in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    parts = ("expr", "lhs", "rhs", "param", "vector_selector")
    below = [getattr(node, name, None) for name in parts] + list(getattr(node, "args", ()))
    for each in below:
        if each is not None:
            yield from selectors(each)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_for_what_is_exposed(name: str) -> None:
    """Prometheus takes it; every metric, every label and every word of a fixed set is there."""
    there = known()
    found = list(selectors(promql_parser.parse(EXPRESSIONS[name])))
    assert found
    for selector in found:
        assert selector.name is not None
        assert selector.name in there
        for matcher in selector.matchers.matchers:
            assert matcher.name in there[selector.name]
            of = WORDS.get(matcher.name) or (codes() if matcher.name in ("error", "cause", "code") else None)
            if of is None or not matcher.value:
                continue
            words = matcher.value.split("|") if matcher.op == promql_parser.MatchOp.Re else [matcher.value]
            assert all(any(re.fullmatch(word, each) for each in of) for word in words), words


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_adds_up_by_labels_that_are_there(name: str) -> None:
    """Else it adds up all, and nobody sees it; so does the text beside it."""
    expression = EXPRESSIONS[name]
    there = {label for each in selectors(promql_parser.parse(expression)) for label in known()[each.name or ""]}
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {each.strip() for each in group.split(",")} <= there


def test_an_alert_says_what_to_do() -> None:
    """Who is called at night, with what is known, and the first step."""
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"BearerProxy[A-Za-z]+", rule["alert"])
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"].keys() == {"summary", "action"}
        assert re.fullmatch(r"\d+[ms]", rule.get("for", "1m"))
        grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        kept = (
            {label.strip() for group in grouped for label in group.split(",")}
            if grouped
            else {
                label for each in selectors(promql_parser.parse(rule["expr"])) for label in known()[each.name or ""]
            }
        )
        named = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
        assert set(named) <= kept, rule["alert"]


def test_the_dashboard_can_be_imported() -> None:
    """Into any Grafana: no data source and no panel of somebody's own, and no panel above another."""
    kinds = {"row", "stat", "timeseries", "table"}
    assert {panel["type"] for panel in PANELS} <= kinds
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    sources = {each["uid"] for each in values_of(DASHBOARD, "datasource") if isinstance(each, dict)}
    assert sources == {"${datasource}"}
    assert "id" not in DASHBOARD


def values_of(node: Any, key: str) -> Iterator[Any]:
    """Every value below this key."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(node, list):
        for each in node:
            yield from values_of(each, key)


def test_the_dashboard_shows_every_metric() -> None:
    """What is counted and not shown is forgotten."""
    text = json.dumps(DASHBOARD)
    assert {name for name, *_ in rows() if name not in text} == set()
