"""Rules and dashboards ask for series that the service exports, by labels that these have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.series import exported
from prometheus_server import required

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "infra" / "deploy"
RULES = [DEPLOY / "prometheus" / f"{name}.yml" for name in ("recording", "objectives", "alerts")]
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
OF_SCRAPES = {"job", "instance", "le"}
HOW_TO = ROOT / "docs" / "how-to" / "monitor.md"

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*\{([^}]*)\}")
_MODIFIER = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w.$])([A-Za-z_:][\w:]*)(?!\w*\s*\()")
_WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right"}


def names(query: str) -> set[str]:
    """Return the series that a query asks for."""
    bare = _STRING.sub('""', query)
    bare = _MODIFIER.sub(" ", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    return set(_NAME.findall(bare)) - _WORDS


def labels(query: str) -> list[tuple[str, set[str]]]:
    """Return the labels that a query asks for, by series."""
    bare = _STRING.sub('""', query)
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)))
        for name, inside in _SELECTOR.findall(bare)
    ]


def test_names_of_a_query_are_read() -> None:
    query = 'sum by (job, le) (rate(a_bucket{x=~"b|c"}[5m])) / on (job) job:d:ratio5m > 0.1e3'
    assert names(query) == {"a_bucket", "job:d:ratio5m"}
    assert labels(query) == [("a_bucket", {"x"})]


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found = [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> list[str]:
    asked = [str(rule["expr"]) for rule in rules()]
    return asked + [target["expr"] for panel in panels() for target in panel["targets"]]


def known() -> dict[str, set[str]]:
    """Return what may be asked for, with its labels."""
    series = {name: {*each.labels, *OF_SCRAPES} for each in exported() for name in each.queried}
    recorded = {rule["record"]: {"job"} for rule in rules() if "record" in rule}
    return {**series, **recorded, "up": {"job", "instance"}}


def test_every_series_that_rules_and_panels_ask_for_is_exported() -> None:
    asked = set().union(*map(names, queries()))
    assert len(asked) >= 60
    missing = asked - known().keys()
    assert missing == set()


def test_every_label_that_they_ask_for_is_one_of_its_series() -> None:
    series = known()
    wrong = {
        (name, label)
        for query in queries()
        for name, asked in labels(query)
        for label in asked - series.get(name, asked)
    }
    assert wrong == set()


def test_every_series_is_on_a_panel_or_in_a_rule() -> None:
    asked = set().union(*map(names, queries()))
    unseen = {each.name for each in exported() if asked.isdisjoint(each.queried)}
    assert unseen <= {"process_virtual_memory_bytes", "process_start_time_seconds"}


def test_names_of_series_have_base_units_and_counters_end_in_total() -> None:
    for each in exported():
        assert re.fullmatch(r"(ragstone|process)_[a-z][a-z0-9_]*", each.name), each.name
        assert not re.search(r"_(ms|millis|minutes|hours|kb|mb|percent)(_|$)", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.text.endswith((".", "in seconds.")), each.name


def test_every_panel_has_a_unit_and_says_what_it_shows() -> None:
    assert len(DASHBOARDS) == 2
    assert len(panels()) >= 40
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        assert board["uid"] == path.stem
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    page = HOW_TO.read_text(encoding="utf-8")
    headings = {line[4:].strip() for line in page.splitlines() if line.startswith("### ")}
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 23
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        anchor = f"docs/how-to/monitor.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == anchor
        assert rule["alert"] in headings, f"{HOW_TO.name} says nothing of {rule['alert']}"


def test_no_rule_of_a_burn_rate_asks_for_more_than_everything() -> None:
    products = [
        float(factor) * float(budget)
        for rule in rules()
        for factor, budget in re.findall(r"\(([\d.]+) \* ([\d.]+)\)", str(rule["expr"]))
    ]
    assert len(products) == 24
    assert max(products) < 1


def test_prometheus_understands_every_rule_and_every_panel(tmp_path: Path) -> None:
    promtool = required("promtool")
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = [each.replace("$__rate_interval", "5m").replace("$job", "x") for each in shown]
    group = {
        "name": "panels",
        "rules": [{"record": f"p{n}", "expr": e} for n, e in enumerate(asked)],
    }
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [group]}))
    files = [tmp_path / "panels.yml", *RULES]
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", *map(str, files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    config = DEPLOY / "prometheus" / "prometheus.yml"
    subprocess.run([promtool, "check", "config", config], check=True, stdout=subprocess.DEVNULL)


def test_alertmanager_understands_its_example() -> None:
    config = DEPLOY / "alertmanager" / "alertmanager.yml"
    subprocess.run(
        [required("amtool"), "check-config", config], check=True, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_an_alert_reaches_its_receiver(severity: str, receiver: str) -> None:
    config = DEPLOY / "alertmanager" / "alertmanager.yml"
    route = [required("amtool"), "config", "routes", "test", f"--config.file={config}"]
    done = subprocess.run([*route, f"severity={severity}"], capture_output=True, text=True)
    assert done.stdout.strip() == receiver
