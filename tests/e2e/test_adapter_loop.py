"""The loop of an adapter, closed: corrections lead to one that takes over, with no human step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from infra.contracts import Interaction
from infra.settings import load_settings
from migrated import put_schema
from monitoring import interaction_exports
from monitoring.feedback import Statement
from monitoring.interactions import Query
from service.app import create_app
from service.wiring import Components
from service.work import watching
from trained import WORSE, write_task

pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(300)
HOUR = timedelta(hours=1)
RETRAINING = {"name": "orders", "spec": "spec.yaml", "log": {"model": "orders"}}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    put_schema(tmp_path / "data" / "ragstone.db")
    write_task(tmp_path, {"runtime.environment": {"OMP_NUM_THREADS": "1"}})
    (tmp_path / "retraining.yaml").write_text(yaml.safe_dump(RETRAINING))
    right = {"label": "thumbs", "right": ["up"], "floor": 0.8, "days": 1 / 24}
    trigger = {
        "when": "harm",
        "job": "retrain_adapter",
        "arguments": {"spec": str(tmp_path / "retraining.yaml")},
        "evidence_parameter": "evidence",
    }
    monitor = {
        "reference": "window/orders@v1",
        "model": "orders",
        "features": ["outcome"],
        "confirm": 1,
        "labelled": {"right": right},
        "trigger": trigger,
    }
    settings = load_settings(
        data_folder=tmp_path / "data",
        retrieval={"embedder": "hashing"},
        generation={"engine": "echo"},
        telemetry={"content": True},
        fine_tuning={"smoke": False},
        watch={"monitors": {"orders": monitor}},
    )
    app = create_app(Components(settings))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client.app.state.components  # type: ignore[attr-defined]


def corrected(parts: Components, now: datetime) -> None:
    """Have answers in the log, all of them wrong, and people who say what is right."""
    for number in range(100):
        messages = [{"role": "user", "content": f"Order {number}?"}]
        content: dict[str, Any] = {"request": {"messages": messages}, "answer": "?"}
        at = now - HOUR / 2
        parts.interactions.add(
            Interaction(
                f"chat-{number}", "completion", at, "orders", "answered", 200, content=content
            )
        )
    parts.interactions.flush()
    for number in range(100):
        parts.feedback.add(Statement(f"chat-{number}", "thumbs", "down"))
        parts.feedback.add(Statement(f"chat-{number}", "correction", text=WORSE))


def test_what_people_corrected_is_learned_and_takes_over(parts: Components) -> None:
    now = datetime.now(UTC)
    corrected(parts, now)
    interaction_exports.export(parts.database, parts.artifacts, Query(), "orders")
    (found,) = watching.look(parts, now=now)
    assert found.judged.action == "started", found
    (job,) = parts.jobs.list(name="retrain_adapter")
    done = parts.jobs.wait(job.id)
    assert done.state == "succeeded", (done, parts.jobs.logs(job.id))
    assert done.result["decision"] == "promoted", done.result
    adapter = parts.artifacts.find("adapter/orders@production")
    assert str(adapter) == done.result["challenger"] == "adapter/orders@v1"
    [moved] = parts.artifacts.history("adapter/orders", "production")
    assert moved.actor == done.result["run"]
    with parts.artifacts.open(done.result["evidence"], "evidence.json") as file:
        told = json.load(file)
    assert told["cause"] == {"evidence": "evidence/orders@v1"}
    assert told["answers"][0]["numbers"]["high"] < 0
    assert told["rows"]["train"] == 80
    assert "evidence/orders" in str(parts.artifacts.lineage(done.result["evidence"]))
    assert parts.runs.get(done.result["run"]).state == "finished"
