"""Models retrained on what they were asked: which rows and labels they get, and what is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from classical_models import ROW, Made, classifier, put, regressor
from infra.contracts import Interaction
from infra.datasets.datasets import Datasets
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.feature_views import JoinedView
from infra.settings import load_settings
from migrated import put_schema
from monitoring import prediction_logs
from monitoring.feedback import Statement
from monitoring.prediction_pairs import copy_of
from service.models import retraining
from service.wiring import Components
from service.work import monitors
from training import retrain

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-classical-models.md"
Open = Callable[..., Components]
START = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.fixture
def open_parts(tmp_path: Path) -> Iterator[Open]:
    put_schema(tmp_path / "data" / "ragstone.db")
    with ExitStack() as opened:

        def open_(made: Made, watch: Any = None, **models: Any) -> Components:
            settings = load_settings(
                data_folder=tmp_path / "data", models=models, watch=watch or {}
            )
            parts = Components(settings)
            opened.callback(parts.close)
            put(parts.artifacts, made, tmp_path / "1")
            return parts

        yield open_


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "retraining.yaml"
    path.write_text(yaml.safe_dump({"name": "churn", "spec": "churn.yaml", "log": {}, **changes}))
    return path


def ask(parts: Components, *features: dict[str, Any] | None) -> None:
    for place, row in enumerate(features):
        id_, at = f"pred-{place}-0", START + timedelta(hours=place)
        content = {"prediction": "yes"} | ({} if row is None else {"features": row})
        parts.interactions.add(
            Interaction(id_, "prediction", at, "model/churn", "answered", 200, content=content)
        )
        told = {"prediction": "no", "features": ROW}
        parts.interactions.add(
            Interaction(
                copy_of(id_), "prediction", at, "model/churn", "answered", 200, content=told
            )
        )
    parts.interactions.flush()


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is trained; the datasets that would be are noted."""
    found: list[str] = []

    def note(asked: Any, *_: Any, **__: Any) -> None:
        found.append(asked.log.rows)

    monkeypatch.setattr(retrain, "retrain", note)
    return found


def log_of(parts: Components, logs: list[str], folder: Path, **changes: Any) -> pl.DataFrame:
    retraining.run(parts, written(folder, **changes))
    found: pl.DataFrame = Datasets(parts.artifacts).frame(logs[-1])
    return found


def test_log_is_what_the_model_was_asked_with_the_labels_said_last(
    open_parts: Open, logs: list[str], tmp_path: Path
) -> None:
    parts = open_parts(classifier(0))
    ask(parts, ROW, None, {**ROW, "age": None, "plan": None}, {**ROW, "plan": "gold"})
    for id_, label in (("pred-0-0", "no"), ("pred-0-0", "yes"), ("pred-3-0", "maybe")):
        parts.feedback.add(Statement(id_, "label", label))
    parts.feedback.add(Statement("pred-2-0", "thumbs", "up"))
    found = log_of(parts, logs, tmp_path, log={"time": "asked_at"})
    assert logs == [parts.artifacts.find("dataset/churn-predictions@v1").pinned]
    assert found["churned"].to_list() == ["yes", None, "maybe"]
    assert found["age"].to_list() == [41.5, None, 41.5]
    assert found["plan"].to_list() == ["pro", None, "gold"]
    assert (found["visits"].dtype, found["trial"].dtype) == (pl.Int64, pl.Boolean)
    assert found["asked_at"].to_list() == [START + timedelta(hours=each) for each in (0, 2, 3)]


