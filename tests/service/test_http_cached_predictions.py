"""Predictions that a job stored answer requests by key: its own model, tenant and age alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

import classical_models
from classical_models import ROW, classifier, put, regressor
from infra.database.engine import Database
from infra.database.prediction_tables import cached_prediction, prediction_batch
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from infra.jobs.definitions import Options as Jobs
from infra.model_settings import Cached
from infra.settings import load_settings
from migrated import open_migrated, put_schema
from service.app import create_app
from service.prediction import loading
from service.prediction.cached import WRITTEN, CachedPredictions
from service.prediction.loading import Loaded
from service.wiring import Components
from set_clock import TimeOfDay
from surroundings import no_settings_from_outside
from waiting import until

ROWS = [{"customer": at, **row} for at, row in enumerate(classical_models.rows(20, seed=8))]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("cached")
    put_schema(folder / "data" / "ragstone.db")
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, folder)
        settings = load_settings(
            data_folder=folder / "data",
            retrieval={"embedder": "hashing"},
            generation={"engine": "echo"},
            models={
                "watch_seconds": 3600.0,
                "cached": {
                    "churn": {"key": ["customer"]},
                    "price": {"key": ["customer"], "unknown": "refuse"},
                },
            },
        )
        parts = Components(settings)
    with TestClient(create_app(parts), base_url="http://127.0.0.1") as client:
        put(parts.artifacts, classifier(0), folder / "0")
        put(parts.artifacts, regressor(), folder / "1", name="price")
        Datasets(parts.artifacts).put(pl.DataFrame(ROWS), "customers")
        for name in ("churn", "price"):
            assert client.post(f"/v2/repository/models/{name}/load").status_code == 200
        yield client


def parts_of(client: TestClient) -> Components:
    found: Components = client.app.state.components  # type: ignore[attr-defined]
    return found


def store(client: TestClient, model: str, data: str = "customers", **more: Any) -> Any:
    parts = parts_of(client)
    asked = {"model": model, "data": data, "name": model, "cache": True}
    job = parts.jobs.start("predict", asked, **more)
    until(lambda: parts.jobs.get(job.id).is_finished)
    return parts.jobs.get(job.id)


def predict(client: TestClient, model: str, *rows: Any, **more: Any) -> Any:
    return client.post("/v1/predict", json={"model": model, "rows": list(rows), **more})


def test_a_request_by_key_is_answered_from_the_database(served: TestClient) -> None:
    assert predict(served, "churn", {"customer": 3}).status_code == 400  # it lacks its columns
    computed = predict(served, "churn", ROWS[3], ROWS[7]).json()
    assert "stored" not in computed
    job = store(served, "churn")
    assert job.state == "succeeded", job.error
    answer = predict(served, "churn", {"customer": 3}, {"customer": 7.0})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["model"] == "model/churn@v1"
    assert told["stored"]["predictions"] == job.result["artifact"] == "predictions/churn@v1"
    assert datetime.fromisoformat(told["stored"]["at"]) <= datetime.now(UTC)
    for found, wanted in zip(told["predictions"], computed["predictions"], strict=True):
        assert found["prediction"] == wanted["prediction"]
        assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
    parts_of(served).interactions.flush()
    kept = served.get(f"/v1/interactions/{told['predictions'][1]['id']}").json()
    assert (kept["tag"], kept["content"]["stored"]) == ("stored", "predictions/churn@v1")


def test_what_is_unknown_or_is_to_be_computed_is_computed(served: TestClient) -> None:
    store(served, "churn")
    for asked in ([{**ROW, "customer": 99}], [ROWS[1], {**ROW, "customer": None}]):
        assert "stored" not in predict(served, "churn", *asked).json()
    assert "stored" in predict(served, "churn", ROWS[1]).json()
    assert "stored" not in predict(served, "churn", ROWS[1], stored=False).json()
    assert "stored" not in predict(served, "churn", ROWS[1], explain=False, stored=False).json()
    assert predict(served, "churn", ROWS[1], stored=1).status_code == 400


def test_a_key_without_a_prediction_is_not_found_where_none_is_to_be_computed(
    served: TestClient,
) -> None:
    refused = predict(served, "price", ROWS[0])
    assert refused.status_code == 404
    assert "of price@v1 that is in force" in refused.json()["error"]["message"]
    store(served, "price")
    answer = predict(served, "price", {"customer": 0}).json()
    wanted = predict(served, "price", ROWS[0], stored=False).json()["predictions"][0]
    assert answer["predictions"][0]["prediction"] == pytest.approx(wanted["prediction"], rel=1e-6)
    refused = predict(served, "price", {"customer": 0}, {"customer": "0"})
    assert refused.status_code == 404
    assert "row 1, {'customer': '0'}" in refused.json()["error"]["message"]


def test_a_new_batch_takes_over_as_a_whole(served: TestClient) -> None:
    store(served, "price")
    parts = parts_of(served)
    twice = pl.DataFrame([*ROWS[10:], ROWS[10]])
    Datasets(parts.artifacts).put(twice, "twice")
    job = store(served, "price", "twice")
    assert "Two rows have the same 'customer'" in str(job.error)
    assert predict(served, "price", {"customer": 0}).json()["stored"]
    Datasets(parts.artifacts).put(pl.DataFrame(ROWS[10:]), "some")
    store(served, "price", "some")
    assert predict(served, "price", {"customer": 0}).status_code == 404
    assert predict(served, "price", {"customer": 10}).json()["stored"]
    with parts.database.read() as connection:
        mine = prediction_batch.c.model == "price"
        batches = connection.execute(select(prediction_batch).where(mine)).all()
        count = connection.scalar(
            select(func.count()).where(cached_prediction.c.batch_number == batches[0].number)
        )
    assert ([each.is_live for each in batches], count) == ([True], 10)


def test_a_job_of_a_tenant_answers_nobody_else(served: TestClient) -> None:
    own = store(served, "churn").result["artifact"]
    parts = parts_of(served)
    Datasets(parts.artifacts).put(pl.DataFrame(ROWS[:2]), "few")
    job = store(served, "churn", "few", options=Jobs(tenant="acme"))
    assert job.result["artifact"] != own
    assert predict(served, "churn", {"customer": 0}).json()["stored"]["predictions"] == own
    with parts.database.read() as connection:
        live = select(prediction_batch.c.tenant).where(prediction_batch.c.model == "churn")
        assert {*connection.scalars(live.where(prediction_batch.c.is_live))} == {None, "acme"}


def test_jobs_that_cannot_be_answered_from_are_refused_before_they_predict(
    served: TestClient,
) -> None:
    parts = parts_of(served)
    Datasets(parts.artifacts).put(pl.DataFrame(ROWS).drop("customer"), "nameless")
    assert "lack 'customer'" in str(store(served, "churn", "nameless").error)
    put(parts.artifacts, regressor(), parts.settings.data_folder / "made", name="other")
    assert "Set models.cached.other.key" in str(store(served, "other").error)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Loaded]:
    """Two versions of a model."""
    from infra.artifacts.store import open_store
    from infra.model_settings import Models

    folder = tmp_path_factory.mktemp("versions")
    database = open_migrated(folder / "ragstone.db")
    made = open_store(folder / "artifacts", database)
    for seed in (0, 1):
        put(made, classifier(seed), folder / str(seed))
    found = {name: loading.read(made, f"model/churn@{name}", Models()) for name in ("v1", "v2")}
    database.close()
    return found


def test_other_tenants_versions_ages_and_keys_are_not_answered(
    loaded: Mapping[str, Loaded], database: Database
) -> None:
    clock = TimeOfDay()
    cached = CachedPredictions(database, clock=clock)
    settings = Cached(key=("who", "day"), max_age_seconds=60.0)
    first, second = loaded["v1"], loaded["v2"]
    asked = {"who": "a", "day": "2026-01-01"}
    said = {**asked, "day": datetime(2026, 1, 1).date(), "prediction": "yes"}  # noqa: DTZ001
    rows = [{**said, "probabilities": [0.25, 0.75]}]

    def find(by: Loaded = first, how: Cached = settings, tenant: str | None = "acme") -> Any:
        found = cached.find(by, how, [asked], tenant=tenant)
        return found and found.rows

    number = cached.fill(first, settings, rows, job="job-1", tenant="acme")
    assert find() is None  # it is not in force yet
    cached.go_live(number, "predictions/churn@v1")
    assert find() == [{"prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}]
    assert find(tenant=None) is find(tenant="other") is find(second) is None
    assert find(second, settings.model_copy(update={"other_versions": True})) == find()
    assert find(how=settings.model_copy(update={"key": ("day", "who")})) is None
    clock.now += timedelta(seconds=60)
    assert find()
    clock.now += timedelta(seconds=1)
    assert find() is None
    with pytest.raises(NotFound, match=r"of churn@v1 that is in force"):
        find(how=settings.model_copy(update={"unknown": "refuse"}))
    with pytest.raises(InvalidRequest, match="has no key .*'who': None"):
        cached.fill(first, settings, [{**rows[0], "who": None}], job="job-2", tenant=None)
    cached.sweep(lambda job: job == "job-2")
    with database.read() as connection:
        assert connection.scalars(select(prediction_batch.c.job)).all() == ["job-1"]


def test_a_batch_takes_the_place_of_the_one_before_and_one_of_twins_changes_nothing(
    loaded: Mapping[str, Loaded], database: Database
) -> None:
    cached, settings, model = CachedPredictions(database), Cached(key=("who",)), loaded["v1"]

    def rows(*who: Any) -> list[dict[str, Any]]:
        return [{"who": each, "prediction": "no", "probabilities": [0.5, 0.5]} for each in who]

    def knows(who: Any) -> bool:
        return cached.find(model, settings, [{"who": who}], tenant=None) is not None

    many = range(WRITTEN + 1)
    cached.go_live(cached.fill(model, settings, rows(*many), job="1", tenant=None), "predictions/a")
    assert [knows(each) for each in (0, WRITTEN, float(WRITTEN), -1)] == [True, True, True, False]
    with pytest.raises(InvalidRequest, match="Two rows have the same 'who'"):
        cached.fill(model, settings, rows("a", "b", "a"), job="2", tenant=None)
    with pytest.raises(InvalidRequest, match="Two rows have the same 'who'"):
        cached.fill(model, settings, rows(*many, 0), job="2", tenant=None)
    assert knows(WRITTEN)
    cached.go_live(cached.fill(model, settings, rows("a"), job="2", tenant=None), "predictions/b")
    assert [knows(each) for each in ("a", 0, WRITTEN)] == [True, False, False]
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(cached_prediction)) == 1
        assert connection.scalars(select(prediction_batch.c.job)).all() == ["2"]


DAY = date(2026, 1, 31)
MORNING = datetime(2026, 1, 31, 9)  # noqa: DTZ001
TIMES: list[tuple[Any, list[Any], list[Any]]] = [
    (
        MORNING.replace(tzinfo=UTC),
        ["2026-01-31T09:00:00Z", "2026-01-31T09:00:00.000+00:00", "2026-01-31T10:00:00+01:00"],
        ["2026-01-31T09:00:00", "2026-01-31T09:00:01Z", "2026-01-31T09:00Zulu", 5, None, ""],
    ),
    (
        MORNING,
        ["2026-01-31T09:00:00", "2026-01-31 09:00"],
        ["2026-01-31T09:00:00Z", "2026-01-31"],
    ),
    (DAY, ["2026-01-31", "2026-01-31T00:00:00"], ["2026-01-31T00:00:00Z", "2026-02-01"]),
    ("2026-01-31T09:00:00Z", ["2026-01-31T09:00:00Z"], ["2026-01-31T09:00:00+00:00"]),
    ("20260131", ["20260131"], ["2026-01-31", 20260131]),
]
"""What a batch holds, what finds it, and what does not."""


def test_a_time_in_a_key_is_found_however_it_is_written_and_text_as_it_is(
    loaded: Mapping[str, Loaded], database: Database
) -> None:
    cached, settings, model = CachedPredictions(database), Cached(key=("at", "n")), loaded["v1"]

    def knows(at: Any) -> bool:
        return cached.find(model, settings, [{"at": at, "n": 1.0}], tenant=None) is not None

    for stored, found, unknown in TIMES:
        row = {"at": stored, "n": 1, "prediction": "no", "probabilities": [0.5, 0.5]}
        number = cached.fill(model, settings, [row], job=str(stored), tenant=None)
        cached.go_live(number, "predictions/a")
        assert [at for at in (*found, *unknown) if knows(at)] == found
