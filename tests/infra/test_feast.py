"""A Feast repository is read as Feast left it: its views, its services, and its rows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

import accounts
import feast_made
from infra import feast_repository
from infra.errors import InvalidRequest, NotFound
from infra.feature_views import FeatureView
from infra.point_in_time import Index, moments_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return feast_made.lay_out(tmp_path_factory.mktemp("feast"))


def test_views_have_their_keys_times_and_features(folder: Path) -> None:
    known, seen = feast_repository.read(folder).views(["accounts", "visits"])
    assert (known.project, known.key, known.time, known.created) == ("shop", "id", "known", None)
    assert known.ttl_seconds == 10 * 86_400
    assert known.features == known.taken == ("balance", "logins", "segment")
    assert (seen.key, seen.time, seen.created) == ("id", "seen", "created")
    assert (seen.ttl_seconds, seen.features) == (None, ("visits",))


def test_a_service_takes_some_features_and_may_call_views_and_keys_otherwise(folder: Path) -> None:
    repository = feast_repository.read(folder)
    known, seen = repository.service("risk")
    assert (known.called, known.taken, known.row_key) == ("accounts", ("segment", "balance"), "id")
    assert (seen.called, seen.taken) == ("visits", ("visits",))
    (sold,) = repository.service("sellers")
    assert (sold.name, sold.called, sold.key, sold.row_key) == ("visits", "sold", "id", "seller")


def test_rows_have_the_names_of_feast_and_what_was_created_last_holds(folder: Path) -> None:
    known, seen = feast_repository.read(folder).views(["accounts", "visits"])
    wanted = ["id", "known", "balance", "logins", "segment"]
    assert feast_repository.rows(known).equals(accounts.accounts().select(wanted))
    found = feast_repository.rows(seen).sort("seen")
    assert found.columns == ["id", "seen", "visits"]
    assert found["visits"].to_list() == [1, 22, 3]
    assert found["seen"].to_list() == [accounts.START + timedelta(days=day) for day in range(3)]


@pytest.mark.parametrize("kind", [pl.Date(), pl.Datetime("ms"), pl.Datetime("ns")])
def test_dates_and_times_without_a_zone_are_of_utc(tmp_path: Path, kind: pl.DataType) -> None:
    feast_made.lay_out(tmp_path)
    told = accounts.accounts().with_columns(
        pl.col("known").dt.truncate("1d").dt.replace_time_zone(None).cast(kind)
    )
    told.write_parquet(tmp_path / "data" / "accounts.parquet")
    (known,) = feast_repository.read(tmp_path).views(["accounts"])
    rows = feast_repository.rows(known)
    wanted = {"rows": "x", "key": known.key, "time": known.time, "columns": known.taken}
    index = Index(FeatureView.model_validate(wanted), rows, source="x")
    moments = moments_of(["2025-12-31T23:59:59Z", "2026-01-01T01:00:00+01:00"], source="orders")
    assert index.find(["c1", "c1"], moments).missed == [(0, "too_early")]


def test_rows_may_be_files_of_a_folder(tmp_path: Path) -> None:
    feast_made.lay_out(tmp_path)
    file = tmp_path / "data" / "accounts.parquet"
    file.unlink()
    (file / "day=1").mkdir(parents=True)
    halves = accounts.accounts()[:100], accounts.accounts()[100:]
    halves[0].write_parquet(file / "a.parquet")
    halves[1].write_parquet(file / "day=1" / "b.parquet")
    (known,) = feast_repository.read(tmp_path).views(["accounts"])
    assert len(feast_repository.rows(known)) == len(accounts.accounts())


def test_what_cannot_be_joined_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    repository = feast_repository.read(folder)
    with pytest.raises(NotFound, match="feature view 'account'.*'accounts'"):
        repository.views(["account"])
    with pytest.raises(NotFound, match="feature service 'risks'.*'risk'"):
        repository.service("risks")
    with pytest.raises(InvalidRequest, match="'pairs' has 2 entities"):
        repository.views(["pairs"])
    for name, kind in (("ratios", "on demand"), ("clicks", "stream")):
        with pytest.raises(InvalidRequest, match=f"'{name}' is one of Feast's {kind} feature view"):
            repository.views([name])
    with pytest.raises(NotFound, match="Feast repository"):
        feast_repository.read(tmp_path)
    feast_made.lay_out(tmp_path, is_applied=False)
    with pytest.raises(NotFound, match="feast apply"):
        feast_repository.read(tmp_path)
    (tmp_path / "data" / "registry.db").write_bytes(b"\xff\xffSQLite format 3")
    with pytest.raises(InvalidRequest, match="no registry of Feast"):
        feast_repository.read(tmp_path)
    feast_made.lay_out(tmp_path)
    (tmp_path / "data" / "accounts.parquet").write_bytes(b"PAR1 and no more")
    accounts.accounts().rename({"known": "when"}).write_parquet(tmp_path / "data/visits.parquet")
    known, seen = feast_repository.read(tmp_path).views(["accounts", "visits"])
    with pytest.raises(InvalidRequest, match=r"accounts\.parquet' cannot be read"):
        feast_repository.rows(known)
    with pytest.raises(NotFound, match="column of the feature view 'visits' 'seen'"):
        feast_repository.rows(seen)
    (tmp_path / "data" / "visits.parquet").unlink()
    with pytest.raises(NotFound, match="file of the feature view 'visits'"):
        feast_repository.rows(seen)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("registry: data/registry.db", "names no project"),
        (
            "project: shop\nregistry: {registry_type: sql, path: 'sqlite://x'}",
            "a file of this mach",
        ),
        ("project: shop\nregistry: s3://bucket/registry.db", "a file of this machine"),
        ("project: shop\nregistry: $HOME/registry.db", "a file of this machine"),
        (
            "project: shop\noffline_store: {type: snowflake.offline}",
            "'snowflake.offline'; those th",
        ),
        ("project: [shop", "feature_store.yaml"),
    ],
)
def test_settings_that_lead_elsewhere_are_refused(
    tmp_path: Path, settings: str, words: str
) -> None:
    feast_made.lay_out(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(settings)
    with pytest.raises(InvalidRequest, match=words):
        feast_repository.read(tmp_path)


def test_feast_itself_joins_the_same_values(tmp_path: Path) -> None:
    pytest.importorskip("feast", reason="Feast is not installed")
    feast_made.lay_out(tmp_path, is_applied=False)
    store = feast_made.apply(tmp_path)
    orders = accounts.orders(200).select(id="customer", event_timestamp="at")
    found = store.get_historical_features(
        orders.to_pandas(), features=store.get_feature_service("risk")
    )
    key = ["id", "event_timestamp"]
    theirs = pl.from_pandas(found.to_df())
    ours = orders.sort(key)
    for view in feast_repository.read(tmp_path).service("risk"):
        values = {"rows": "x", "key": view.key, "time": view.time, "columns": view.taken}
        made = Index(
            FeatureView.model_validate({**values, "ttl_seconds": view.ttl_seconds}),
            feast_repository.rows(view),
            source="x",
        )
        moments = moments_of(ours["event_timestamp"], source="orders")
        ours = ours.hstack(made.features(made.find(ours["id"].to_list(), moments)))
    names = ["balance", "segment", "visits"]
    wanted = theirs.select(*key, *names).with_columns(
        pl.col("event_timestamp").dt.cast_time_unit("us"),
        pl.col("balance").fill_nan(None),
        pl.col("visits").fill_nan(None).cast(pl.Int64),
    )
    both = ours.join(wanted, on=key, how="inner", suffix="_theirs")
    assert len(both) == len(wanted) > 100
    for name in names:
        assert both[name].to_list() == both[f"{name}_theirs"].to_list(), name
    left_out = ours.join(wanted, on=key, how="anti")  # Feast leaves rows of too old values out
    assert left_out["balance"].null_count() == len(left_out)
