"""A model kept fresh: what is promoted, what is refused or withheld, and what is kept of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from infra.errors import Conflict, InvalidRequest, NotFound, StorageFailed
from infra.settings import load_settings
from migrated import put_schema
from service.models import model_gates, model_training
from service.wiring import Components
from surroundings import no_settings_from_outside
from training import classical
from training.retrain import parse, retrain
from training.retrain import read as read_retraining
from training.retrained import Answer, Question, Result
from training.tabular import forming

pytest.importorskip("skl2onnx")

SPEC = {
    "name": "signal",
    "task": "classification",
    "data": {"train": {"rows": "first.csv"}, "target": "y", "leave_out": ["id"], "time": "t"},
    "split": {"folds": 3},
    "candidates": [{"estimator": "decision_tree", "fixed": {"max_depth": 4}}],
    "search": {"metric": "accuracy"},
    "accept": {"min_gain": 0.1},
    "register": {"name": "signal", "alias": "production"},
}


def stream(rows: int, place: str, *, start: int = 0, seed: int = 0) -> pl.DataFrame:
    """Return rows of a place: `north` says high where x is, `south` says it where it is not."""
    draw = np.random.default_rng([seed, start])
    x = draw.random(rows)
    high = (x > 0.5) == (place == "north")
    noisy = np.where(draw.random(rows) < 0.05, ~high, high)
    return pl.DataFrame(
        {
            "id": np.arange(start, start + rows),
            "t": np.arange(start, start + rows),
            "x": x,
            "place": [place] * rows,
            "y": ["high" if each else "low" for each in noisy],
        }
    )


FIRST = stream(1_200, "north")
THEN = stream(1_200, "south", start=1_200)
FIRST_MODEL = "model/signal@v1"


def opened(folder: Path) -> Iterator[Components]:
    FIRST.write_csv(folder / "first.csv")
    (folder / "signal.yaml").write_text(yaml.safe_dump(SPEC))
    components = Components(load_settings(data_folder=folder / "data"))
    yield components
    components.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    put_schema(tmp_path / "data" / "ragstone.db")
    yield from opened(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first model was trained and put to work."""
    folder = tmp_path_factory.mktemp("first")
    put_schema(folder / "data" / "ragstone.db")
    with pytest.MonkeyPatch.context() as patch, contextmanager(opened)(folder) as components:
        no_settings_from_outside(patch, folder)
        around = model_training.around(components, folder)
        classical.train(classical.read(folder / "signal.yaml"), folder / "run", around)
    return folder


