"""Feedback over HTTP and in the terminal: stored once it is answered, on one's own only, once."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from typer.testing import CliRunner

from infra.contracts import Interaction
from infra.errors import InvalidRequest, NotFound
from monitoring import interaction_exports
from monitoring.feedback import FeedbackStore, Statement
from monitoring.interactions import Query
from monitoring.references import open_reference
from service.cli.entry import app
from service.wiring import Components

NOW = datetime.now(UTC)
URL = "/v1/feedback"


def put(parts: Components, id_: str, **values: Any) -> None:
    kept = {"kind": "completion", "at": NOW, "model": "m", "outcome": "answered", "status": 200}
    parts.interactions.add(Interaction(id=id_, **{**kept, **values}))


@pytest.fixture
def parts(client: TestClient) -> Components:
    found: Components = client.app.state.components  # type: ignore[attr-defined]
    return found


def test_an_answer_that_was_told_a_moment_ago_is_voted_on(
    client: TestClient, handbook: str, parts: Components
) -> None:
    answer = client.post("/v1/answers", json={"collection": handbook, "question": "leave?"}).json()
    said = {"interaction_id": answer["id"], "kind": "thumbs", "value": "down", "text": "wrong"}
    first = client.post(URL, json=said)
    assert first.status_code == 200, first.text
    assert client.post(URL, json=said).json() == first.json(), "the same again is the same"
    assert client.post(URL, json={**said, "value": "up"}).json()["id"] != first.json()["id"]
    with Components(parts.settings).database.read() as other:  # whoever else looks
        assert other.exec_driver_sql("SELECT count(*) FROM feedback").scalar() == 2
    listed = client.get(URL, params={"interaction_id": answer["id"]}).json()["data"]
    assert [each["value"] for each in listed] == ["down", "up"]
    families = text_string_to_metric_families(client.get("/metrics").text)
    votes = {
        sample.labels["value"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "ragstone_feedback_total"
    }
    assert votes == {"up": 1, "down": 1}


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"interaction_id": "nobody"}, 404, "interaction_not_found"),
        ({"value": "sideways"}, 400, "invalid_value"),
        ({"kind": "correction"}, 400, "invalid_value"),
        ({"kind": "label", "value": ""}, 400, "invalid_value"),
        ({"kind": "shrug"}, 400, None),
        ({"interaction_id": "req-1"}, 400, "invalid_value"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    client: TestClient, parts: Components, said: dict[str, str], status: int, code: str | None
) -> None:
    for number in range(2):
        put(parts, f"call-{number}", request_id="req-1")
    body = {"interaction_id": "call-0", "kind": "thumbs", "value": "up", **said}
    refused = client.post(URL, json=body)
    assert refused.status_code == status, refused.text
    assert code is None or refused.json()["error"]["code"] == code
    assert parts.feedback.of("call-0") == []


def test_late_labels_are_joined_by_the_id_of_the_interaction_or_of_the_request(
    parts: Components,
) -> None:
    put(parts, "call-1", request_id="req-7", at=NOW - timedelta(days=20))
    parts.interactions.flush()
    kept = parts.feedback.add(Statement("req-7", "label", "refund"))
    assert kept.interaction_id == "call-1"
    parts.feedback.add(Statement("call-1", "label", "complaint"))
    table = interaction_exports.table_of(parts.database, Query())
    assert table.column("label").to_pylist() == ["complaint"], "the last one counts"


def test_another_tenants_interactions_do_not_exist(parts: Components) -> None:
    put(parts, "call-1", tenant="acme", request_id="req-1")
    for name in ("call-1", "req-1"):
        with pytest.raises(NotFound):
            parts.feedback.add(Statement(name, "thumbs", "up", tenant="umbrella"))
    parts.feedback.add(Statement("call-1", "thumbs", "up", tenant="acme"))


def test_personal_data_is_masked_before_it_is_stored(parts: Components) -> None:
    from infra.expectations.recognizers import mask

    put(parts, "call-1")
    parts.interactions.flush()
    store = FeedbackStore(parts.database, mask=mask)
    kept = store.add(Statement("call-1", "correction", text="Write to ada@example.com"))
    assert "ada@example.com" not in str(store.of("call-1"))
    assert kept.text != "Write to ada@example.com"
    again = store.add(Statement("call-1", "correction", text="Write to ada@example.com"))
    assert (again.id, again.is_new) == (kept.id, False)


def test_many_who_say_the_same_at_once_store_it_once(parts: Components) -> None:
    put(parts, "call-1")
    parts.interactions.flush()
    kept: list[str] = []

    def say() -> None:
        kept.append(parts.feedback.add(Statement("call-1", "thumbs", "up")).id)

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 8
    assert len(set(kept)) == 1


def test_feedback_goes_with_its_interaction_and_its_text_with_the_document(
    parts: Components, client: TestClient, handbook: str
) -> None:
    (document, *_) = [
        each.file_id
        for each in parts.documents.list(parts.collections.get(handbook), limit=1).items
    ]
    put(parts, "call-1", content={"question": "q", "answer": "a"}, documents=(document,))
    put(parts, "call-2")
    parts.interactions.flush()
    for id_ in ("call-1", "call-2"):
        parts.feedback.add(Statement(id_, "correction", text="27 days"))
    parts.interactions.erase_content([document])
    assert [each.text for each in parts.feedback.of("call-1")] == [None]
    assert [each.text for each in parts.feedback.of("call-2")] == ["27 days"]
    parts.interactions.delete(Query())
    assert parts.feedback.of("call-2") == []


def test_a_window_with_its_feedback_becomes_an_artifact(
    parts: Components, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(interaction_exports, "BATCH", 7)
    for number in range(20):
        content = {"question": f"q{number}", "answer": None}
        put(parts, f"call-{number}", at=NOW - timedelta(days=20 - number), content=content)
    parts.interactions.flush()
    parts.feedback.add(Statement("call-15", "thumbs", "down"))
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    since = f"{NOW - timedelta(days=10, hours=1):%Y-%m-%dT%H:%M:%S}"
    command = ["interactions", "export", "--from", since, "--artifact", "answers"]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    window = open_reference(parts.artifacts, "answers", tmp_path / "window")
    assert window.rows == 10
    assert list(window.read("id").to_pylist()) == [f"call-{n}" for n in range(10, 20)]
    assert window.read("thumbs").to_pylist() == [None] * 5 + ["down"] + [None] * 4
    assert window.read("question").to_pylist()[0] == "q10"
    assert parts.artifacts.resolve("window/answers@v1").metadata["rows"] == 10
    nobody = Query(model="nobody")
    with pytest.raises(InvalidRequest, match="no interaction"):
        interaction_exports.export(parts.database, parts.artifacts, nobody, "answers")


def test_the_terminal_says_and_repeats(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    put(parts, "call-1")
    parts.interactions.flush()
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    said = CliRunner().invoke(app, ["feedback", "call-1", "label", "refund"])
    assert re.fullmatch(r"Kept: feedback-\w+\n", said.output), said.output
    again = CliRunner().invoke(app, ["feedback", "call-1", "label", "refund"])
    assert "Was kept before" in again.output
    unknown = CliRunner().invoke(app, ["feedback", "nobody", "up"])
    assert unknown.exit_code != 0
    assert isinstance(unknown.exception, NotFound) or "No interaction 'nobody'" in unknown.output
