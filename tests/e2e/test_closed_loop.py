"""The loop of a classical model, closed: nobody does anything between training and promotion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from starlette.testclient import TestClient

from infra.errors import NotFound
from infra.settings import Settings, load_settings
from migrated import put_schema
from service.app import create_app
from service.models import model_training
from service.wiring import Components
from service.work import watching
from training import classical

pytest.importorskip("skl2onnx")

COLUMNS = (7, 10, 11, 12, 13, 19, 20, 21, 37, 38, 39, 40)
"""Of the stream, those that say most of the target."""
FEATURES = [f"page_{number}" for number in COLUMNS]
NAMES = {0: "harmless", 1: "phishing"}
SWAPPED = {"harmless": "phishing", "phishing": "harmless"}
HOUR = timedelta(hours=1)
MOST_ROUNDS, ROUND = 8, 40
TRAINED_ON, QUIET, DRIFTED = 1_200, 150, 450

SUITE = {
    "name": "sites",
    "checks": [
        {"rule": "rows", "min": 100},
        *({"rule": "range", "column": each, "min": 0, "max": 1} for each in FEATURES),
    ],
}
SPEC = {
    "name": "sites",
    "task": "classification",
    "data": {
        "train": {"rows": "sites.parquet"},
        "target": "kind",
        "time": "seen",
        "expectations": ["suite.yaml"],
    },
    "split": {"folds": 2},
    "candidates": [{"estimator": "decision_tree", "fixed": {"max_depth": 6}}],
    "search": {"metric": "accuracy"},
    "accept": {"min_gain": 0.1},
    "register": {"name": "sites", "alias": "production"},
}
RETRAINING = {
    "name": "sites",
    "spec": "sites.yaml",
    "log": {},
    "formation": {"method": "rolling", "rows": 300},
    "promotion": {"to": "challenger", "earlier": 0},
}


def settings(folder: Path) -> Settings:
    """Return all that the loop is set by."""
    monitor = {
        "reference": "model/sites@production",
        "kind": "prediction",
        "model": "model/sites",
        "features": [*(f"feature.{each}" for each in FEATURES), "prediction"],
        "confirm": 1,
        "labelled": {"accuracy": {"floor": 0.75, "days": 1 / 24}},
        "trigger": {
            "job": "retrain",
            "arguments": {"spec": str(folder / "retraining.yaml")},
            "evidence_parameter": "evidence",
        },
    }
    rules = {"min_requests": 60, "max_failures": 0.1, "promote": True}
    return load_settings(
        data_folder=folder / "data",
        retrieval={"embedder": "hashing"},
        generation={"engine": "echo"},
        jobs={"in_process": False},
        models={"keep": "inputs", "challengers": {"sites": rules}},
        watch={"monitors": {"sites": monitor}},
    )


class Loop:
    """A service with a model, the traffic it gets, and the clock of its jobs."""

    def __init__(self, client: TestClient, stream: pl.DataFrame, folder: Path) -> None:
        self.client = client
        self.parts: Components = client.app.state.components  # type: ignore[attr-defined]
        self.folder = folder
        self._stream = stream

    def take(self, rows: int, *, drifted: bool = False) -> pl.DataFrame:
        """Return the next rows; the source that drifted codes every feature the other way."""
        taken, self._stream = self._stream[:rows], self._stream[rows:]
        return taken.with_columns(-pl.col(FEATURES) + 1) if drifted else taken

    def train(self, rows: pl.DataFrame, **changes: Any) -> classical.Outcome:
        rows.write_parquet(self.folder / "sites.parquet")
        around = model_training.around(self.parts, self.folder)
        return classical.train(classical.parse({**SPEC, **changes}), self.folder / "run", around)

    def ask(self, rows: pl.DataFrame, *, at_once: int = 1) -> set[str]:
        """Ask and say what was right; returns the versions that answered."""
        versions = set()
        for part in rows.iter_slices(at_once):
            body = {"model": "sites", "rows": part.select(FEATURES).to_dicts()}
            told = self.client.post("/v1/predict", json=body)
            assert told.status_code == 200, told.text
            versions.add(told.json()["model"])
            for each, label in zip(told.json()["predictions"], part["kind"], strict=True):
                said = {"interaction_id": each["id"], "kind": "label", "value": label}
                assert self.client.post("/v1/feedback", json=said).status_code == 200
        return versions

    def follow(self) -> None:
        """Have the service look at aliases, and its copies answered."""
        assert self.client.portal is not None
        self.client.portal.call(self.parts.models.refresh)
        self.client.portal.call(self.parts.canaries.shadows.settle)

    def job(self, name: str, **arguments: Any) -> Any:
        return self.parts.jobs.registry.get(name).function(None, **arguments)

    def compared(self) -> dict[str, Any]:
        """Ask until the job that compares has decided; returns what it found."""
        self.follow()
        for _ in range(MOST_ROUNDS):
            self.ask(self.take(ROUND, drifted=True))
            self.follow()
            (found,) = self.job("compare")
            if found["done"] is not None:
                self.follow()
                return dict(found)
        raise AssertionError(f"nothing was decided: {found}")

    def version(self, alias: str) -> str | None:
        try:
            return str(self.parts.artifacts.find(f"model/sites@{alias}"))
        except NotFound:
            return None

    def moves(self, alias: str) -> list[tuple[str, str | None]]:
        """Return what happened to an alias and by whom, first things first."""
        moves = self.parts.artifacts.history("model/sites", alias)
        return [(each.action, each.actor) for each in reversed(moves)]

    def evidence(self, reference: str) -> Any:
        with self.parts.artifacts.open(reference, "evidence.json") as file:
            return json.load(file)


@pytest.fixture
def loop(shared_data: Path, tmp_path: Path) -> Iterator[Loop]:
    path = shared_data / "streams" / "phishing.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the real datasets here")
    for name, values in (("suite", SUITE), ("sites", SPEC), ("retraining", RETRAINING)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    put_schema(tmp_path / "data" / "ragstone.db")
    rows = pl.read_csv(path).with_row_index("seen")
    stream = rows.select(
        "seen",
        *(pl.col(str(given)).alias(name) for given, name in zip(COLUMNS, FEATURES, strict=True)),
        pl.col("target").replace_strict(NAMES).alias("kind"),
    )
    app = create_app(Components(settings(tmp_path)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Loop(client, stream, tmp_path)


def test_drift_is_answered_by_a_better_model_and_a_bad_one_is_sent_back(loop: Loop) -> None:
    first = loop.train(loop.take(TRAINED_ON))
    assert first.model == "model/sites@v1"
    loop.follow()
    assert loop.ask(loop.take(QUIET), at_once=50) == {"model/sites@v1"}
    now = datetime.now(UTC)
    (quiet,) = watching.look(loop.parts, now=now)
    assert (quiet.judged.verdict, quiet.judged.action) == ("stable", None)
    assert quiet.report["performance"][0]["low"] > 0.75

    loop.ask(loop.take(DRIFTED, drifted=True), at_once=50)
    (harmed,) = watching.look(loop.parts, now=now + HOUR)
    assert harmed.judged.action == "started", harmed
    (job,) = loop.parts.jobs.list(name="retrain")
    assert watching.stored(loop.parts).latest("sites")[-1].report["started"] == job.id
    retrained = loop.job(job.name, **job.arguments)
    assert (retrained["decision"], retrained["challenger"]) == ("staged", "model/sites@v2")
    assert loop.version("production") == "model/sites@v1"

    promoted = loop.compared()
    assert promoted["done"] == "promoted"
    assert loop.version("production") == "model/sites@v2"
    assert loop.ask(loop.take(5, drifted=True)) == {"model/sites@v2"}

    labels = pl.col("kind").replace_strict(SWAPPED)
    bad = loop.train(
        loop.take(600, drifted=True).with_columns(labels),
        register={"name": "sites", "alias": "challenger"},
    )
    assert loop.version("challenger") == bad.model == "model/sites@v3"
    sent_back = loop.compared()
    assert sent_back["done"] == "rolled_back"
    assert loop.version("production") == "model/sites@v2"
    assert loop.ask(loop.take(5, drifted=True)) == {"model/sites@v2"}
    is_explained(loop, first, retrained, promoted=promoted, sent_back=sent_back)


def is_explained(
    loop: Loop,
    first: classical.Outcome,
    retrained: dict[str, Any],
    *,
    promoted: dict[str, Any],
    sent_back: dict[str, Any],
) -> None:
    """See that every decision names its reason, and the reason its numbers."""
    by = [each["evidence"] for each in (promoted, sent_back)]
    assert by == ["comparison/sites@v1", "comparison/sites@v2"]
    assert loop.version("challenger") is None
    assert [actor for _, actor in loop.moves("production")][1:] == by[:1]
    assert loop.moves("challenger")[:2] == [("move", retrained["run"]), ("remove", by[0])]
    assert loop.moves("challenger")[3:] == [("remove", by[1])]

    drift = loop.evidence("evidence/sites@v1")
    (accuracy,) = drift["evidence"]["performance"]
    assert accuracy["high"] < accuracy["floor"] == 0.75
    assert [each for each in drift["evidence"]["features"] if each["verdict"] == "drift"]

    decided = loop.evidence(retrained["evidence"])
    assert decided["cause"] == {"evidence": "evidence/sites@v1"}
    assert decided["answers"][0]["numbers"]["high"] < 0
    assert decided["spec"]["log"]["rows"].startswith("dataset/sites-predictions@")
    assert "evidence/sites" in str(loop.parts.artifacts.lineage(retrained["evidence"]))

    won, lost = (loop.evidence(each) for each in by)
    assert (won["live"]["version"], won["challenger"]["version"]) == (
        "model/sites@v1",
        "model/sites@v2",
    )
    assert won["challenger"]["loss"] < won["live"]["loss"]
    assert (lost["live"]["version"], lost["decision"]) == ("model/sites@v2", "roll_back")
    assert lost["reason"].startswith("error is ")

    runs = [loop.parts.runs.get(str(each)) for each in (first.run, retrained["run"])]
    assert [(each.kind, each.state) for each in runs] == [
        ("classical", "finished"),
        ("retraining", "finished"),
    ]