@pytest.fixture
def at_work(trained: Path, tmp_path: Path) -> Iterator[Components]:
    """The first model at work as `model/signal@v1`, for one test alone."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    yield from opened(tmp_path)


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "name": "signal",
        "spec": "signal.yaml",
        "log": {"rows": "log.csv", "time": "t", "key": "id"},
        **changes,
    }


def kept_fresh(
    parts: Components,
    folder: Path,
    log: pl.DataFrame,
    judge: Any = model_gates.judge,
    **changes: Any,
) -> Result:
    log.write_csv(folder / "log.csv")
    path = folder / "retraining.yaml"
    path.write_text(yaml.safe_dump(asked(**changes)))
    around = model_training.around(parts, folder)
    return retrain(read_retraining(path), around, judge, cause={"monitor": "signal"})


def production(parts: Components) -> str:
    return str(parts.artifacts.find("model/signal@production"))


def evidence(parts: Components, reference: str) -> Any:
    with parts.artifacts.open(reference, "evidence.json") as file:
        return json.load(file)


def test_a_challenger_that_is_better_and_forgets_nothing_takes_over(
    at_work: Components, tmp_path: Path
) -> None:
    log = pl.concat([FIRST, THEN])
    result = kept_fresh(
        at_work, tmp_path, log, formation={"method": "rolling", "rows": 900, "replay": 0.8}
    )
    assert result.decision == "promoted", result
    assert (result.champion, result.challenger) == (FIRST_MODEL, "model/signal@v2")
    assert production(at_work) == "model/signal@v2"
    assert [each.name for each in result.answers] == ["latest rows", "held out by v1"]
    latest = result.answers[0].numbers
    assert latest["champion"] > 0.8
    assert latest["challenger"] < 0.1
    assert result.rows["replayed"] == pytest.approx(720, abs=1)
    move, *_ = at_work.artifacts.history("model/signal", "production")
    assert move.actor == result.run


def test_everything_that_led_to_a_decision_is_kept(at_work: Components, tmp_path: Path) -> None:
    result = kept_fresh(at_work, tmp_path, pl.concat([FIRST, THEN]))
    assert result.run is not None
    run = at_work.runs.get(result.run)
    assert (run.kind, run.state) == ("retraining", "finished")
    kept = evidence(at_work, result.evidence)
    assert kept["cause"] == {"monitor": "signal"}
    assert kept["decision"] == result.decision
    assert kept["answers"][0]["numbers"]["cases"] == result.rows["compared"] == 480
    assert kept["spec"]["log"]["time"] == "t"
    up = at_work.artifacts.lineage(result.evidence)
    assert "model/signal" in str(up)


def test_a_challenger_that_forgets_is_refused(at_work: Components, tmp_path: Path) -> None:
    result = kept_fresh(
        at_work,
        tmp_path,
        pl.concat([FIRST, THEN]),
        formation={"method": "rolling", "rows": 700},
    )
    assert result.decision == "refused"
    assert [each.passed for each in result.answers] == [True, False]
    assert "held out by v1" in result.reasons[0]
    assert production(at_work) == FIRST_MODEL
    assert str(at_work.artifacts.find("model/signal@candidate")) == "model/signal@v2"


def test_a_challenger_that_is_no_better_is_refused(at_work: Components, tmp_path: Path) -> None:
    log = pl.concat([FIRST, stream(1_200, "north", start=1_200)])
    result = kept_fresh(at_work, tmp_path, log)
    assert result.decision == "refused"
    assert not result.answers[0].passed
    assert production(at_work) == FIRST_MODEL


def test_where_labels_are_missing_nothing_is_promoted_without_a_person(
    at_work: Components, tmp_path: Path
) -> None:
    few = THEN.with_columns(y=pl.when(pl.col("id") % 3 == 0).then(None).otherwise(pl.col("y")))
    formation = {"method": "rolling", "rows": 900, "replay": 0.8}
    result = kept_fresh(at_work, tmp_path, pl.concat([FIRST, few]), formation=formation)
    assert result.decision == "withheld"
    assert all(each.passed for each in result.answers)
    assert "83% of the rows old enough have a label" in result.reasons[0]
    assert production(at_work) == FIRST_MODEL


def test_a_challenger_that_passes_can_be_put_where_it_is_compared_in_production(
    at_work: Components, tmp_path: Path
) -> None:
    asking: dict[str, Any] = {
        "formation": {"method": "rolling", "rows": 900, "replay": 0.8},
        "promotion": {"to": "challenger"},
    }
    result = kept_fresh(at_work, tmp_path, pl.concat([FIRST, THEN]), **asking)
    assert result.decision == "staged", result
    assert production(at_work) == FIRST_MODEL
    store = at_work.artifacts
    assert str(store.find("model/signal@challenger")) == "model/signal@v2"
    assert store.history("model/signal", "challenger")[0].actor == result.run
    later = kept_fresh(at_work, tmp_path, pl.concat([FIRST, THEN]), **asking)
    assert later.decision == "withheld", later
    assert "still compared" in later.reasons[0]
    assert str(store.find("model/signal@challenger")) == "model/signal@v2"


def test_nothing_is_staged_where_the_champion_changed_meanwhile(
    at_work: Components, tmp_path: Path
) -> None:
    def meddle(questions: Sequence[Question]) -> list[Answer]:
        at_work.artifacts.tag("model/signal@v2", "production")
        return [Answer(each.name, True, "so be it", {}) for each in questions]

    log = pl.concat([FIRST, THEN])
    with pytest.raises(Conflict, match="by now"):
        kept_fresh(at_work, tmp_path, log, judge=meddle, promotion={"to": "challenger"})
    with pytest.raises(NotFound):
        at_work.artifacts.find("model/signal@challenger")


def test_without_a_champion_the_first_model_takes_the_place(
    parts: Components, tmp_path: Path
) -> None:
    result = kept_fresh(parts, tmp_path, FIRST)
    assert (result.decision, result.champion, result.answers) == ("promoted", None, ())
    assert production(parts) == "model/signal@v1"


def test_noise_makes_no_challenger(at_work: Components, tmp_path: Path) -> None:
    noise = THEN.with_columns(THEN["y"].sample(fraction=1, shuffle=True, seed=4))
    result = kept_fresh(at_work, tmp_path, noise)
    assert (result.decision, result.challenger) == ("refused", None)
    assert "a constant" in result.reasons[0]
    assert production(at_work) == FIRST_MODEL


def test_a_champion_that_changed_meanwhile_is_not_replaced(
    at_work: Components, tmp_path: Path
) -> None:
    def meddle(questions: Sequence[Question]) -> list[Answer]:
        at_work.artifacts.tag("model/signal@v2", "production")
        return [Answer(each.name, True, "so be it", {}) for each in questions]

    with pytest.raises(Conflict):
        kept_fresh(at_work, tmp_path, pl.concat([FIRST, THEN]), judge=meddle)
    assert production(at_work) == "model/signal@v2"
    kept = evidence(at_work, "retraining/signal")
    assert kept["decision"] == "withheld"
    assert "moved meanwhile" in kept["reasons"][0]
    assert kept["answers"][0]["reason"] == "so be it"


def test_nothing_is_promoted_whose_evidence_cannot_be_kept(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = parts.artifacts.writer

    def full(name: str, *given: Any) -> Any:
        if name.startswith("retraining/"):
            raise StorageFailed("the disk is full")
        return writer(name, *given)

    monkeypatch.setattr(parts.artifacts, "writer", full)
    with pytest.raises(StorageFailed):
        kept_fresh(parts, tmp_path, FIRST)
    assert str(parts.artifacts.find("model/signal@candidate")) == "model/signal@v1"
    with pytest.raises(NotFound):
        production(parts)


def form(rows: pl.DataFrame, now: datetime = datetime(2026, 1, 1, tzinfo=UTC), **changes: Any):
    given = parse(asked(**changes))
    return forming.form(rows, given, target="y", now=now, seed=1)


def test_rows_are_formed_as_asked_and_the_latest_are_compared_on() -> None:
    rows = stream(1_000, "north").sample(fraction=1, shuffle=True, seed=2)
    whole = form(rows)
    assert (whole.counts.trained_on, whole.counts.compared) == (800, 200)
    assert whole.train["t"].max() < whole.compare["t"].min()
    rolling = form(rows, formation={"method": "rolling", "rows": 300})
    assert (rolling.train["t"].min(), rolling.train["t"].max()) == (500, 799)
    by_length = form(rows, formation={"method": "rolling", "length": 99})
    assert (by_length.train["t"].min(), by_length.train["t"].max()) == (700, 799)
    since = form(rows, formation={"method": "expanding", "start": 600})
    assert since.train["t"].to_list() == list(range(600, 800))
    replayed = form(rows, formation={"method": "rolling", "rows": 300, "replay": 0.5})
    assert (replayed.counts.trained_on, replayed.counts.replayed) == (450, 150)
    assert (replayed.train["t"][:150] < 500).all()
    assert replayed.train["t"].n_unique() == 450
    some = form(rows, formation={"method": "stratified", "rows": 100, "by": "y"})
    assert some.counts.trained_on == 100


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("is_text", [True, False])
def test_times_have_a_zone_in_what_is_formed_only_where_the_log_has_one(
    zone: str | None, is_text: bool
) -> None:
    times = [datetime(2025, 1, 1) + timedelta(hours=each) for each in range(200)]  # noqa: DTZ001
    moments = pl.Series("t", times).dt.replace_time_zone(zone)
    text = moments.dt.strftime("%Y-%m-%dT%H:%M:%S" + ("Z" if zone else ""))
    formed = form(stream(200, "north").with_columns(text if is_text else moments))
    assert formed.train["t"].equals(moments[:160])
    assert formed.compare["t"].equals(moments[160:])


def test_labels_that_may_still_change_are_waited_for() -> None:
    rows = stream(500, "north")
    late = form(rows, labels={"delay": 100})
    assert (late.counts.too_young, late.counts.labelled) == (100, 400)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    hours = rows.with_columns(t=pl.Series([begin + timedelta(hours=each) for each in range(500)]))
    now = begin + timedelta(hours=499)
    for times in (hours, hours.with_columns(pl.col("t").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))):
        found = form(times, now=now, labels={"delay": 24})
        assert (found.counts.too_young, found.counts.labelled) == (24, 476)


def test_of_labels_that_come_twice_the_latest_counts() -> None:
    rows = stream(300, "north").with_columns(said=pl.lit(1))
    mended = rows.head(50).with_columns(y=pl.lit("mended"), said=pl.lit(2))
    gone = rows.head(10).with_columns(y=pl.lit(None, dtype=pl.String), said=pl.lit(3))
    log = {"rows": "log.csv", "time": "t", "key": "id", "labelled_at": "said"}
    both = pl.concat([gone, mended, rows])
    found = form(both.sample(fraction=1, shuffle=True, seed=3), log=log)
    everything = pl.concat([found.train, found.compare])
    assert len(everything) == 300
    assert found.counts.superseded == 60
    assert set(everything.filter(pl.col("id") < 50)["y"]) == {"mended"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"formation": {"method": "rolling"}}, "needs 'rows' or 'length'"),
        ({"promotion": {"to": "candidate"}}, "'candidate' is taken"),
        ({"log": {"key": "id"}}, "key is of rows"),
        ({"formation": {"method": "expanding"}}, "needs 'start'"),
        ({"formation": {"method": "stratified", "rows": 50}}, "needs 'rows' and 'by'"),
        ({"formation": {"replay": 0.5}}, "leaves no older rows out"),
        ({"labels": {"min_share": 0}}, "min_share"),
        ({"alias": "x y"}, "alias"),
        ({"surprise": 1}, "no such key"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_key(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse(asked(**changes))


def test_logs_that_cannot_be_formed_are_refused() -> None:
    rows = stream(300, "north")
    with pytest.raises(NotFound, match="'t'"):
        form(rows.drop("t"))
    with pytest.raises(InvalidRequest, match="300 rows of the log have no 't'"):
        form(rows.with_columns(t=pl.lit(None, dtype=pl.Int64)))
    with pytest.raises(InvalidRequest, match="no moment"):
        form(rows.with_columns(t=pl.lit("soon")))
    with pytest.raises(InvalidRequest, match="0 rows of the log have a final label"):
        form(rows.with_columns(y=pl.lit(None, dtype=pl.String)))
    with pytest.raises(InvalidRequest, match="is no value of 't'"):
        form(rows, formation={"method": "expanding", "start": "2026-01-01"})


def test_the_gates_are_sure_or_do_not_pass() -> None:
    draw = np.random.default_rng(0)
    worse = (draw.random(400) < 0.3).astype(float)
    better = worse * (draw.random(400) < 0.5)
    ask = Question("rows", "superior", 0.0, worse, better, is_wrong_or_right=True)
    assert [each.passed for each in model_gates.judge([ask])] == [True]
    same = replace(ask, challenger=worse)
    swapped = replace(ask, champion=better, challenger=worse)
    assert [each.passed for each in model_gates.judge([same, swapped])] == [False, False]
    level = replace(same, kind="non_inferior", limit=0.05)
    assert [each.passed for each in model_gates.judge([level])] == [True]
