"""The dashboard, the alert rules and docs/monitoring.md speak of what there is, and of all of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from test_docs import broken

from outbox.contrib.census import OF_THE_STORE
from outbox.contrib.measures import OF_EVENTS, Metric

DOCS: Final = Path(__file__).parents[1] / "docs"
TEXT: Final = (DOCS / "monitoring.md").read_text("utf-8")
RULES: Final = DOCS / "monitoring" / "alerts.yml"
ALERTS: Final = [
    rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
]
DASHBOARD: Final = json.loads((DOCS / "monitoring" / "grafana-dashboard.json").read_text("utf-8"))
PANELS: Final = DASHBOARD["panels"]

DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+"
TOKEN: Final = re.compile(
    rf"""\s+ | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*) | "(?:[^"\\]|\\.)*" | \[(?:{DURATION}|\$__rate_interval)\]
    | \d+(?:\.\d+)? | =~|!~|!=|==|>=|<=|[-+*/^%<>=] | [(){{}},]""",
    re.VERBOSE,
)
WORDS: Final = frozenset(
    [
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "sum",
        "max",
        "min",
        "absent",
        "increase",
        "rate",
        "histogram_quantile",
    ]
)


def series(metric: Metric) -> Iterator[str]:
    if metric.kind == "histogram":
        yield from (f"outbox_{metric.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield f"outbox_{metric.name}" + ("_total" if metric.kind == "counter" else "")


LABELS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset({*metric.labels, "instance", "job"} | ({"le"} if name.endswith("_bucket") else set()))
    for metric in (*OF_EVENTS, *OF_THE_STORE)
    for name in series(metric)
}


def complaints(expression: str) -> Iterator[str]:
    """What is wrong with a PromQL expression, as far as it can be told without Prometheus."""
    at = 0
    while at < len(expression):
        token = TOKEN.match(expression, at)
        if token is None:
            yield f"no token: {expression[at : at + 20]!r}"
            return
        at = token.end()
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    opened: list[str] = []
    for char in bare:
        if char in "([{":
            opened.append(char)
        elif char in ")]}" and (not opened or opened.pop() + char not in {"()", "[]", "{}"}):
            yield f"{char} closes nothing"
    yield from (f"{char} is not closed" for char in opened)
    named = set(re.findall(r"\boutbox_\w+", bare))
    yield from (f"there is no {name}" for name in named - LABELS.keys())
    if not named:
        yield "it is about nothing of ours"
    used = {
        label
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", bare)
        for label in re.split(r",\s*", labels)
    }
    for name, selected in re.findall(r"\b(outbox_\w+)\{([^}]*)\}", bare):
        wrong = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected)) - LABELS.get(name, frozenset())
        yield from (f"{name} has no label {label}" for label in wrong)
    known = frozenset[str]().union(*(LABELS.get(name, frozenset()) for name in named))
    yield from (f"none of them has the label {label}" for label in used - known)
    words = set(re.findall(r"\b[a-z_]\w*\b", re.sub(r"\[[^]]*\]|\{[^}]*\}|\([^()]*\)(?= \()", "", bare)))
    yield from (f"{word} is no word of PromQL" for word in words - WORDS - named - used)
    counters = {name for name in named if name.endswith(("_total", "_bucket"))}
    for name in counters:
        if not re.search(rf"(?:rate|increase)\({name}(?:\{{[^}}]*\}})?\[", bare):
            yield f"{name} only grows: ask for its rate"


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    for panel in PANELS:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_expression_asks_for_what_there_is(place: str, expression: str) -> None:
    assert list(complaints(expression)) == [], place


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("outbox_due[5", "no token"),
        ("sum(outbox_due", "( is not closed"),
        ("sum(outbox_due)]", "no token"),
        ("outbox_depth > 1", "there is no outbox_depth"),
        ('outbox_due{relay="x"}', "outbox_due has no label relay"),
        ("sum by (relay) (outbox_due)", "none of them has the label relay"),
        ("summ by (queue) (outbox_due)", "summ is no word"),
        ("outbox_attempts_total > 1", "ask for its rate"),
        ("rate(outbox_attempts_total[5])", "no token"),
        ("up == 0", "nothing of ours"),
    ],
)
def test_what_is_wrong_with_an_expression_is_found(expression: str, says: str) -> None:
    assert says in "; ".join(complaints(expression))


def test_every_rule_is_one_that_prometheus_takes() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"Outbox[A-Z][A-Za-z]+", rule["alert"])
        assert re.fullmatch(DURATION, rule.get("for", "1m"))
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        told = "".join(rule["annotations"].values())
        kept = set(re.findall(r"\{\{ \$labels\.(\w+) \}\}", told))
        given = set(re.findall(r"\b(?:by) \(([^)]*)\)", rule["expr"]))
        labels = {label for each in given for label in re.split(r",\s*", each)} or {"instance"}
        assert kept <= labels, rule["alert"]
        assert not re.search(r"\{\{(?! \$(?:labels\.\w+|value)(?: \| humanize\w*)? \}\})", told)


def test_every_rule_leads_to_a_part_of_the_runbook_that_there_is() -> None:
    for rule in ALERTS:
        link = rule["annotations"]["runbook"]
        assert link.startswith("docs/runbook.md")
        assert not broken(link, "", DOCS.parent), rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_promtool_takes_the_rules() -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_is_one() -> None:
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies upon another"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
    variables: dict[str, Any] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "queue"}


def rows(heading: str) -> list[str]:
    """The first cells of the tables under a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (.+?) \|", section, re.MULTILINE)


def test_the_page_explains_each_metric_panel_and_alert() -> None:
    told = {name for row in rows("Metrics") for name in re.findall(r"`(outbox_\w+)`", row)}
    there = {
        f"outbox_{m.name}" + ("_total" if m.kind == "counter" else "") for m in (*OF_EVENTS, *OF_THE_STORE)
    }
    assert told == there
    assert rows("The dashboard")[1:] == [panel["title"] for panel in PANELS]
    assert rows("The alerts")[1:] == [rule["alert"] for rule in ALERTS]
    assert "PANELS" not in TEXT
    assert "FIGURES" not in TEXT


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(expression for _, expression in expressions())
    missing = [m.name for m in (*OF_EVENTS, *OF_THE_STORE) if f"outbox_{m.name}" not in asked]
    assert missing == ["oldest_age_seconds"]
