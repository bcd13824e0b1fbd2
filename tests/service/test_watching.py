"""The watch: interactions that drift raise an alarm, are told of, and start what they should."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from typer.testing import CliRunner

import hook_server
import mail_server
from infra.contracts import Interaction, Usage
from infra.errors import InvalidConfiguration, NotFound
from infra.plugins import available, load
from monitoring import interaction_exports
from monitoring.interactions import Query
from service import standing, watching
from service.cli.entry import app
from service.wiring import Components

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 300


def traffic(
    parts: Components, start: datetime, *, tokens: float = 200, support: float = 0.8
) -> None:
    """An hour of answers."""
    chance = random.Random(start.isoformat())
    for number in range(ROWS):
        parts.interactions.add(
            Interaction(
                id=f"answer-{start:%d%H}-{number}",
                kind="answer",
                at=start + HOUR * (number / ROWS),
                model="rag/x",
                outcome="answered" if chance.random() < 0.9 else "abstained",
                status=200,
                usage=Usage(int(chance.gauss(tokens, 30)), int(chance.gauss(50, 10))),
                seconds=chance.lognormvariate(0, 0.5),
                support=min(1.0, max(0.0, chance.gauss(support, 0.1))),
            )
        )
    parts.interactions.flush()


@pytest.fixture
def hooks() -> Iterator[hook_server.Hooks]:
    with hook_server.serving() as found:
        yield found


def watched(settings: Any, hooks: hook_server.Hooks, **monitor: Any) -> dict[str, Any]:
    """Return sections of settings with one monitor and a webhook."""
    of = {"reference": "answers", "kind": "answer", **monitor}
    receivers = {"webhook": {"url": f"{hooks.url}/drift"}}
    return {"watch": {"monitors": {"answers": of}, "receivers": receivers}}


def pinned(parts: Components) -> datetime:
    """Pin two hours as the reference; returns when the third begins."""
    for number in range(2):
        traffic(parts, START + number * HOUR)
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    return START + 2 * HOUR


def hours(parts: Components, start: datetime, *, number: int, **how: float) -> datetime:
    """Let hours pass, each looked at when it ends."""
    for _ in range(number):
        traffic(parts, start, **how)
        start += HOUR
        (found,) = watching.look(parts, now=start)
        assert not watching.look(parts, now=start + HOUR / 2), "the next window has not ended"
        assert found.report["rows"] == {"reference": 2 * ROWS, "measurement": ROWS}
    return start


def test_quiet_hours_tell_nobody_and_drift_is_told_once_and_resolved_once(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    client: TestClient = open_client(fast_settings(**watched(fast_settings, hooks)))
    parts = client.app.state.components  # type: ignore[attr-defined]
    now = hours(parts, pinned(parts), number=8)
    assert hooks.posted == {}, "nothing has drifted"
    now = hours(parts, now, number=4, tokens=320)
    (told,) = hooks.posted["/drift"]
    assert (told["action"], told["monitor"]) == ("ticket", "answers")
    assert "prompt_tokens" in told["summary"]
    moved = [each["feature"] for each in told["evidence"]["features"] if each["verdict"] == "drift"]
    assert moved == ["prompt_tokens"]
    standing.watch(parts)
    series = {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert series["ragstone_drift_alarm['answers']"] == 1
    assert series["ragstone_drift_verdict['answers', 'drift']"] == 1
    assert series["ragstone_drift_effect_ratio['answers', 'prompt_tokens']"] > 1
    assert series["ragstone_drift_due_timestamp_seconds['answers']"] == (now + HOUR).timestamp()
    hours(parts, now, number=4)
    assert [each["action"] for each in hooks.posted["/drift"]] == ["ticket", "resolved"]


def test_drift_with_harm_starts_the_pipeline_with_the_evidence(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"floors": {"support": 0.7}, "pipeline": "/srv/again.yml", "evidence_parameter": "why"}
    settings = fast_settings(**watched(fast_settings, hooks, **asked), jobs={"in_process": False})
    parts = open_client(settings).app.state.components
    now = hours(parts, pinned(parts), number=1)
    now = hours(parts, now, number=3, tokens=320)
    assert parts.jobs.list(name="pipeline.run") == [], "drift alone retrains nothing"
    hours(parts, now, number=3, tokens=320, support=0.5)
    (job,) = parts.jobs.list(name="pipeline.run")
    assert job.arguments["file"] == "/srv/again.yml"
    evidence = job.arguments["params"]["why"]
    assert evidence == "evidence/answers@v1"
    folder = parts.artifacts.checkout(evidence, Path("checked-out"))
    said = json.loads((folder / "evidence.json").read_text())
    (performance,) = said["evidence"]["performance"]
    assert performance["high"] < performance["floor"] == 0.7
    assert [each["action"] for each in hooks.posted["/drift"]] == ["ticket", "pipeline"]


def test_a_receiver_that_is_down_keeps_nobody_else_from_being_told(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    sections = watched(fast_settings, hooks)
    with mail_server.serving() as mail:
        sections["watch"]["receivers"] = {
            "alertmanager": {"url": "http://127.0.0.1:9"},
            "email": {
                "host": "127.0.0.1",
                "port": mail.port,
                "starttls": False,
                "sender": "ragstone@example.com",
                "recipients": ["ops@example.com"],
            },
            **sections["watch"]["receivers"],
        }
        parts = open_client(fast_settings(**sections)).app.state.components
        hours(parts, pinned(parts), number=2, tokens=320)
    (message,) = mail.messages
    assert "Subject: [ticket] answers: Drift of prompt_tokens" in message
    assert "- prompt_tokens:" in message
    assert len(hooks.posted["/drift"]) == 1


def test_hours_without_traffic_say_that_there_is_too_little(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    parts = open_client(fast_settings(**watched(fast_settings, hooks))).app.state.components
    start = pinned(parts)
    for number in range(1, 6):
        (found,) = watching.look(parts, now=start + number * HOUR + HOUR)
        assert found.judged.verdict in {"not_enough_data", "incomparable"}
    assert hooks.posted == {}


def test_the_terminal_looks_once(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = Components(fast_settings())
    pinned(parts)
    parts.close()
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    nothing = CliRunner().invoke(app, ["watch", "--once"])
    assert nothing.exit_code == 0, nothing.output
    monkeypatch.setenv("RAGSTONE_WATCH__MONITORS", '{"answers": {"reference": "answers"}}')
    looked = CliRunner().invoke(app, ["watch", "--once", "--json"])
    assert looked.exit_code == 0, looked.output
    (found,) = json.loads(looked.stdout)
    assert found["monitor"] == "answers"


def test_what_is_not_there_is_said_by_name(fast_settings: Any, hooks: hook_server.Hooks) -> None:
    parts = Components(fast_settings(**watched(fast_settings, hooks)))
    with pytest.raises(NotFound, match="answers"):
        watching.look(parts, now=START)
    with pytest.raises(NotFound, match="there are 'answers'"):
        watching.opened(parts, "question")
    parts.close()
    assert available("monitoring.receivers") == ["alertmanager", "email", "webhook"]
    with pytest.raises(InvalidConfiguration, match="no address of the web"):
        load("monitoring.receivers", "webhook")({"url": "file:///etc/passwd"})


def test_a_page_shows_what_moved_and_loads_nothing(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    parts = open_client(fast_settings(**watched(fast_settings, hooks))).app.state.components
    now = hours(parts, pinned(parts), number=1, tokens=320)
    markup = "<script>alert(1)</script>"
    parts.interactions.add(
        Interaction("x", "answer", now - HOUR / 2, "rag/x", markup, 200)  # type: ignore[arg-type]
    )
    parts.interactions.flush()
    page = watching.report(parts, "answers", now=now).decode()
    assert len(page) < 500_000
    assert "answers: drift" in page
    assert page.count("<svg") >= 5
    assert page.index("prompt_tokens") < page.index("completion_tokens"), "what moved comes first"
    assert "Rows that moved most" in page
    assert "<script" not in page
    assert not [each for each in ("http://", "https://", "src=", "@import") if each in page]
    with pytest.raises(NotFound):
        watching.report(parts, "questions", now=now)
