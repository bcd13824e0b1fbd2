"""A classical model from its specification to the store, and what must never become one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loans
from infra import classical
from infra.classical_rows import encode_rows
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.settings import load_settings
from migrated import put_schema
from service.models import model_training
from service.wiring import Components
from training.classical import Outcome, parse, read, train
from training.sentinel import Aborted
from training.tabular import columns, exporting, fitting, parity

pytest.importorskip("skl2onnx")
REGISTERED = {"register": {"name": "loans"}}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of several tests would wait for each other's."""
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Components]:
    folder = tmp_path_factory.mktemp("models") / "data"
    put_schema(folder / "ragstone.db")
    components = Components(load_settings(data_folder=folder))
    yield components
    components.close()


@pytest.fixture(scope="module")
def trained(parts: Components, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A model of the store, and its files."""
    folder = tmp_path_factory.mktemp("loans")
    outcome = run(parts, loans.write(folder, **REGISTERED), folder / "run")
    return outcome, parts.artifacts.checkout(outcome.model, folder / "model")


def run(parts: Components, spec: Path, folder: Path, **changes: Any) -> Outcome:
    around = model_training.around(parts, spec.parent)
    return train(read(spec), folder, replace(around, **changes))


def test_a_model_is_trained_checked_registered_and_tracked(
    parts: Components, trained: tuple[Outcome, Path]
) -> None:
    outcome, folder = trained
    assert outcome.model == "model/loans@v1"
    assert parts.artifacts.find("model/loans@candidate").digest == outcome.digest
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md", "evaluation.json", "model.json", "model.onnx", "model.skops",
        "reference.parquet", "report.html",
    ]  # fmt: skip
    model = classical.read(folder)
    assert (model.format, model.classes, model.target) == ("onnx", ("failed", "paid"), "outcome")
    assert [(each.name, each.type, each.nullable) for each in model.inputs] == [
        ("age", "int64", False), ("income", "float64", True), ("place", "string", True),
        ("guarantee", "bool", False), ("rating", "int64", False),
    ]  # fmt: skip
    assert model.inputs[-1].categories == (1, 2, 3)
    assert outcome.rows == {
        "read": 600, "without a label": 0, "left for training": 480, "trained on": 480,
        "held out": 120,
    }  # fmt: skip
    assert outcome.run is not None
    tracked = parts.runs.get(outcome.run)
    assert (tracked.kind, tracked.state) == ("classical", "finished")
    assert outcome.held_out["log_loss"] < outcome.constant["log_loss"]


def test_the_graph_says_what_the_pipeline_says_on_a_thousand_rows(
    trained: tuple[Outcome, Path],
) -> None:
    outcome, _ = trained
    assert outcome.format == "onnx"
    assert outcome.parity is not None
    assert outcome.parity["rows"] >= 1_024
    assert outcome.parity["other_labels"] == 0
    assert outcome.parity["difference"] <= 1e-5


def test_the_reference_holds_the_rows_that_were_held_out(trained: tuple[Outcome, Path]) -> None:
    outcome, folder = trained
    kept = pl.read_parquet(folder / "reference.parquet")
    assert kept.columns == [
        "age", "income", "place", "guarantee", "rating", "prediction", "probability", "outcome",
    ]  # fmt: skip
    assert len(kept) == outcome.rows["held out"]
    right = (kept["prediction"] == kept["outcome"]).mean()
    assert right == pytest.approx(outcome.held_out["accuracy"])


def test_baselines_come_first_and_the_card_and_page_say_what_was_done(
    trained: tuple[Outcome, Path],
) -> None:
    _, folder = trained
    figures = json.loads((folder / "evaluation.json").read_text())
    tried = [each["estimator"] for each in figures["trials"]]
    assert tried == ["constant", "logistic_regression", "decision_tree", "decision_tree"]
    assert figures["importance"][0]["column"] in {"income", "guarantee"}
    parts = {part["source"]: part["estimate"] for part in figures["diagnosis"]["parts"]}
    assert sum(parts.values()) == pytest.approx(1 - figures["test"]["accuracy"])
    card = (folder / "card.md").read_text()
    for words in ("# loans", "## Columns", "income", "480", figures["chosen"]["estimator"]):
        assert words in card
    page = (folder / "report.html").read_text()
    assert "income" in page
    assert "<script" not in page
    assert "src=" not in page


rows_of_requests = st.fixed_dictionaries(
    {
        "age": st.integers(-(2**53), 2**53),
        "income": st.none() | st.floats(-1e15, 1e15),
        "place": st.none() | st.sampled_from([*loans.PLACES, "elsewhere", "\N{SNOWMAN}"]),
        "guarantee": st.booleans(),
        "rating": st.integers(-5, 5),
    }
)


@settings(max_examples=60)
@given(rows=st.lists(rows_of_requests, min_size=1, max_size=8))
def test_the_same_rows_offline_and_online_get_the_same_answers(
    trained: tuple[Outcome, Path], rows: list[dict[str, Any]]
) -> None:
    _, folder = trained
    model = classical.read(folder)
    frame = pl.DataFrame(rows, schema_overrides={"income": pl.Float64, "place": pl.String})
    offline = columns.encoded(frame, model.inputs)
    online = columns.as_frame(encode_rows(rows, model.inputs))
    assert offline.equals(online)
    pipeline = exporting.from_skops(folder / "model.skops", model.trusted)
    said = fitting.ask(pipeline, offline, model.classes)
    graph = parity.run(folder / "model.onnx", online, model)
    assert np.abs(said - graph).max() <= 1e-5
    assert (classical.decide(said, model) == classical.decide(graph, model)).all()


def test_features_are_equal_to_the_bit_in_the_pipeline_and_in_its_graph(
    trained: tuple[Outcome, Path], tmp_path: Path
) -> None:
    import onnxruntime

    _, folder = trained
    model = classical.read(folder)
    pipeline = exporting.from_skops(folder / "model.skops", model.trusted)
    rows = columns.encoded(pl.read_parquet(folder / "reference.parquet"), model.inputs)
    there = np.asarray(pipeline[:-1].transform(rows), dtype=np.float64)
    exporting.features_to_onnx(pipeline, model.inputs, tmp_path / "features.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "features.onnx"))
    given = {
        each.name: rows[each.name].to_numpy().astype(
            object if each.type == "tensor(string)" else np.float64
        ).reshape(-1, 1)
        for each in session.get_inputs()
    }  # fmt: skip
    (here,) = session.run(None, given)
    assert len(rows) == 120
    assert there.tobytes() == np.asarray(here, dtype=np.float64).tobytes()


def test_amounts_are_predicted_too(parts: Components, tmp_path: Path) -> None:
    spec = loans.write(
        tmp_path,
        task="regression",
        data__target="amount",
        data__leave_out=["customer", "month", "outcome", "weight"],
        candidates=[{"estimator": "hist_gradient_boosting", "fixed": {"max_iter": 30}}],
        search__metric="mae",
    )
    outcome = run(parts, spec, tmp_path / "run")
    assert outcome.model == str(tmp_path / "run" / "model")
    assert outcome.format == "onnx"
    assert outcome.held_out["mae"] < outcome.constant["mae"] / 2
    model = classical.read(Path(outcome.model))
    assert (model.task, model.classes) == ("regression", None)


def test_a_threshold_is_chosen_in_the_folds_and_kept(parts: Components, tmp_path: Path) -> None:
    spec = loans.write(
        tmp_path,
        imbalance={
            "class_weight": "balanced",
            "calibration": "sigmoid",
            "threshold": {
                "positive": "failed", "metric": "cost", "false_negative_cost": 10,
            },
        },
        candidates=[],
    )  # fmt: skip
    outcome = run(parts, spec, tmp_path / "run")
    assert outcome.thresholds is not None
    assert outcome.thresholds["failed"] < 0.4
    assert sum(outcome.thresholds.values()) == pytest.approx(1)
    kept = pl.read_parquet(tmp_path / "run" / "model" / "reference.parquet")
    failed = kept.filter(pl.col("prediction") == "failed")
    assert failed["probability"].min() < 0.5
    assert outcome.format == "onnx"


@pytest.mark.parametrize("estimator", ["lightgbm", "xgboost"])
def test_boosters_are_served_without_a_graph_and_the_outcome_says_so(
    parts: Components, tmp_path: Path, estimator: str
) -> None:
    pytest.importorskip(estimator)
    spec = loans.write(
        tmp_path,
        candidates=[{"estimator": estimator, "fixed": {"n_estimators": 20, "max_depth": 3}}],
        search__metric="accuracy",
    )
    from training.tabular import artifact, pipelines
    from training.tabular.preparation import prepare

    asked = read(spec)
    material = prepare(asked, loans.table(), None)
    pipeline = pipelines.build(asked, material.chosen.columns, estimator, asked.candidates[0].fixed)
    fitting.fit(pipeline, material.train, asked)
    folder = tmp_path / "written"
    folder.mkdir()
    written = artifact.write_model(folder, pipeline, material, asked, thresholds=None)
    assert written.model.format == "skops"
    assert written.warning is not None
    assert "skops alone is served" in written.warning
    assert not (folder / "model.onnx").exists()
    again = exporting.from_skops(folder / "model.skops", written.model.trusted)
    test = material.test
    said = fitting.ask(pipeline, test.features, test.classes)
    assert (said == fitting.ask(again, test.features, test.classes)).all()


def test_training_is_refused_where_a_required_expectation_fails(
    parts: Components, tmp_path: Path
) -> None:
    spec = loans.write(tmp_path, register={"name": "refused"}, data__expectations=["suite.yaml"])
    (tmp_path / "suite.yaml").write_text(
        "name: loans\nchecks:\n- {rule: range, column: age, min: 30}\n"
    )
    with pytest.raises(Conflict, match="range.*nothing was trained"):
        run(parts, spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(NotFound):
        parts.artifacts.find("model/refused")


def test_a_model_no_better_than_a_constant_is_not_registered(
    parts: Components, tmp_path: Path
) -> None:
    rows = loans.table(400)
    shuffled = rows["outcome"].sample(fraction=1, shuffle=True, seed=1)
    spec = loans.write(
        tmp_path, rows.with_columns(shuffled), register={"name": "noise"}, accept__min_gain=0.01
    )
    with pytest.raises(Aborted, match="a constant"):
        run(parts, spec, tmp_path / "run")
    with pytest.raises(NotFound):
        parts.artifacts.find("model/noise")
    (last,) = parts.runs.list(limit=1)
    assert last.state == "failed"


def test_a_column_that_gives_the_target_away_is_told(parts: Components, tmp_path: Path) -> None:
    rows = loans.table()
    leak = (rows["outcome"] == "failed").cast(pl.Int64) * 100 + rows["rating"]
    spec = loans.write(tmp_path, rows.with_columns(reminders=leak))
    outcome = run(parts, spec, tmp_path / "run")
    assert any("'reminders' alone predicts the target" in each for each in outcome.warnings)


def test_the_same_specification_and_rows_make_the_same_model(
    parts: Components, trained: tuple[Outcome, Path], tmp_path: Path
) -> None:
    outcome, folder = trained
    again = run(parts, loans.write(tmp_path, **REGISTERED), tmp_path / "run")
    assert again.held_out == outcome.held_out
    place = tmp_path / "run" / "model"
    for name in ("model.onnx", "model.json", "reference.parquet"):
        assert (place / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling": {"plan": "convenience"}}, "data.test, drawn by a plan"),
        ({"sampling": {"plan": "quota", "by": "place"}}, "needs 'quotas'"),
        ({"sampling": {"plan": "all", "rows": 5}}, "means nothing"),
        ({"split": {"method": "time"}}, "needs data.time"),
        ({"split": {"gap": 3}}, "split.gap"),
        ({"candidates": [{"estimator": "oracle"}]}, "'oracle' is none for classification"),
        ({"search__metric": "rmse"}, "is not of classification"),
        ({"task": "regression", "imbalance": {"class_weight": "balanced"}}, "of classification"),
        ({"data__targets": "x"}, "data.targets: there is no such key"),
        ({"version": 2}, "later release"),
        ({"name": "../x"}, "name"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_key(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse(loans.asked(**changes))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"data__target": "outcomes"}, NotFound, "'outcome'"),
        ({"data__leave_out": ["agee"]}, NotFound, "'age'"),
        ({"data__train": {"rows": "loan.csv"}}, NotFound, "loan.csv"),
        ({"data__train": {"rows": "dataset/none"}}, NotFound, "none"),
        ({"data__train": {"rows": "loans.yaml"}}, InvalidRequest, "by its name"),
        (
            {"data__train": {"rows": "loans.csv", "digest": "sha256:" + "0" * 64}},
            InvalidRequest,
            "the specification says",
        ),
        (
            {"candidates": [{"estimator": "decision_tree", "fixed": {"depth": 3}}]},
            InvalidRequest,
            "no parameter 'depth'",
        ),
        (
            {"candidates": [{"estimator": "decision_tree", "fixed": {"max_depth": -3}}]},
            InvalidRequest,
            "cannot be trained",
        ),
        (
            {"imbalance": {"threshold": {"positive": "lost"}}, "candidates": []},
            InvalidRequest,
            "'lost'",
        ),
        ({"data__test": {"rows": "loans.csv"}}, InvalidRequest, "as well"),
    ],
)
def test_what_the_rows_do_not_allow_is_refused_and_nothing_is_registered(
    parts: Components, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    spec = loans.write(tmp_path, register={"name": "never"}, **changes)
    with pytest.raises(kind, match=said):
        run(parts, spec, tmp_path / "run")
    with pytest.raises(NotFound):
        parts.artifacts.find("model/never")


def test_a_graph_of_another_model_does_not_pass_the_gate(
    trained: tuple[Outcome, Path], parts: Components, tmp_path: Path
) -> None:
    _, folder = trained
    other = run(
        parts,
        loans.write(tmp_path, loans.table(seed=11)),
        tmp_path / "run",
    )
    model = classical.read(folder)
    pipeline = exporting.from_skops(folder / "model.skops", model.trusted)
    rows = columns.encoded(pl.read_parquet(folder / "reference.parquet"), model.inputs)
    probe = parity.probe(rows, model.inputs, seed=0)
    graph = Path(other.model) / "model.onnx"
    found = parity.compare(pipeline, graph, model, probe, allowed=1e-5)
    assert not found.holds
    assert found.difference > 0.01