def test_log_in_batches_is_one_table(
    open_parts: Open, logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_logs, "BATCH", 2)
    parts = open_parts(classifier(0, (0, 1)))
    ask(parts, *[{**ROW, "age": float(each)} for each in range(5)])
    parts.feedback.add(Statement("pred-3-0", "label", "1"))
    found = log_of(parts, logs, tmp_path)
    assert found["age"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found["churned"].to_list() == [None, None, None, 1, None]


def test_log_that_memory_would_not_hold_is_refused_or_its_latest_rows_taken(
    open_parts: Open, logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "MOST_ROWS", 2)
    parts = open_parts(classifier(0))
    ask(parts, *[{**ROW, "age": float(each)} for each in range(3)])
    with pytest.raises(InvalidRequest, match="'all' wants all 3 rows .* and 2 can be read"):
        retraining.run(parts, written(tmp_path))
    rolling = {"method": "rolling", "rows": 20}
    assert log_of(parts, logs, tmp_path, formation=rolling)["age"].to_list() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("made", "said", "learned"),
    [
        (classifier(0, (0, 1)), ("1", "0", "2", "one"), [1, 0, None, None]),
        (regressor(0), ("1", "0.5", "nan", "one"), [1.0, 0.5, None, None]),
    ],
    ids=["whole numbers", "amounts"],
)
def test_labels_are_those_of_the_data(
    open_parts: Open, logs: list[str], tmp_path: Path, made: Made, said: Any, learned: Any
) -> None:
    parts = open_parts(made)
    ask(parts, ROW, ROW, ROW, ROW)
    for place, label in enumerate(said):
        parts.feedback.add(Statement(f"pred-{place}-0", "label", label))
    assert log_of(parts, logs, tmp_path)["churned"].to_list() == learned


def test_categories_that_are_no_text_are_so_again(
    open_parts: Open, logs: list[str], tmp_path: Path
) -> None:
    made = classifier(0)
    inputs = list(made.model.inputs)
    inputs[1] = inputs[1].model_copy(update={"categories": (1, 2)})
    parts = open_parts(made)
    put(parts.artifacts, made, tmp_path / "2", inputs=tuple(inputs))
    ask(parts, {**ROW, "visits": "2"}, {**ROW, "visits": "x"})
    assert log_of(parts, logs, tmp_path)["visits"].to_list() == [2, None]


def test_what_cannot_be_a_log_is_refused(open_parts: Open, tmp_path: Path) -> None:
    parts = open_parts(classifier(0))
    with pytest.raises(InvalidRequest, match='models.keep = "inputs"'):
        retraining.run(parts, written(tmp_path))
    with pytest.raises(InvalidRequest, match="'age' is a column"):
        retraining.run(parts, written(tmp_path, log={"time": "age"}))
    view = JoinedView(
        rows="dataset/plans",
        key="customer",
        time="since",
        columns=("plan",),
        version="dataset/plans@v1",
        key_type="string",
        is_zoned=True,
    )
    put(parts.artifacts, classifier(0), tmp_path / "2", views=(view,), time="asked_at")
    parts.artifacts.tag("model/churn@v2", "production")
    with pytest.raises(InvalidRequest, match="keys and times"):
        retraining.run(parts, written(tmp_path))
    with pytest.raises(NotFound, match="drift"):
        retraining.run(parts, written(tmp_path), cause={"evidence": "evidence/drift@v1"})
    job = parts.jobs.registry.get("retrain").function
    with pytest.raises(InvalidRequest, match="name all of it"):
        job(None, spec="retraining.yaml")


@pytest.mark.parametrize("alias", [None, "other"])
def test_challenger_that_nobody_would_compare_is_refused_before_it_is_trained(
    open_parts: Open, tmp_path: Path, alias: str | None
) -> None:
    challengers = {} if alias is None else {"churn": {"alias": alias}}
    parts = open_parts(classifier(0), challengers=challengers)
    with pytest.raises(InvalidConfiguration, match="nobody compares 'challenger'"):
        retraining.run(parts, written(tmp_path, promotion={"to": "challenger"}))


def test_settings_of_the_page_make_a_loop(open_parts: Open, tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("### The loop, closed")[2]
    words, spec = re.findall(r"```text\n(.*?)```", section, re.DOTALL)[:2]
    sections = tomllib.loads(words)
    parts = open_parts(classifier(0), sections["watch"], **sections["models"])
    monitor, _ = monitors.opened(parts, "churn")
    assert monitor.trigger is not None
    file = tmp_path / "retraining.yaml"
    file.write_text(spec)
    ask(parts, ROW)
    with pytest.raises(NotFound, match=r"churn\.yaml"):
        retraining.run(parts, file)
