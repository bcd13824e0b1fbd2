"""Stored predictions are forgotten: by model, version, key, tenant or age, and with time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import polars as pl
import pytest
from sqlalchemy import Connection, Engine, event, func, select
from typer.testing import CliRunner

from classical_models import ROW, classifier, put, regressor
from infra.contracts import Interaction
from infra.database.prediction_tables import cached_prediction, prediction_batch
from infra.datasets.datasets import Datasets
from infra.model_settings import Cached, Models
from infra.settings import load_settings
from monitoring.interactions import Query
from service.cli.entry import app
from service.prediction import cached, loading
from service.prediction.cached import CachedPredictions
from service.prediction.forgetting import Forgetter, Retention, Wanted
from service.wiring import Components
from set_clock import TimeOfDay

pytestmark = pytest.mark.usefixtures("migrated_here")
MADE = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = [date(2026, 11, 1), date(2026, 11, 2)]
CUSTOMERS = (7, 8, 9)
"""Of each day."""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Components]:
    """Two models with stored predictions: `churn` by customer and day, `price` by customer."""
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    parts = Components(load_settings())
    put(parts.artifacts, classifier(0), tmp_path / "0")
    put(parts.artifacts, regressor(), tmp_path / "1", name="price")
    store(parts, "churn", Cached(key=("customer", "day")))
    store(parts, "churn", Cached(key=("customer", "day")), tenant="acme")
    store(parts, "price", Cached(key=("customer",)))
    yield parts
    parts.close()


def store(parts: Components, model: str, settings: Cached, *, tenant: str | None = None) -> None:
    loaded = loading.read(parts.artifacts, f"model/{model}@v1", Models())
    days = DAYS if "day" in settings.key else DAYS[:1]
    rows = [
        {"customer": who, "day": day, "prediction": "no", "probabilities": [0.5, 0.5]}
        for who in CUSTOMERS
        for day in days
    ]
    name = f"predictions/{model}-{tenant or 'all'}"
    made = Datasets(parts.artifacts).put(pl.DataFrame(rows), name)
    answers = CachedPredictions(parts.database, clock=TimeOfDay(MADE))
    number = answers.fill(loaded, settings, rows, job=f"job-{name}", tenant=tenant)
    answers.go_live(number, str(made))


def held(parts: Components) -> dict[tuple[str, str | None], int]:
    """Return how many rows are stored, by model and tenant."""
    batch, row = prediction_batch, cached_prediction
    counted = (
        select(batch.c.model, batch.c.tenant, func.count(row.c.key))
        .select_from(batch.outerjoin(row, row.c.batch_number == batch.c.number))
        .group_by(batch.c.model, batch.c.tenant)
    )
    with parts.database.read() as connection:
        return {(model, tenant): count for model, tenant, count in connection.execute(counted)}


ALL = {("churn", None): 6, ("churn", "acme"): 6, ("price", None): 3}


def forget(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["models", "forget", *words, "--json"])
    assert result.exit_code == code, (result.stdout, result.stderr)
    return json.loads(result.stdout) if code == 0 else result.stderr


def log(
    parts: Components, id: str, model: str, *, version: int = 1, keep: bool = True, **features: Any
) -> None:
    content = {"prediction": "no", "features": {**ROW, **features}} if keep else None
    add = parts.interactions.add
    add(
        Interaction(
            id=id,
            kind="prediction",
            at=MADE,
            model=model,
            outcome="answered",
            status=200,
            upstream=f"{model.removeprefix('model/')}@v{version}",
            content=content,
        )
    )


def test_erasing_a_key_reaches_every_batch_and_what_the_log_keeps(parts: Components) -> None:
    log(parts, "pred-1", "model/churn", customer=7)
    log(parts, "pred-2", "model/churn", customer="7")
    log(parts, "pred-3", "model/churn", customer=70)
    log(parts, "pred-4", "model/churn", keep=False)
    parts.interactions.flush()
    seen = forget("--key", "customer=7", "--dry-run")
    assert held(parts) == ALL
    done = forget("--key", "customer=7", "--yes")
    assert held(parts) == {("churn", None): 4, ("churn", "acme"): 4, ("price", None): 2}
    assert seen == {**done, "dry_run": True}
    assert [(each["rows"], each["is_whole"]) for each in done["stored"]] == [
        (2, False),
        (2, False),
        (1, False),
    ]
    assert done["logged"] == 2
    assert set(done["artifacts"]) == {
        "predictions/churn-all@v1",
        "predictions/churn-acme@v1",
        "predictions/price-all@v1",
    }
    assert content_kept(parts) == {"pred-3"}
    assert forget("--key", "customer=7", "--yes")["stored"] == []


def test_what_is_forgotten_is_chosen_by_model_version_tenant_age_and_whole_key(
    parts: Components,
) -> None:
    assert forget("churn@v2", "--yes")["stored"] == []
    assert forget("churn", "--before-days", "30000", "--yes")["stored"] == []
    assert held(parts) == ALL
    forget("churn", "--key", "customer=8", "--key", "day=2026-11-02", "--tenant", "acme", "--yes")
    assert held(parts) == {**ALL, ("churn", "acme"): 5}
    done = forget("model/churn@v1", "--tenant", "acme", "--before-days", "0", "--yes")
    assert [(each["model"], each["rows"], each["is_whole"]) for each in done["stored"]] == [
        ("model/churn@v1", 5, True)
    ]
    assert held(parts) == {("churn", None): 6, ("price", None): 3}


def content_kept(parts: Components) -> set[str]:
    return {each.id for each in parts.interactions.find(Query()) if each.content is not None}


def test_what_is_no_value_of_a_key_is_of_no_row(parts: Components) -> None:
    log(parts, "pred-1", "model/churn", customer=None)
    log(parts, "pred-2", "model/churn", customer="NaN")
    log(parts, "pred-3", "model/churn")
    parts.interactions.flush()
    assert forget("--key", "customer=NaN", "--yes")["logged"] == 1
    assert content_kept(parts) == {"pred-1", "pred-3"}


def test_what_another_version_was_asked_stays_in_the_log(parts: Components) -> None:
    log(parts, "pred-1", "model/churn", customer=7)
    log(parts, "pred-2", "model/churn", version=11, customer=7)
    log(parts, "pred-3", "model/churn", version=2, customer=7)
    parts.interactions.flush()
    assert forget("churn@v1", "--key", "customer=7", "--yes")["logged"] == 1
    assert content_kept(parts) == {"pred-2", "pred-3"}


def test_a_key_is_not_forgotten_while_some_of_the_log_on_disk_cannot_be_read(
    parts: Components,
) -> None:
    (parts.settings.data_folder / "interactions" / "0.spool").mkdir(parents=True)
    assert "on disk, unread" in forget("--key", "customer=7", "--yes", code=1)
    assert held(parts) == ALL  # nothing was begun
    assert len(forget("price", "--yes")["stored"]) == 1  # of which the log keeps nothing


def test_a_part_of_a_key_needs_the_artifact_that_says_the_rest(parts: Components) -> None:
    parts.artifacts.expire("predictions/churn-all@v1")
    told = forget("churn", "--key", "customer=7", "--yes", code=1)
    assert "churn-all@v1 is gone" in told
    assert "'customer', 'day'" in told
    assert held(parts) == ALL  # nothing was begun
    forget("churn", "--key", "customer=7", "--key", "day=2026-11-01", "--yes")
    assert held(parts)["churn", None] == 5


def test_a_batch_is_gone_for_good_once_that_is_said(
    parts: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_for_disk = []

    def committed(connection: Connection) -> None:
        waits_for_disk.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2)

    monkeypatch.setattr(cached, "WRITTEN", 2)
    event.listen(Engine, "commit", committed)
    try:
        parts.forgetter.forget(Wanted(model="price"))
    finally:
        event.remove(Engine, "commit", committed)
    assert held(parts) == {each: rows for each, rows in ALL.items() if each[0] == "churn"}
    assert waits_for_disk == [False, False, True]  # two rows, one row, the batch


def test_nothing_in_particular_is_not_forgotten(parts: Components) -> None:
    assert "MODEL, --key or --before-days" in forget("--yes", code=1)
    assert "'customer' is no COLUMN=VALUE" in forget("--key", "customer", "--yes", code=1)
    assert "'churn@latest' is neither" in forget("churn@latest", "--yes", code=1)
    twice = forget("--key", "customer=7", "--key", "customer=8", "--yes", code=1)
    assert "'customer' is given twice" in twice
    assert held(parts) == ALL
    shown = CliRunner().invoke(app, ["models", "forget", "price", "--dry-run"])
    assert "Would forget 3 stored predictions" in shown.stderr
    asked = CliRunner().invoke(app, ["models", "forget", "price"], input="n\n")
    assert (asked.exit_code, held(parts)) == (1, ALL)
    assert "Forget 3 stored predictions" in asked.stderr


def test_stored_predictions_go_with_age_and_with_their_artifact(parts: Components) -> None:
    clock = TimeOfDay(MADE + timedelta(days=30))
    forgetter = Forgetter(
        parts.database, parts.cached_predictions, artifacts=lambda: parts.artifacts, clock=clock
    )
    options = Models(cached={"price": Cached(key=("customer",), max_age_seconds=86_400 * 30.0)})
    assert forgetter.expire(options) == 0
    clock.now += timedelta(seconds=1)
    assert forgetter.expire(options) == 1  # nothing answers by it any more
    assert ("price", None) not in held(parts)
    parts.artifacts.expire("predictions/churn-acme@v1")
    retention = Retention(lambda: forgetter, options)
    anyio.run(retention.look)
    assert held(parts) == {("churn", None): 6}
    clock.now = MADE + timedelta(days=90)
    assert forgetter.expire(options) == 0
    clock.now += timedelta(seconds=1)
    assert forgetter.expire(options) == 1
    assert held(parts) == {}
