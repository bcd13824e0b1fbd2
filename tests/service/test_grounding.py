"""Every answer over documents is scored, counted and noted; no answer fails or waits for it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from starlette.testclient import TestClient

from chat_server import serving
from infra.contracts import Answer, Groundedness, Interaction, Passage, Usage
from infra.errors import NotFound
from monitoring.groundedness_metrics import GroundednessMetrics
from monitoring.grounding.detectors import Finding
from monitoring.grounding.evidence import Evidence
from monitoring.grounding.model import STORED, as_json, shipped
from service.grounding import THREADS, Grounding, noted
from service.wiring import Components

TEXT = "Full-time employees have 27 days of paid leave a year."
ASKED = {"question": "How many days of leave do employees have?", "collection": "handbook"}
OTHERWISE = {"question": "How much paid leave is there?"}
"""The same question is answered from memory."""
RIGHT = "Full-time employees have 27 days of paid leave a year [1]."
WRONG = "Full-time employees have 35 days of paid leave a year [1]."


class Broken:
    """A third party's detector that fails."""

    name = "broken"
    grounded_below, unsupported_from = 0.3, 0.7

    def judge(self, claims: Sequence[str], evidence: Evidence) -> list[Finding]:
        raise ZeroDivisionError(f"{len(claims)} claims, {len(evidence.spans)} sentences")


def broken() -> Broken:
    return Broken()


