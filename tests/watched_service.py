"""A service that a real Prometheus and a real Alertmanager watch by the rules that are shipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

import chat_server
import hook_server
import prometheus_server
import running_server
from infra.settings import Settings, load_settings
from waiting import until

DEPLOY = Path(__file__).parent.parent / "infra" / "deploy"
RULES = ("recording", "objectives", "alerts")
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


@dataclass(frozen=True, slots=True)
class Watched:
    """A service under watch, and what was told of it."""

    settings: Settings
    service: httpx.Client
    model: chat_server.ChatServer
    prometheus: str
    hooks: hook_server.Hooks

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


@contextmanager
def watching(
    folder: Path,
    *,
    rules: Sequence[Path],
    scrape: str,
    alertmanager: Mapping[str, str],
    every_minutes: float,
) -> Iterator[Watched]:
    """Start all of it.

    Args:
        folder: that is theirs.
        rules: the files of them.
        scrape: how often the service is asked for its series, and the rules are looked at.
        alertmanager: what its route has otherwise than the shipped one.
        every_minutes: the windows of the monitor `answers`.
    """
    for program in ("prometheus", "prometheus-alertmanager"):
        prometheus_server.required(program)
    alerts = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    alerts["route"] |= alertmanager
    monitors = {"answers": {"reference": "answers", "every_minutes": every_minutes}}
    with ExitStack() as stack:
        hooks = stack.enter_context(hook_server.serving())
        model = stack.enter_context(chat_server.serving("Good day."))
        for receiver in alerts["receivers"]:
            receiver["webhook_configs"][0]["url"] = f"{hooks.url}/{receiver['name']}"
        service = running_server.start(
            folder,
            RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"vllm": {"urls": [model.url]}}),
            RAGSTONE_GATEWAY__ROUTES=json.dumps(
                {"m": {"targets": [{"upstream": "vllm", "model": "tiny"}]}}
            ),
            RAGSTONE_GENERATION__MODEL="m",
            RAGSTONE_GROUNDEDNESS__TIMEOUT_SECONDS="60",  # it is scored on busy machines too
            RAGSTONE_WATCH__MONITORS=json.dumps(monitors),
        )
        stack.callback(service.stop)
        service.wait_until_ready()
        manager = stack.enter_context(
            prometheus_server.alertmanager(folder, yaml.safe_dump(alerts))
        )
        managers = {"static_configs": [{"targets": [manager.removeprefix("http://")]}]}
        target = {"targets": [service.url.removeprefix("http://")]}
        config = {
            "global": {"scrape_interval": scrape, "evaluation_interval": scrape},
            "rule_files": [str(path) for path in rules],
            "alerting": {"alertmanagers": [managers]},
            "scrape_configs": [{"job_name": "ragstone", "static_configs": [target]}],
        }
        prometheus = stack.enter_context(
            prometheus_server.prometheus(folder, yaml.safe_dump(config))
        )
        client = stack.enter_context(httpx.Client(base_url=f"{service.url}/v1", timeout=30))
        settings = load_settings(data_folder=folder / "data", watch={"monitors": monitors})
        yield Watched(settings, client, model, prometheus, hooks)
