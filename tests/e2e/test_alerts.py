"""A real Prometheus and a real Alertmanager watch a running service: what breaks is told, once.

The rules are those that are shipped, with their windows scaled down: an hour is five seconds.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from infra.contracts import Interaction, Usage
from monitoring import interaction_exports
from monitoring.interactions import Query
from service.wiring import Components
from service.work.watching import look as look_at
from waiting import until
from watched_service import DEPLOY, RULES, Watched, watching

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FASTER = 720.0
LEAST_SECONDS = 3.0
"""Of a window: it has to hold several scrapes."""
QUIET_SECONDS = 10.0


def scaled(match: re.Match[str]) -> str:
    seconds = float(match[1]) * UNITS[match[2]] / FASTER
    return f"{max(seconds, LEAST_SECONDS):.0f}s"


def rules(folder: Path) -> list[Path]:
    """Write the rules with shorter windows; returns the files."""
    for name in RULES:
        text = (DEPLOY / "prometheus" / f"{name}.yml").read_text()
        text = re.sub(r"(?<=\[)(\d+)([smhd])(?=\])", scaled, text)
        text = re.sub(r"(?<=for: )(\d+)([smhd])", "1s", text)
        loaded = yaml.safe_load(text)
        for group in loaded["groups"]:
            group["interval"] = "500ms"
        (folder / f"{name}.yml").write_text(yaml.safe_dump(loaded))
    return [folder / f"{name}.yml" for name in RULES]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    pace = {"group_wait": "1s", "group_interval": "1s"}
    with watching(
        tmp_path, rules=rules(tmp_path), scrape="500ms", alertmanager=pace, every_minutes=0.025
    ) as found:
        yield found


def test_quiet_traffic_tells_nobody_and_an_outage_of_the_engine_is_told_and_resolved(
    watched: Watched,
) -> None:
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        assert watched.ask() == 200
        assert watched.firing() == set()
        time.sleep(0.1)
    assert watched.hooks.posted == {}
    watched.model.status = 500

    def is_down() -> bool:
        watched.ask()
        return "RagstoneEngineDown" in watched.told("firing")

    until(is_down, seconds=90)
    cause = {"RagstoneEngineDown"}
    seen = watched.firing()
    assert cause <= seen <= {*cause, "RagstoneAvailabilityFastBurn", "RagstoneAvailabilitySlowBurn"}
    pages = [post["alerts"] for post in watched.hooks.posted["/pages"]]
    assert {alert["labels"]["alertname"] for alerts in pages for alert in alerts} >= cause
    watched.model.status = 200

    def is_over() -> bool:
        watched.ask()
        return not watched.firing() and cause <= watched.told("resolved")

    until(is_over, seconds=150)


def test_drift_that_lasts_is_a_ticket_and_ends_when_traffic_is_as_before(
    watched: Watched,
) -> None:
    parts = Components(watched.settings)
    window = timedelta(seconds=1.5)

    def look(tokens: float) -> bool:
        """Have a window of answers come in and judged."""
        now = datetime.now(UTC)
        _put(parts, now, tokens=tokens)
        look_at(parts, now=now)
        time.sleep(window.total_seconds())
        return "RagstoneDrift" in watched.told("firing")

    start = datetime.now(UTC) - timedelta(hours=1)
    _put(parts, start, tokens=200)
    interaction_exports.export(
        parts.database, parts.artifacts, Query(until=start + window), "answers"
    )
    for _ in range(3):
        assert not look(200)
    assert watched.firing() == set()
    until(lambda: look(350), seconds=90)
    assert watched.firing() == {"RagstoneDrift"}
    assert "/pages" not in watched.hooks.posted, "drift alone wakes nobody"
    until(lambda: look(200) and "RagstoneDrift" in watched.told("resolved"), seconds=120)
    assert watched.firing() == set()
    parts.close()


def test_answers_that_invent_figures_page_and_it_ends_when_they_are_right_again(
    watched: Watched,
) -> None:
    watched.add_document("Full-time employees have 27 days of paid leave a year.")
    numbers = itertools.count()
    watched.model.reply = "Full-time employees have 27 days of paid leave a year [1]."
    for _ in range(60):
        assert watched.ask_documents(next(numbers)) == "grounded"
    assert watched.firing() == set()
    watched.model.reply = "Full-time employees have 35 days of paid leave a year [1]."

    def is_told() -> bool:
        assert watched.ask_documents(next(numbers)) == "unsupported"
        return "RagstoneHallucinatedFacts" in watched.told("firing")

    until(is_told, seconds=90)
    cause = {"RagstoneHallucinatedFacts"}
    burns = {"RagstoneGroundednessFastBurn", "RagstoneGroundednessSlowBurn"}
    assert cause <= watched.firing() <= cause | burns
    pages = [post["alerts"] for post in watched.hooks.posted["/pages"]]
    assert {alert["labels"]["alertname"] for alerts in pages for alert in alerts} >= cause
    watched.model.reply = "Full-time employees have 27 days of paid leave a year [1]."

    def is_over() -> bool:
        watched.ask_documents(next(numbers))
        return not watched.firing() and cause <= watched.told("resolved")

    until(is_over, seconds=150)


def _put(parts: Components, end: datetime, *, tokens: float) -> None:
    chance = random.Random(end.isoformat())
    for number in range(200):
        parts.interactions.add(
            Interaction(
                id=f"{end.isoformat()}-{number}",
                kind="answer",
                at=end - timedelta(seconds=chance.random()),
                model="rag/x",
                outcome="answered",
                status=200,
                usage=Usage(int(chance.gauss(tokens, 30)), int(chance.gauss(50, 10))),
                seconds=chance.lognormvariate(0, 0.5),
                support=chance.random(),
            )
        )
    parts.interactions.flush()