class Asking:
    """A service whose model says what it is told to."""

    def __init__(self, client: TestClient, model: Any) -> None:
        self.client = client
        self._model = model

    def ask(self, said: str, **body: Any) -> dict[str, Any]:
        self._model.reply = said
        response = self.client.post("/v1/answers", json={**ASKED, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def recorded(self, **query: str) -> list[dict[str, Any]]:
        parts = self.client.app.state.components  # type: ignore[attr-defined]
        if "grounding" in vars(parts):
            parts.grounding.close()
        parts.interactions.flush()
        found: list[dict[str, Any]] = self.client.get("/v1/interactions", params=query).json()[
            "data"
        ]
        return [item for item in found if item["kind"] == "answer"]

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def asking(open_client: Any, fast_settings: Any, add_text: Any) -> Any:
    with serving(RIGHT) as model:

        def open_(*, telemetry: dict[str, Any] | None = None, **groundedness: Any) -> Asking:
            gateway = {
                "upstreams": {"here": {"urls": [model.url]}},
                "routes": {"writer": {"targets": [{"upstream": "here"}]}},
            }
            settings = fast_settings(
                gateway=gateway,
                generation={"engine": "echo", "model": "writer"},
                groundedness=groundedness,
                telemetry=telemetry or {},
            )
            client = open_client(settings)
            client.post("/v1/vector_stores", json={"name": "handbook"})
            add_text(client, "handbook", "leave.txt", TEXT)
            return Asking(client, model)

        yield open_


def test_answer_says_how_well_its_passages_carry_it(asking: Any) -> None:
    service = asking()
    right = service.ask(RIGHT)["groundedness"]
    assert right["verdict"] == "grounded"
    assert right["score"] > 0.6
    assert right["unsupported"] == right["doubtful"] == []
    wrong = service.ask(WRONG, **OTHERWISE)["groundedness"]
    assert wrong["verdict"] == "unsupported"
    (sentence,) = wrong["unsupported"]
    assert WRONG[sentence["start"] : sentence["end"]].startswith("Full-time")
    assert sentence["disagreements"] == [{"kind": "number", "said": "35", "instead": "27"}]


def test_what_is_found_is_counted_and_noted_with_the_interaction(asking: Any) -> None:
    service = asking(review_share=0)
    service.ask(RIGHT)
    service.ask(WRONG, **OTHERWISE)
    assert service.metric('ragstone_groundedness_verdicts_total{verdict="unsupported"}') == 1
    assert service.metric('ragstone_groundedness_verdicts_total{verdict="grounded"}') == 1
    assert service.metric("ragstone_groundedness_score_count") == 2
    assert service.metric("ragstone_groundedness_duration_seconds_count") == 2
    assert (
        service.metric('ragstone_groundedness_unsupported_sentences_total{disagreement="number"}')
        == 1
    )
    wrong, right = service.recorded()
    assert (wrong["verdict"], wrong["review"]) == ("unsupported", "unsupported")
    assert (right["verdict"], right["review"]) == ("grounded", None)
    assert wrong["groundedness"] < 0.3 < right["groundedness"]


def test_answers_are_scored_after_they_are_told_where_the_settings_say_so(asking: Any) -> None:
    service = asking(when="after")
    assert service.ask(WRONG)["groundedness"] is None
    (item,) = service.recorded()
    assert item["verdict"] == "unsupported"
    assert service.metric("ragstone_groundedness_score_count") == 1


def test_nothing_is_scored_where_it_is_off(asking: Any) -> None:
    service = asking(when="off")
    assert service.ask(WRONG)["groundedness"] is None
    (item,) = service.recorded()
    assert (item["groundedness"], item["verdict"], item["review"]) == (None, None, None)
    assert service.metric("ragstone_groundedness_score_count") == 0


def test_abstention_is_no_hallucination(asking: Any) -> None:
    service = asking()
    found = service.ask("The documents do not say.")
    assert found["answerable"] is False
    assert found["groundedness"]["verdict"] == "unscored"
    assert service.metric('ragstone_groundedness_verdicts_total{verdict="unsupported"}') == 0
    (item,) = service.recorded()
    assert (item["verdict"], item["groundedness"], item["review"]) == ("unscored", None, None)


def test_calls_of_models_without_documents_are_not_scored(asking: Any) -> None:
    service = asking()
    said = [{"role": "user", "content": "Hello"}]
    body = {"model": "writer", "messages": said, "stream": True}
    assert service.client.post("/v1/chat/completions", json=body).status_code == 200
    assert service.metric("ragstone_groundedness_duration_seconds_count") == 0


@pytest.mark.parametrize("when", ["within", "after"])
def test_detector_that_fails_blinds_the_scorer_and_spoils_no_answer(asking: Any, when: str) -> None:
    service = asking(detector=f"{__name__}.broken", when=when)
    assert service.ask(RIGHT)["text"]
    (item,) = service.recorded()
    assert item["outcome"] == "answered"
    assert item["verdict"] is None
    assert service.metric('ragstone_groundedness_blind_total{reason="failed"}') == 1


def test_personal_data_in_what_is_found_is_masked(asking: Any, fast_settings: Any) -> None:
    from service.redaction import Redactor, _groundedness

    text = "Write to ada@example.org. It has 35 days."
    redactor = Redactor()
    told = redactor.feed(text) + redactor.end()
    found = _groundedness(Groundedness("grounded", 0.9, uncited=((26, 41),)), redactor)
    assert found is not None
    ((start, end),) = found.uncited
    assert told[start:end] == "It has 35 days."


def answer(number: int) -> Answer:
    passage = Passage(1, "file-a", 1, "c", "a", "", 0, 4, "text", 0.5)
    return Answer(f"answer-{number}", "?", "c", "Said.", True, None, (), (passage,), "e", Usage())


def test_answers_beyond_the_bound_are_counted_as_not_seen_and_still_noted() -> None:
    registry = CollectorRegistry()
    may_go = threading.Event()

    def slow(_: Answer) -> Groundedness:
        may_go.wait(10)
        return Groundedness("grounded", 0.9)

    grounding = Grounding(slow, GroundednessMetrics(registry), most_waiting=2)
    done: list[Groundedness | None] = []
    for number in range(5):
        grounding.after(answer(number), done.append)
    assert done == [None] * 3
    may_go.set()
    grounding.close()
    assert [each.verdict for each in done if each] == ["grounded"] * 2
    text = generate_latest(registry).decode()
    assert 'ragstone_groundedness_blind_total{reason="overloaded"} 3.0' in text


class Hanging:
    """Scores nothing until it may."""

    def __init__(self) -> None:
        self.may_go, self.threads = threading.Event(), set[str]()

    def __call__(self, _: Answer) -> Groundedness:
        self.threads.add(threading.current_thread().name)
        self.may_go.wait(20)
        return Groundedness("grounded", 0.9)


def test_answer_does_not_wait_longer_for_its_score_than_it_may() -> None:
    registry, hanging = CollectorRegistry(), Hanging()
    grounding = Grounding(hanging, GroundednessMetrics(registry), timeout_seconds=0.1)

    async def many() -> list[Answer]:
        return await asyncio.gather(*(grounding.within(answer(number)) for number in range(20)))

    try:
        told = asyncio.run(asyncio.wait_for(many(), 10))
    finally:
        hanging.may_go.set()
        grounding.close()
    assert [each.groundedness for each in told] == [None] * 20
    assert len(hanging.threads) <= THREADS
    text = generate_latest(registry).decode()
    assert 'ragstone_groundedness_blind_total{reason="slow"} 20.0' in text
    assert 'ragstone_groundedness_verdicts_total{verdict="grounded"} 0.0' in text


def test_what_is_told_after_the_end_is_noted_without_a_score() -> None:
    registry = CollectorRegistry()
    grounding = Grounding(
        lambda _: Groundedness("grounded", 0.9), GroundednessMetrics(registry), most_waiting=1
    )
    grounding.close()
    done: list[Groundedness | None] = []
    for number in range(3):
        grounding.after(answer(number), done.append)
    assert done == [None] * 3
    assert asyncio.run(grounding.within(answer(3))).groundedness is None
    grounding.close()


def test_closing_does_not_wait_for_a_scorer_that_hangs_and_loses_no_record() -> None:
    registry, hanging = CollectorRegistry(), Hanging()
    grounding = Grounding(hanging, GroundednessMetrics(registry))
    done: list[Groundedness | None] = []
    for number in range(3):
        grounding.after(answer(number), done.append)
    started = time.monotonic()
    grounding.close(seconds=0.2)
    assert time.monotonic() - started < 5
    assert done == [None] * 3
    hanging.may_go.set()
    time.sleep(0.2)
    assert done == [None] * 3
    text = generate_latest(registry).decode()
    assert 'ragstone_groundedness_blind_total{reason="closed"} 3.0' in text


def test_texts_are_kept_of_a_share_of_the_answers_and_of_those_to_be_looked_at(
    asking: Any,
) -> None:
    service = asking(review_share=0, telemetry={"content": True, "content_share": 0})
    service.ask(RIGHT)
    service.ask(WRONG, **OTHERWISE)
    wrong, right = service.recorded()
    assert (wrong["review"], wrong["content"]["answer"]) == ("unsupported", WRONG)
    assert (right["review"], right["content"]) == (None, None)


def test_review_takes_all_that_is_not_carried_and_a_share_of_the_rest() -> None:
    item = Interaction("x", "answer", datetime.now(UTC), "m", "answered", 200)
    well, ill = Groundedness("grounded", 0.9), Groundedness("unsupported", 0.1)
    many = [replace(item, id=f"answer-{number}") for number in range(4_000)]
    drawn = [noted(each, well, review_share=0.1).review for each in many]
    assert 300 < drawn.count("sampled") < 500
    assert drawn == [noted(each, well, review_share=0.1).review for each in many]
    assert {noted(each, ill, review_share=0).review for each in many[:50]} == {"unsupported"}
    unscored = Groundedness("unscored", reason="there is no passage")
    assert noted(item, unscored, review_share=1).review is None


def test_the_model_of_the_scorer_may_be_an_artifact(
    fast_settings: Any, open_client: Any, add_text: Any, tmp_path: Path
) -> None:
    stored = as_json(shipped()) | {"name": "trees-of-ours"}
    (tmp_path / STORED).write_text(json.dumps(stored))
    option = {"detector_options": {"model": "model/groundedness@production"}}
    settings = fast_settings(groundedness=option)
    parts = Components(settings)
    with pytest.raises(NotFound, match="groundedness"):
        _ = parts.grounding
    found = parts.artifacts.put(tmp_path / STORED, "model/groundedness")
    parts.artifacts.tag(str(found), "production")
    parts.close()
    client = open_client(settings)
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", TEXT)
    told = client.post("/v1/answers", json=ASKED).json()["groundedness"]
    assert told["detector"] == "trees-of-ours"
