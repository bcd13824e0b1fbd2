"""Feature views in a specification: what is joined, what is refused, what a model remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import accounts
import feast_made
from infra.artifacts.store import open_store
from infra.classical import Column, parse
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.feature_views import FeatureView
from migrated import open_migrated
from training import classical
from training.tabular import columns, joining
from training.tabular.open_views import OpenView, OpenViews

FILE = {**accounts.VIEW, "rows": "accounts.parquet"}
ORDERS = accounts.orders(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    accounts.accounts().write_parquet(folder / "accounts.parquet")
    return folder


def opened(folder: Path, **changes: Any) -> tuple[OpenView, ...]:
    view = FeatureView.model_validate({**FILE, **changes})
    return OpenViews(folder=folder, datasets=None).open([view])


def test_rows_without_values_are_counted_by_why(folder: Path) -> None:
    frame, told = joining.join(ORDERS, opened(folder), "at")
    assert frame.columns == [*ORDERS.columns, "balance", "logins", "segment"]
    assert frame.select(ORDERS.columns).equals(ORDERS)
    missed = told[0].missed
    assert list(missed) == ["too_early", "too_old", "unknown_key"]
    assert sum(missed.values()) == frame["segment"].null_count()
    assert f"of {len(ORDERS)} rows have no values" in str(told[0])


def test_view_joined_twice_has_prefixes(folder: Path) -> None:
    views = [*opened(folder, prefix="a_"), *opened(folder, prefix="b_", ttl_seconds=None)]
    frame, _ = joining.join(ORDERS, views, "at")
    assert frame.columns[-6:] == [f"{side}_{name}" for side in "ab" for name in FILE["columns"]]
    assert frame["b_segment"].null_count() < frame["a_segment"].null_count()


@pytest.mark.parametrize(
    ("frame", "changes", "words"),
    [
        (ORDERS.with_columns(logins=1), {}, "'logins' of accounts.parquet is the name of another"),
        (ORDERS.with_columns(customer=1), {}, "are string, and those of the rows .* are int64"),
        (ORDERS.with_columns(at=pl.lit("soon")), {}, "'soon' is no time"),
        (
            ORDERS.with_columns(pl.col("at").dt.replace_time_zone(None)),
            {},
            "times of accounts.parquet have a time zone, and those of the rows have none",
        ),
        (ORDERS, {"required": True}, "the view is required, so that nothing was joined"),
        (ORDERS.with_columns(at=None), {}, "Row 0 has no time"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(
    folder: Path, frame: pl.DataFrame, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        joining.join(frame, opened(folder, **changes), "at")


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"accounts\.csv"):
        opened(folder, rows="accounts.csv")
    with pytest.raises(NotFound, match="'balances'.*'balance'"):
        opened(folder, columns=["balances"])
    with pytest.raises(NotFound, match="'customer'"):
        joining.join(ORDERS.drop("customer"), opened(folder), "at")
    with pytest.raises(InvalidConfiguration, match="dataset/accounts"):
        opened(folder, rows="dataset/accounts")


@pytest.mark.parametrize(
    ("views", "data", "words"),
    [
        ([accounts.VIEW], {"time": None}, "joined as of the rows' time"),
        ([accounts.VIEW, accounts.VIEW], {}, "'balance' is the name of two columns"),
        ([{**accounts.VIEW, "columns": ["outcome"]}], {}, "'outcome' is the name of two columns"),
        ([{**accounts.VIEW, "columns": ["known"]}], {}, "is the key or the time"),
        ([{**accounts.VIEW, "columns": []}], {}, "columns"),
        ([FILE], {}, "'accounts.parquet' is a file"),
        ([], {"feast": [{"repository": "f"}]}, "name a service or views, and not both"),
        (
            [accounts.VIEW],
            {"time": None, "feast": [{"repository": "f", "service": "risk"}]},
            "joined as of the rows' time",
        ),
    ],
)
def test_specification_that_does_not_fit_together_is_refused(
    views: list[dict[str, Any]], data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        classical.parse(accounts.asked(*views, **data))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"repository": "elsewhere"}, NotFound, "Feast repository"),
        ({"views": ["pairs"]}, InvalidRequest, "'pairs' has 2 entities"),
        ({"row_keys": {"ids": "customer"}}, InvalidRequest, "'ids', which is no join key"),
        ({"views": ["accounts", "accounts"]}, InvalidRequest, "'balance' is the name of two colum"),
        ({}, InvalidConfiguration, "no store is open"),
    ],
)
def test_feast_views_that_cannot_be_joined_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    feast_made.lay_out(tmp_path / "features")
    asked = accounts.asked()
    source = {"repository": "features", "views": ["accounts"], **changes}
    asked["data"] |= {"features": [], "feast": [source]}
    database = open_migrated(tmp_path / "ragstone.db")
    store = open_store(tmp_path / "artifacts", database) if changes else None
    with pytest.raises(error, match=words):
        classical.train(classical.parse(asked), tmp_path, classical.Around(tmp_path, store))
    database.close()


def test_model_is_not_given_the_key_and_remembers_what_it_takes(folder: Path) -> None:
    spec = classical.parse(accounts.asked(leave_out=["segment"]))
    views = opened(folder)
    frame, _ = joining.join(ORDERS, views, "at")
    chosen = columns.choose(frame, frame, spec).columns
    assert [(each.name, each.nullable) for each in chosen] == [
        ("amount", False), ("balance", True), ("logins", True),
    ]  # fmt: skip
    (view,) = joining.remembered(views, chosen)
    assert view.columns == ("balance", "logins")
    assert (view.version, view.key_type, view.is_zoned) == ("accounts.parquet", "string", True)
    assert joining.remembered(views, chosen[:1]) == ()


@pytest.mark.parametrize(
    ("rows", "followed"),
    [
        ("dataset/accounts", "dataset/accounts"),
        ("dataset/accounts@v3", "dataset/accounts"),
        (f"dataset/accounts@sha256:{'0' * 64}", "dataset/accounts"),
        ("dataset/accounts@checked", "dataset/accounts@checked"),
        ("dataset/accounts@verified", "dataset/accounts@verified"),
    ],
)
def test_requests_follow_the_newest_version_or_an_alias(rows: str, followed: str) -> None:
    assert FeatureView.model_validate({**accounts.VIEW, "rows": rows}).followed == followed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": None}, "time"),
        ({"inputs": [Column(name="balance", type="float64")]}, "none of the inputs"),
        ({"time": "balance"}, "is one of the inputs"),
        ({"views": []}, "time"),
    ],
)
def test_model_file_whose_views_do_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    joined = {
        **accounts.VIEW, "version": "dataset/accounts@v1", "key_type": "string", "is_zoned": True,
    }  # fmt: skip
    names = ("balance", "logins", "segment")
    values = {
        "format": "onnx",
        "file": "model.onnx",
        "task": "regression",
        "target": "y",
        "inputs": [Column(name=name, type="float64") for name in names],
        "views": [joined],
        "time": "at",
    }
    assert parse(values).joined == {*names}
    with pytest.raises(InvalidRequest, match=words):
        parse({**values, **changes})
