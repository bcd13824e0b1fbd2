"""Feature views: requests get the features that training had, from the newest version in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import accounts
import feast_made
from evals.trial import Case, Output
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from infra.feature_views import FeatureView
from scripted_evals import suite
from service.app import create_app
from service.cli.entry import app
from service.evaluation import evaluating
from service.models import batch_predicting, batch_scoring, model_gates
from service.prediction import loading
from service.prediction.joining import Joins
from service.prediction.views import Views
from service.wiring import Components
from training import classical, retrain
from training.tabular import columns, fitting, joining
from training.tabular.open_views import OpenViews
from training.tabular.opened import open_model
from waiting import until

pytest.importorskip("skl2onnx")
FEW = accounts.accounts(days=3)
LONGER = accounts.accounts(days=50)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory, parts_in: Callable[..., Components]
) -> Components:
    """A store with both tables and the model `orders`."""
    folder = tmp_path_factory.mktemp("views")
    components = parts_in(folder, models={"keep": "inputs", "watch_seconds": 3600.0})
    accounts.put(components.artifacts)
    around = classical.Around(folder, store=components.artifacts)
    classical.train(classical.parse(accounts.asked()), folder / "run", around)
    return components


@pytest.fixture(scope="module")
def served(parts: Components) -> Iterator[TestClient]:
    application = create_app(parts)
    with TestClient(
        application, base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        assert client.post("/v2/repository/models/orders/load").status_code == 200
        yield client


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    asked = frame.select("customer", "at", "amount").to_dicts()
    return [{**row, "at": row["at"].isoformat()} for row in asked]


def predict(client: TestClient, *rows: dict[str, Any]) -> Any:
    return client.post("/v1/predict", json={"model": "orders", "rows": list(rows)})


def put_view(parts: Components, frame: pl.DataFrame) -> str:
    return str(Datasets(parts.artifacts).put(frame, "accounts"))


def refresh(client: TestClient, parts: Components) -> None:
    assert client.portal is not None
    client.portal.call(parts.models.refresh)


def test_requests_get_the_features_and_answers_of_training(
    served: TestClient, parts: Components, tmp_path: Path
) -> None:
    spec = classical.parse(accounts.asked())
    orders = accounts.orders()
    shared = OpenViews(folder=tmp_path, datasets=Datasets(parts.artifacts))
    views = shared.open(spec.data.features)
    offline, told = joining.join(orders, views, "at")
    opened = open_model(parts.artifacts, "model/orders@v1", tmp_path / "model")
    encoded = columns.encoded(offline, opened.file.inputs)
    loaded = loading.read(parts.artifacts, "model/orders@v1", parts.settings.models)
    online = loaded.reader.of_rows(rows_of(orders))
    assert list(online.columns) == encoded.columns
    assert {*online.columns} == {"amount", "balance", "logins", "segment"}
    for name, values in online.columns.items():
        wanted = encoded[name].to_numpy()
        if values.dtype == np.float64:
            assert values.tobytes() == wanted.tobytes(), name
        else:
            assert values.tolist() == wanted.tolist(), name

    answer = predict(served, *rows_of(orders)).json()
    assert answer["views"] == {"dataset/accounts": "dataset/accounts@v1"}
    missed = [each for each in answer["warnings"] if each["column"] == "customer"]
    assert len(missed) == sum(told[0].missed.values()) > 0
    assert {each["kind"] for each in missed} == {"unknown_key", "too_early", "too_old"}
    direct = loaded.runtime.run({name: encoded[name].to_numpy() for name in encoded.columns})
    found = [list(each["probabilities"].values()) for each in answer["predictions"]]
    assert found == direct.tolist()
    by_pipeline = fitting.ask(opened.pipeline, encoded, opened.file.classes)
    labels = [("failed", "paid")[at] for at in by_pipeline.argmax(axis=1)]
    assert [each["prediction"] for each in answer["predictions"]] == labels
    nanoseconds = pl.col("at").dt.cast_time_unit("ns")
    batch = (
        orders.select("customer", nanoseconds, "amount").to_arrow().combine_chunks().to_batches()[0]
    )
    scored = batch_scoring.scored(loaded, batch)
    assert scored["probabilities"].to_pylist() == found
    assert opened.losses(orders).tolist() == opened.losses(offline).tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"at": pa.array([0, 2**60], pa.timestamp("ms", "UTC"))},
            "'at', row 1: .* beyond the year",
        ),
        ({"at": pa.array([0, 2**30], pa.date32())}, "'at', row 1: 1,073,741,824 days since 1970"),
        ({"at": pa.array([1.5, float("nan")])}, "'at', row 0: 1.5 is no time"),
        ({"customer": pa.array([1.5, float("nan")])}, "Row 0: 'customer' is 1.5, and the keys"),
        ({"customer": pa.array([0, 2**60], pa.timestamp("ms"))}, "'customer' holds timestamp.ms."),
    ],
)
def test_tables_with_strange_keys_or_times_are_refused(
    parts: Components, changes: dict[str, Any], words: str
) -> None:
    loaded = loading.read(parts.artifacts, "model/orders@v1", parts.settings.models)
    good = {"customer": ["c1", "c2"], "amount": [1.0, 2.0], "at": [datetime(2026, 1, 20)] * 2}  # noqa: DTZ001
    batch = pa.RecordBatch.from_pydict({**good, **changes})
    with pytest.raises(InvalidRequest, match=f"In the 2 rows from 40 on: .*{words}"):
        batch_scoring.scored(loaded, batch, first=40)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_table_whose_rows_lack_times_is_refused_before_any_is_predicted(
    parts: Components, tmp_path: Path, ending: str
) -> None:
    loaded = loading.read(parts.artifacts, "model/orders@v1", parts.settings.models)
    rows = accounts.orders(3).select("customer", "amount", pl.col("at").dt.strftime("%+"))
    source, output = tmp_path / f"rows{ending}", tmp_path / "scored.parquet"

    def refused(frame: pl.DataFrame, words: str) -> None:
        frame.write_parquet(source) if ending == ".parquet" else frame.write_csv(source)
        with pytest.raises(InvalidRequest, match=words):
            batch_predicting.predict_file(loaded, source, output)
        assert list(tmp_path.iterdir()) == [source]

    refused(rows.drop("at"), "have no column 'at', as of which model/orders@v1 joins dataset/acc")
    gap = pl.Series("at", [*rows["at"][:2], None])
    refused(rows.with_columns(gap), "In the 3 rows from 0 on: Row 2 has no time in 'at', as of")
    refused(rows.with_columns(at=1.5), "In the 3 rows from 0 on: The column 'at', row 0: 1.5 is no")
    rows.write_parquet(source) if ending == ".parquet" else rows.write_csv(source)
    assert batch_predicting.predict_file(loaded, source, output) == 3


def test_a_job_over_a_dataset_whose_rows_lack_times_is_refused(
    served: TestClient, parts: Components
) -> None:
    Datasets(parts.artifacts).put(accounts.orders(5).with_columns(at=None), "timeless")
    job = parts.jobs.start("predict", {"model": "orders", "data": "timeless", "name": "timeless"})
    until(lambda: parts.jobs.get(job.id).is_finished)
    assert "Row 0 has no time in 'at', as of which" in str(parts.jobs.get(job.id).error)
    assert not parts.artifacts.names("predictions")


def test_a_case_of_an_evaluation_is_of_its_own_time_and_never_of_today(parts: Components) -> None:
    kind = {"kind": "classical", "model": "orders", "version": "v1"}
    target = evaluating.open_target(parts, suite(target=kind), Path())
    (row,) = rows_of(accounts.orders(1))

    def ask(**changes: Any) -> Output:
        return asyncio.run(target(Case("7", {**row, **changes}), seed=0))

    assert {*ask().prediction} == {"failed", "paid"}
    words = "Case '7' has no time in 'at', as of which model/orders@v1 joins dataset/accounts"
    for missing in (None, ""):
        with pytest.raises(InvalidRequest, match=words):
            ask(at=missing)
    del row["at"]
    with pytest.raises(InvalidRequest, match=words):
        ask()


def test_a_row_without_a_time_is_of_this_moment(parts: Components) -> None:
    loaded = loading.read(parts.artifacts, "model/orders@v1", parts.settings.models)
    joins = loaded.reader.joins
    assert joins is not None
    joins._clock = lambda: datetime(2026, 1, 20, tzinfo=UTC)
    now, then = loaded.reader.of_rows(
        [
            {"customer": "c1", "amount": 9.5},
            {"customer": "c1", "amount": 9.5, "at": "2026-01-20T01:00:00+01:00"},
        ]
    ), loaded.reader.of_values(1, {"customer": ["c1"], "amount": [9.5]})  # fmt: skip
    for name in ("balance", "logins", "segment"):
        first, second = now.columns[name].tolist()
        assert first == second == then.columns[name].tolist()[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"amount": 1.0}, "Row 0 lacks 'customer', the key by which dataset/accounts is joined"),
        ({"customer": 7, "amount": 1.0}, "'customer' is 7, and the keys of dataset/accounts@v1"),
        ({"customer": "c1", "amount": 1.0, "at": "now"}, "'now' is no time"),
        ({"customer": "c1", "amount": 1.0, "at": 5}, "The column 'at', row 0: 5 is no time"),
        ({"customer": "c1", "amount": 1.0, "at": True}, "row 0: True is no time"),
        ({"customer": "c1", "amount": 1.0, "at": "2026-13-01"}, "row 0: '2026-13-01' is no time"),
        ({"customer": "c1", "amount": 1.0, "at": "10000-01-01"}, "row 0: '10000-01-01' is no time"),
        ({"customer": ["c1"], "amount": 1.0}, "Row 0: 'customer' is ['c1'], and the keys of"),
        ({"customer": "c1", "amount": 1.0, "at": "2026-01-20T00:00:00"}, "have none"),
        ({"customer": "c1", "amount": 1.0, "logins": 3}, "'logins', which the model takes from"),
        ({"customer": "c1", "amount": 1.0, "note": "n"}, "no column 'note'"),
        ({"customer": "c1"}, "lacks 'amount'"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(
    served: TestClient, row: dict[str, Any], words: str
) -> None:
    answer = predict(served, row)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


def test_tensors_are_joined_as_rows_are(served: TestClient) -> None:
    asked = served.get("/v2/models/orders").json()["inputs"]
    assert [(each["name"], each["datatype"]) for each in asked] == [
        ("amount", "FP64"), ("customer", "BYTES"), ("at", "BYTES"),
    ]  # fmt: skip
    row = {"amount": 12.5, "customer": "c3", "at": "2026-01-20T00:00:00Z"}
    inputs = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1, 1],
         "data": [row[each["name"]]]}
        for each in asked
    ]  # fmt: skip
    outputs = served.post("/v2/models/orders/infer", json={"inputs": inputs}).json()["outputs"]
    wanted = predict(served, row).json()["predictions"][0]["probabilities"]
    found = next(each["data"] for each in outputs if each["name"] == "probabilities")
    assert np.float32(found).tolist() == np.float32(list(wanted.values())).tolist()


def test_many_rows_are_read_and_joined_off_the_loop(
    served: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.portal is not None
    loop, run = served.portal.call(threading.get_ident), Joins.run
    is_off: list[bool] = []

    def noted(self: Joins, rows: int, given: dict[str, Any]) -> Any:
        is_off.append(threading.get_ident() != loop)
        return run(self, rows, given)

    monkeypatch.setattr(Joins, "run", noted)
    row = {"amount": 12.5, "customer": "c3", "at": "2026-01-20T00:00:00Z"}
    kinds = {"amount": "FP64", "customer": "BYTES", "at": "BYTES"}
    answers = []
    for count in (2, 500):
        answers.append(predict(served, *[row] * count))
        inputs = [
            {"name": name, "datatype": kind, "shape": [count, 1], "data": [row[name]] * count}
            for name, kind in kinds.items()
        ]
        answers.append(served.post("/v2/models/orders/infer", json={"inputs": inputs}))
    assert [each.status_code for each in answers] == [200] * 4
    assert is_off == [False, False, True, True]


def test_what_is_shown_and_kept_names_the_view(served: TestClient, parts: Components) -> None:
    answer = predict(served, {"customer": "c1", "amount": 1.0, "at": "2026-01-20T00:00:00Z"}).json()
    parts.interactions.flush()
    found = served.get(f"/v1/interactions/{answer['predictions'][0]['id']}").json()
    assert found["content"]["views"] == {"dataset/accounts": "dataset/accounts@v1"}
    assert set(found["content"]["features"]) == {"amount", "balance", "logins", "segment"}
    assert "dataset/accounts@v1" in str(parts.artifacts.lineage("model/orders@v1"))
    folder = str(parts.settings.data_folder)
    told = CliRunner().invoke(
        app, ["models", "show", "orders", "--json"], env={"RAGSTONE_DATA_FOLDER": folder}
    )
    shown = json.loads(told.stdout)
    assert [each["name"] for each in shown["inputs"]] == ["amount", "customer", "at"]
    (view,) = shown["views"]
    assert (view["view"], view["key"], view["rows"]) == ("dataset/accounts@v1", "customer", 215)
    assert view["columns"] == ["balance", "logins", "segment"]
    words = CliRunner().invoke(
        app, ["models", "show", "orders"], env={"RAGSTONE_DATA_FOLDER": folder}
    )
    assert "joined from" in words.stdout
    with parts.artifacts.open("model/orders@v1", "card.md") as card:
        row = next(line for line in card.read().decode().split("\n") if "dataset/accounts" in line)
    with parts.artifacts.open("model/orders@v1", "evaluation.json") as file:
        (joined,) = json.load(file)["joined"]
    names = "`balance`, `logins`, `segment`"
    missed = sum(joined["missed"].values())
    assert row == f"| dataset/accounts@v1 | customer | {names} | 3600 | 864000 | {missed} |"
    pinned = batch_predicting._pin(parts, "orders", "dataset/orders")["views"]
    assert pinned == {"dataset/accounts": parts.artifacts.find("dataset/accounts@v1").pinned}


def test_a_newer_version_takes_over_unless_it_is_not_what_was_trained_with(
    served: TestClient, parts: Components
) -> None:
    late = {"customer": "c1", "amount": 1.0, "at": "2026-02-19T00:00:00Z"}
    before = predict(served, late).json()
    gone = put_view(parts, LONGER.drop("logins"))
    refresh(served, parts)
    assert predict(served, late).json()["views"] == before["views"]
    standing = next(each for each in parts.models.standings() if each.name == "orders")
    assert f"{gone} has no column 'logins', which the model takes from it" in standing.reason
    newest = put_view(parts, LONGER)
    refresh(served, parts)
    after = predict(served, late).json()
    assert after["views"] == {"dataset/accounts": newest}
    assert after["predictions"][0]["probabilities"] != before["predictions"][0]["probabilities"]
    assert next(each for each in parts.models.standings() if each.name == "orders").reason == ""


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FEW[:1].with_columns(id=1), "keys of .* are int64, and those of dataset/accounts@v1"),
        (FEW.with_columns(pl.col("known").dt.replace_time_zone(None)), "have no time zone"),
        (FEW.with_columns(segment=1), "'segment' of .* holds Int32, and the model was trained wit"),
        (FEW.with_columns(logins=pl.lit("a")), "'logins' of .* holds String"),
        (pl.concat([FEW, FEW.with_columns(balance=1.0)]), "share key and time"),
        (FEW.with_columns(balance=float("inf")), "dataset/accounts.*Row 0: 'balance' is not fin"),
        (FEW[:0], "has no row"),
    ],
)
def test_a_version_of_other_types_is_refused(
    parts: Components, frame: pl.DataFrame, words: str
) -> None:
    model = loading.described(parts.artifacts, "model/orders@v1")
    views = Views(lambda: parts.artifacts, 1 << 20)
    with pytest.raises(InvalidRequest, match=words):
        views.open(model, {"dataset/accounts": put_view(parts, frame)})


def test_a_required_view_refuses_rows_without_values(parts: Components) -> None:
    model = loading.described(parts.artifacts, "model/orders@v1")
    needed = [each.model_copy(update={"required": True}) for each in model.views]
    model = model.model_copy(update={"views": tuple(needed)})
    views = Views(lambda: parts.artifacts, 1 << 20)
    joins = Joins(model, views.open(model, {"dataset/accounts": "dataset/accounts@v1"}))
    words = r"Row 1: dataset/accounts@v1 has no values of customer 'c99' .* \(unknown_key\)"
    with pytest.raises(InvalidRequest, match=words):
        joins.run(2, {"customer": ["c1", "c99"], "at": ["2026-01-20T00:00:00Z"] * 2})


def test_views_have_bounded_memory_and_are_shared(parts: Components) -> None:
    model = loading.described(parts.artifacts, "model/orders@v1")
    pins = {"dataset/accounts": "dataset/accounts@v1"}
    views = Views(lambda: parts.artifacts, 1 << 20)
    (live,) = views.open(model, pins)
    inputs = tuple(each.model_copy(update={"high": None}) for each in model.inputs)
    retrained = model.model_copy(update={"inputs": inputs})
    assert views.open(retrained, pins) == (live,)
    assert 0 < views.size_bytes < 1 << 20
    with pytest.raises(InvalidRequest, match=r"bytes or more in memory.*models\.view_bytes"):
        Views(lambda: parts.artifacts, 1_000).open(model, pins)
    del live
    assert len(views) == 0


def test_rows_of_one_key_and_other_times_are_told_apart(parts: Components, tmp_path: Path) -> None:
    opened = open_model(parts.artifacts, "model/orders@v1", tmp_path / "model")
    held = opened.held_out.select("customer", "at", "amount", "outcome")
    later = held.with_columns(pl.col("at") + timedelta(microseconds=1))
    elsewhere = held.with_columns(customer=pl.lit("c77"))
    assert opened.others(pl.concat([held, later, elsewhere])).equals(pl.concat([later, elsewhere]))
    as_text = pl.concat([later, held]).with_columns(pl.col("at").dt.strftime("%+"))
    assert len(opened.others(as_text)) == len(later)


def test_views_of_a_feast_repository_are_joined_in_training_and_for_requests(
    served: TestClient, parts: Components, tmp_path: Path
) -> None:
    feast_made.lay_out(tmp_path / "features")
    asked = accounts.asked()
    asked["data"] |= {
        "features": [],
        "feast": [
            {
                "repository": "features",
                "service": "risk",
                "row_keys": {"id": "customer"},
                "full_names": True,
                "lag_seconds": 3600,
            }
        ],
    }
    asked["register"]["name"] = "feasted"
    told: list[str] = []
    around = classical.Around(tmp_path, parts.artifacts, note=told.append)
    classical.train(classical.parse(asked), tmp_path / "run", around)
    assert "the feature view 'accounts' of Feast is dataset/shop.accounts@v1" in told
    model = loading.described(parts.artifacts, "model/feasted@v1")
    assert [(each.rows, each.ttl_seconds) for each in model.views] == [
        ("dataset/shop.accounts", 864_000.0), ("dataset/shop.visits", None),
    ]  # fmt: skip
    assert model.joined == {"accounts__segment", "accounts__balance", "visits__visits"}
    rows = accounts.orders(60)
    loaded = loading.read(parts.artifacts, "model/feasted@v1", parts.settings.models)
    online = loaded.reader.of_rows(rows_of(rows)).columns
    shared = OpenViews(folder=tmp_path, datasets=Datasets(parts.artifacts))
    offline, _ = joining.join(rows, shared.open(model.views), "at")
    encoded = columns.encoded(offline, model.inputs)
    assert {name: values.tolist() for name, values in online.items()}.keys() == {*encoded.columns}
    for name, values in online.items():
        np.testing.assert_array_equal(values, encoded[name].to_numpy())

    LONGER.write_parquet(tmp_path / "features" / "data" / "accounts.parquet")
    put = ["datasets", "feast", str(tmp_path / "features"), "accounts", "visits", "--json"]
    said = CliRunner().invoke(
        app, put, env={"RAGSTONE_DATA_FOLDER": str(parts.settings.data_folder)}
    )
    found = [each["reference"] for each in json.loads(said.stdout)]
    assert found == ["dataset/shop.accounts@v2", "dataset/shop.visits@v1"]


def test_a_view_is_read_once_by_the_columns_that_are_asked_for(
    parts: Components, tmp_path: Path
) -> None:
    shared = OpenViews(folder=tmp_path, datasets=Datasets(parts.artifacts))
    view = FeatureView.model_validate({**accounts.VIEW, "columns": ["balance"]})
    before = put_view(parts, FEW)
    (first,) = shared.open([view])
    assert first.rows.frame.columns == ["id", "known", "balance"]
    put_view(parts, LONGER)
    more = FeatureView.model_validate(accounts.VIEW)
    needed = view.model_copy(update={"required": True})
    again, other = shared.open([needed, more])
    assert again.index is first.index
    assert other.rows.frame.columns == ["id", "known", "balance", "logins", "segment"]
    assert other.rows.frame.equals(FEW.select(other.rows.frame.columns))
    assert {each.rows.name for each in (first, again, other)} == {before}
    with pytest.raises(NotFound, match=f"column of {before} 'balances'.*'balance'"):
        shared.open([view.model_copy(update={"columns": ("balances",)})])


def test_a_retraining_joins_views_to_the_log(parts: Components, tmp_path: Path) -> None:
    put_view(parts, accounts.accounts())
    Datasets(parts.artifacts).put(accounts.orders(300, seed=9), "orders-log")
    (tmp_path / "orders.yaml").write_text(json.dumps(accounts.asked()))
    told: list[str] = []

    def note(said: str) -> None:
        told.append(said)
        if said.startswith("registered"):  # what comes meanwhile changes nothing
            put_view(parts, accounts.accounts().drop("balance"))

    later = datetime(2027, 1, 1, tzinfo=UTC)
    around = classical.Around(tmp_path, parts.artifacts, clock=lambda: later, note=note)
    log = {"rows": "dataset/orders-log", "time": "at"}
    asked = {"name": "orders", "spec": "orders.yaml", "log": log, "labels": {"min_rows": 20}}
    result = retrain.retrain(retrain.parse(asked), around, model_gates.judge)
    assert (result.champion, result.challenger) == ("model/orders@v1", "model/orders@v2")
    latest = result.answers[0].numbers
    assert latest["cases"] == 60
    assert max(latest["champion"], latest["challenger"]) < 0.5
    assert sum("rows have no values" in each for each in told) == 2
