"""A real Prometheus and a real Alertmanager watch a running service: what breaks is told, once.

The rules are those that are shipped, with their windows scaled down: an hour is five seconds.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import chat_server
import hook_server
import prometheus_server
import running_server
from infra.contracts import Interaction, Usage
from infra.settings import load_settings
from monitoring import interaction_exports
from monitoring.interactions import Query
from service.wiring import Components
from service.work import watching
from waiting import until

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "infra" / "deploy"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FASTER = 720.0
LEAST_SECONDS = 3.0
"""Of a window: it has to hold several scrapes."""
QUIET_SECONDS = 10.0
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


def scaled(match: re.Match[str]) -> str:
    seconds = float(match[1]) * UNITS[match[2]] / FASTER
    return f"{max(seconds, LEAST_SECONDS):.0f}s"


def rules(folder: Path) -> list[str]:
    """Write the rules with shorter windows; returns their names."""
    for name in ("recording", "objectives", "alerts"):
        text = (DEPLOY / "prometheus" / f"{name}.yml").read_text()
        text = re.sub(r"(?<=\[)(\d+)([smhd])(?=\])", scaled, text)
        text = re.sub(r"(?<=for: )(\d+)([smhd])", "1s", text)
        loaded = yaml.safe_load(text)
        for group in loaded["groups"]:
            group["interval"] = "500ms"
        (folder / f"{name}.yml").write_text(yaml.safe_dump(loaded))
    return ["recording.yml", "objectives.yml", "alerts.yml"]


class Watched:
    """A service under watch, and what was told of it."""

    def __init__(
        self, service: httpx.Client, model: chat_server.ChatServer, prometheus: str, hooks: Any
    ) -> None:
        self.settings = load_settings()
        self.service, self.model, self.prometheus, self.hooks = service, model, prometheus, hooks

    def ask(self) -> int:
        return self.service.post("/chat/completions", json=QUESTION).status_code

    def ask_documents(self, number: int) -> str:
        """Ask over documents what was not asked before; returns what was found of the answer."""
        question = f"How many days of leave do full-time employees have, case {number}?"
        body = {"question": question, "collection": "handbook"}
        response = self.service.post("/answers", json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["groundedness"]["verdict"])

    def add_document(self, text: str) -> None:
        self.service.post("/vector_stores", json={"name": "handbook"}).raise_for_status()
        files = {"file": ("leave.txt", text.encode())}
        upload = self.service.post("/files", files=files, data={"purpose": "assistants"})
        held = "/vector_stores/handbook/files"
        self.service.post(held, json={"file_id": upload.json()["id"]}).raise_for_status()
        where = f"{held}/{upload.json()['id']}"
        until(lambda: self.service.get(where).json()["status"] == "completed")

    def firing(self) -> set[str]:
        return prometheus_server.firing(self.prometheus)

    def told(self, state: str) -> set[str]:
        posts = [
            post for path in ("/pages", "/tickets") for post in self.hooks.posted.get(path, ())
        ]
        alerts = [alert for post in posts for alert in post["alerts"]]
        return {each["labels"]["alertname"] for each in alerts if each["status"] == state}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    prometheus_server.required("prometheus")
    prometheus_server.required("prometheus-alertmanager")
    alerts = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    with hook_server.serving() as hooks, chat_server.serving("Good day.") as model:
        for receiver in alerts["receivers"]:
            receiver["webhook_configs"][0]["url"] = f"{hooks.url}/{receiver['name']}"
        alerts["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        gateway = {
            "RAGSTONE_GATEWAY__UPSTREAMS": f'{{"vllm": {{"urls": ["{model.url}"]}}}}',
            "RAGSTONE_GATEWAY__ROUTES": (
                '{"m": {"targets": [{"upstream": "vllm", "model": "tiny"}]}}'
            ),
        }
        gateway["RAGSTONE_GENERATION__MODEL"] = "m"
        gateway["RAGSTONE_GROUNDEDNESS__TIMEOUT_SECONDS"] = (
            "60"  # it is scored on busy machines too
        )
        monitors = '{"answers": {"reference": "answers", "every_minutes": 0.025}}'
        gateway["RAGSTONE_WATCH__MONITORS"] = monitors
        service = running_server.start(tmp_path, **gateway)
        try:
            service.wait_until_ready()
            with prometheus_server.alertmanager(tmp_path, yaml.safe_dump(alerts)) as manager:
                config = {
                    "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
                    "rule_files": rules(tmp_path),
                    "alerting": {
                        "alertmanagers": [{"static_configs": [{"targets": [manager[7:]]}]}]
                    },
                    "scrape_configs": [
                        {
                            "job_name": "ragstone",
                            "static_configs": [{"targets": [service.url[7:]]}],
                        }
                    ],
                }
                with (
                    prometheus_server.prometheus(tmp_path, yaml.safe_dump(config)) as url,
                    httpx.Client(base_url=f"{service.url}/v1", timeout=30) as client,
                ):
                    found = Watched(client, model, url, hooks)
                    found.settings = load_settings(
                        data_folder=tmp_path / "data", watch={"monitors": json.loads(monitors)}
                    )
                    yield found
        finally:
            service.process.kill()
            service.process.wait(10)


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
        watching.look(parts, now=now)
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
