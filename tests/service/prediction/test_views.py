"""Feature views in memory: each follows its own table, and one that cannot harms no other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import accounts
from infra.artifacts.store import ArtifactStore
from infra.classical import Column, ModelFile, parse
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, StorageFailed
from service.prediction.columns import Reader
from service.prediction.joining import Joins
from service.prediction.views import RETRY_SECONDS, Views
from set_clock import Clock

FEW = accounts.accounts(days=3)
COLUMNS = (
    Column(name="balance", type="float64", nullable=True),
    Column(name="logins", type="int64", nullable=True),
    Column(name="segment", type="string", categories=("gone", "new", "old"), nullable=True),
)


@pytest.fixture
def views(store: ArtifactStore, clock: Clock) -> Views:
    return Views(lambda: store, 1 << 24, clock=clock)


def put(store: ArtifactStore, frame: pl.DataFrame, name: str = "accounts") -> str:
    return str(Datasets(store).put(frame, name))


def put_damaged(store: ArtifactStore, frame: pl.DataFrame) -> dict[Path, bytes]:
    """Store a version whose rows cannot be read; returns the files as they were."""
    root: Path = store.storage.root  # type: ignore[attr-defined]
    before = set(root.rglob("*"))
    put(store, frame)
    new = [path for path in {*root.rglob("*")} - before if path.is_file()]
    gone = {path: path.read_bytes() for path in new if "manifests" not in path.parts}
    for path in gone:
        path.write_bytes(b"")
    return gone


def view(**changes: Any) -> dict[str, Any]:
    trained = {"version": "dataset/accounts@v1", "key_type": "string", "is_zoned": True}
    return {**accounts.VIEW, **trained, **changes}


def model(*given: dict[str, Any]) -> ModelFile:
    """Return what a model with views remembers of them."""
    prefixes = [each.get("prefix", "") for each in given]
    inputs = [
        each.model_copy(update={"name": f"{prefix}{each.name}"})
        for prefix in prefixes
        for each in COLUMNS
    ]
    values = {
        "format": "onnx",
        "file": "model.onnx",
        "task": "regression",
        "target": "amount",
        "inputs": inputs,
        "views": given,
        "time": "at",
    }
    return parse(values)


def test_a_view_that_cannot_be_read_keeps_no_other_from_the_newest(
    store: ArtifactStore, views: Views, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, FEW)
    put(store, FEW, "visits")
    visits = {"rows": "dataset/visits", "version": "dataset/visits@v1", "prefix": "v_"}
    first, second = views.open(model(view(), view(**visits)))
    gone = put_damaged(store, accounts.accounts(days=19))
    put(store, accounts.accounts(days=9), "visits")
    views.refresh()
    views.refresh()
    assert [str(each.version.reference) for each in (first, second)] == [
        "dataset/accounts@v1", "dataset/visits@v2",
    ]  # fmt: skip
    assert [each.problem is None for each in (first, second)] == [False, True]
    assert views.stale == 1
    told = [each.message for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 1
    assert told[0].startswith("A view stays at dataset/accounts@v1")

    for path, data in gone.items():
        path.write_bytes(data)
    views.refresh()
    assert str(first.version.reference) == "dataset/accounts@v1"
    clock.now += RETRY_SECONDS
    views.refresh()
    assert (str(first.version.reference), views.stale) == ("dataset/accounts@v2", 0)


@pytest.mark.parametrize("is_damaged", [True, False])
def test_after_a_restart_what_was_trained_with_is_joined_where_the_newest_cannot_be(
    store: ArtifactStore, views: Views, is_damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, FEW)
    longer = accounts.accounts(days=9)
    if is_damaged:
        put_damaged(store, longer)
    else:
        put(store, longer.drop("logins"))
    (live,) = views.open(model(view()))
    assert str(live.version.reference) == "dataset/accounts@v1"
    assert live.problem is not None
    assert ("is damaged" if is_damaged else "dataset/accounts@v2 has no column") in live.problem
    assert live.problem in caplog.text
    assert views.stale == 1
    views.refresh()
    assert live.problem is not None
    put(store, FEW)
    views.refresh()
    assert (str(live.version.reference), live.problem) == ("dataset/accounts@v1", None)


def test_a_version_without_room_takes_over_once_another_view_is_gone(
    store: ArtifactStore, views: Views, clock: Clock
) -> None:
    put(store, FEW)
    (before,) = views.open(model(view()))
    put(store, accounts.accounts())
    (after,) = views.open(model(view()), {"dataset/accounts": "dataset/accounts@v2"})
    both = before.version.index.size_bytes + after.version.index.size_bytes
    tight = Views(lambda: store, both - 1, clock=clock)
    pins = {"dataset/accounts": "dataset/accounts@v1"}
    (other,) = tight.open(model(view()), pins)
    (live,) = tight.open(model(view()))
    assert str(live.version.reference) == "dataset/accounts@v1"
    assert "are left; raise it" in str(live.problem)
    del other
    clock.now += RETRY_SECONDS
    tight.refresh()
    assert (str(live.version.reference), tight.stale) == ("dataset/accounts@v2", 0)


def test_where_neither_can_be_read_the_newest_is_what_is_told_of(
    store: ArtifactStore, views: Views
) -> None:
    put_damaged(store, FEW)
    put_damaged(store, accounts.accounts(days=9))
    with pytest.raises(StorageFailed, match="is damaged"):
        views.open(model(view()))
    assert len(views) == 0


def test_views_of_several_versions_are_counted_once_and_go_with_the_last(
    store: ArtifactStore, views: Views
) -> None:
    put(store, accounts.accounts())
    held = [views.open(model(view())) for _ in range(2)]
    size = held[0][0].version.index.size_bytes
    assert views.size_bytes == size
    other = views.open(model(view(ttl_seconds=60.0)))
    assert (len(views), views.size_bytes) == (2, 2 * size)
    del other
    assert (len(views), views.size_bytes) == (1, size)
    held.pop()
    assert views.size_bytes == size
    held.pop()
    assert (len(views), views.size_bytes) == (0, 0)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_joined_category_that_training_never_saw_is_treated_as_one_of_the_rows_own(
    store: ArtifactStore, views: Views, refuses: bool
) -> None:
    put(store, FEW.with_columns(segment=pl.lit("merged")))
    own = Column(name="kind", type="string", categories=("a", "b"))
    file = model(view())
    file = file.model_copy(update={"inputs": (own, *file.inputs)})
    reader = Reader(file, 10, refuses, Joins(file, views.open(file)))
    row = {"kind": "a", "customer": "c1", "at": "2026-01-05T00:00:00Z"}
    strange = [{**row, "kind": "z"}, {**row, "customer": "nobody"}, row]
    columns = {name: [each[name] for each in strange[1:]] for name in row}
    if refuses:
        with pytest.raises(InvalidRequest, match=r"Row 0: 'kind' is 'z', which is none"):
            reader.of_rows(strange)
        words = r"Row 1: 'segment' is 'merged', .*none of the categories.*dataset/accounts@v1"
        for ask in (lambda: reader.of_rows(strange[1:]), lambda: reader.of_values(2, columns)):
            with pytest.raises(InvalidRequest, match=words):
                ask()
        return
    table = reader.of_rows(strange)
    assert table.columns["segment"].tolist() == ["merged", "", "merged"]
    assert [(each.row, each.column, each.kind) for each in table.warnings] == [
        (0, "kind", "unknown_category"),
        (0, "segment", "unknown_category"),
        (2, "segment", "unknown_category"),
        (1, "customer", "unknown_key"),
    ]
