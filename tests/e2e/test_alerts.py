"""A real Prometheus and a real Alertmanager watch a running service: what breaks is told, once.

The rules are those that are shipped, with their windows scaled down: an hour is ten seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import chat_server
import hook_server
import prometheus_server
import running_server
from waiting import until

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "infra" / "deploy"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FASTER = 360.0
LEAST_SECONDS = 3.0
"""Of a window: it has to hold several scrapes."""
QUIET_SECONDS = 25.0
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
        self.service, self.model, self.prometheus, self.hooks = service, model, prometheus, hooks

    def ask(self) -> int:
        return self.service.post("/chat/completions", json=QUESTION).status_code

    def firing(self) -> set[str]:
        return prometheus_server.firing(self.prometheus)

    def told(self, state: str) -> set[str]:
        posts = [post for path in ("/pages", "/tickets") for post in self.hooks.posted[path]]
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
                    yield Watched(client, model, url, hooks)
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
