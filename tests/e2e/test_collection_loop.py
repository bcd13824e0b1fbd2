"""The loop of a collection, closed: nobody does anything between what is asked and what answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from infra.settings import Settings, load_settings
from migrated import put_schema
from monitoring import interaction_exports
from monitoring.interactions import Query
from retrieval.sources import Spec
from service.app import create_app
from service.wiring import Components
from service.work import syncing, watching

pytest.importorskip("py3langid")

HOUR = timedelta(hours=1)
OFFICE = {
    "Employees have 27 days of leave each year.": (
        "How many days of leave do employees have each year?"
    ),
    "Trains are booked in second class.": "In which class are trains booked?",
    "The canteen opens at noon.": "When does the canteen open?",
    "Parking spaces are given out by the reception.": "Who gives out parking spaces?",
    "A new laptop is ordered every four years.": "How often is a new laptop ordered?",
    "The fire drill takes place in October.": "When does the fire drill take place?",
}
BICYCLES = {
    "The bicycle shed is opened with the yellow key.": "With which key is the bicycle shed opened?",
    "Helmets are lent for three days.": "For how many days are helmets lent?",
    "The charging station gives 11 kilowatts.": (
        "How many kilowatts does the charging station give?"
    ),
    "Tyres are pumped up in the workshop on Fridays.": "When are tyres pumped up in the workshop?",
    "The repair voucher covers 60 euros.": "How many euros does the repair voucher cover?",
    "Cargo bikes are reserved by the porter.": "By whom are cargo bikes reserved?",
}
FORMS = ("{}", "Please tell me: {}", "I would like to know: {}", "Hello. {}")
POOR, FINE = ({"embedder": "hashing", "embedder_options": {"dimension": n}} for n in (1, 512))
SUITE = {
    "name": "handbook",
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "collection", "collection": "handbook"},
    "metrics": [{"metric": "retrieval_recall", "with": {"k": 1}}],
    "gates": [{"metric": "retrieval_recall", "margin": 0.1, "alpha": 0.1}],
}


def settings(folder: Path) -> Settings:
    """Return all that the loop is set by."""
    answered = {"label": "outcome", "right": ["answered"], "floor": 0.6, "days": 1 / 24}
    monitor = {
        "reference": "window/handbook@v1",
        "kind": "answer",
        "model": "rag/handbook",
        "features": [],
        "questions": {"collection": "handbook", "topics": 6},
        "confirm": 1,
        "labelled": {"answered": answered},
        "trigger": {
            "job": "reindex",
            "arguments": {
                "collection": "handbook",
                "suite": str(folder / "suite.yaml"),
                "candidates": [POOR, FINE],
            },
            "evidence_parameter": "evidence",
        },
    }
    return load_settings(
        data_folder=folder / "data",
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        groundedness={"when": "off"},
        telemetry={"content": True},
        watch={"monitors": {"handbook": monitor}},
    )


class Loop:
    """A service with a collection, the source it comes from, and the questions it gets."""

    def __init__(self, client: TestClient, folder: Path) -> None:
        self.client = client
        self.parts: Components = client.app.state.components  # type: ignore[attr-defined]
        self._folder = folder
        folder.mkdir()

    def write(self, facts: Mapping[str, str]) -> None:
        """Put documents where the collection comes from; nobody syncs it."""
        first = len(list(self._folder.iterdir()))
        for number, fact in enumerate(facts):
            (self._folder / f"{first + number}.md").write_text(f"{fact}\n")

    def add_source(self) -> None:
        whole = self.parts.collections.create("handbook", self.parts.recipe())
        spec = Spec("folder", str(self._folder))
        identity = syncing.connect(self.parts, syncing.Wanted(spec, whole)).identity
        named = self.parts.sources.add("notes", spec, whole, identity=identity)
        self.result(syncing.start(self.parts, named).id)

    def ask(self, facts: Mapping[str, str], *, times: int = 1) -> float:
        """Ask for all facts in all forms; returns the share that is answered rightly."""
        right = []
        for fact, question in facts.items():
            for form in FORMS * times:
                body = {"collection": "handbook", "question": form.format(question)}
                told = self.client.post("/v1/answers", json=body)
                assert told.status_code == 200, told.text
                right.append(fact in told.json()["text"])
        self.parts.interactions.flush()
        return sum(right) / len(right)

    def pin(self) -> str:
        """Pin what was asked so far as the reference."""
        parts = self.parts
        found = interaction_exports.export(parts.database, parts.artifacts, Query(), "handbook")
        return str(found)

    def look(self, now: datetime) -> Any:
        (found,) = watching.look(self.parts, now=now)
        return found

    def result(self, job: str) -> Any:
        """Wait for a job that the service runs by itself."""
        done = self.parts.jobs.wait(job)
        assert done.state == "succeeded", done
        return done.result

    def builds(self) -> list[str]:
        whole = self.parts.collections.get("handbook")
        return [each.state for each in self.parts.builds.list(whole)]


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    put_schema(tmp_path / "data" / "ragstone.db")
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    app = create_app(Components(settings(tmp_path)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Loop(client, tmp_path / "source")


def write_cases(path: Path, facts: Mapping[str, str], folder: Path) -> None:
    """Write the questions, each with the file that holds its answer."""
    sources = {each.read_text().strip(): each.name for each in folder.iterdir()}
    cases = [
        {
            "id": f"{number}-{place}",
            "question": form.format(question),
            "relevant": sources[fact],
            "answer": fact,
        }
        for number, (fact, question) in enumerate(facts.items())
        for place, form in enumerate(FORMS)
    ]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in cases))


def test_questions_that_moved_on_are_answered_again_and_a_poor_recipe_stays_out(
    loop: Loop, tmp_path: Path
) -> None:
    loop.write(OFFICE)
    loop.add_source()
    assert loop.ask(OFFICE, times=5) > 0.8
    assert loop.pin() == "window/handbook@v1"
    now = datetime.now(UTC)
    quiet = loop.look(now)
    assert (quiet.judged.verdict, quiet.judged.action) == ("stable", None), quiet
    assert quiet.report["performance"][0]["low"] > 0.6

    loop.write(BICYCLES)
    write_cases(tmp_path / "cases.jsonl", {**OFFICE, **BICYCLES}, tmp_path / "source")
    assert loop.ask(BICYCLES, times=3) == 0.0
    harmed = loop.look(now + HOUR)
    assert harmed.judged.action == "started", harmed
    (job,) = loop.parts.jobs.list(name="reindex")
    assert watching.stored(loop.parts).latest("handbook")[-1].report["started"] == job.id
    result = loop.result(job.id)
    assert result["decision"] == "swapped"
    assert [each["added"] for each in result["synced"]] == [6]
    assert loop.builds() == ["standby", "reclaimed", "live"]
    assert loop.parts.collections.get("handbook").recipe.dimension == 512
    assert loop.ask(BICYCLES) == 1.0
    assert loop.ask(OFFICE) > 0.8
    is_explained(loop, job.id)


def is_explained(loop: Loop, job: str) -> None:
    """See that every decision names what led to it, and its numbers."""
    whole = loop.parts.collections.get("handbook")
    events = loop.parts.builds.history(whole)
    told = [(each.build_id, each.kind) for each in events]
    assert told == [
        (1, "synced"),
        *((2, "started"), (2, "refused"), (2, "retired")),
        *((3, "started"), (3, "swapped")),
    ]
    by = {kind: each.detail for (_, kind), each in zip(told, events, strict=True)}
    assert all(
        (each.detail["job"], each.detail["evidence"]) == (job, "evidence/handbook@v1")
        for each in events
        if each.kind != "retired"
    )
    assert (by["synced"]["source"], by["synced"]["added"]) == ("notes", 6)
    recall, before = "retrieval_recall", "retrieval_recall of the live build"
    refused, swapped = by["refused"], by["swapped"]
    assert refused["scores"][recall] < 0.5 < refused["scores"][before] == 1.0
    assert "evaluation/handbook@v2 beside evaluation/handbook@v1" in refused["reason"]
    assert swapped["scores"] == {recall: 1.0, before: 1.0}
    assert swapped["instead_of"] == 1

    with loop.parts.artifacts.open("evidence/handbook@v1", "evidence.json") as file:
        drift = json.load(file)["evidence"]
    (answered,) = drift["performance"]
    assert answered["high"] < answered["floor"] == 0.6
    moved = {each["feature"] for each in drift["features"] if each["verdict"] == "drift"}
    assert {"question_vector", "question_out_of_domain"} <= moved
