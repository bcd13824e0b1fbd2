"""Differences: the laws of counting, against counting by hand, and the drift against the data."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.datasets.datasets import Datasets
from infra.datasets.difference import FieldChange
from infra.datasets.drift import drifts, psi, total_variation
from infra.datasets.profiling import profile_batches
from infra.datasets.row_hashes import parts_for
from infra.errors import InvalidRequest, NotFound

LAWS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SCHEMA = pa.schema(
    {"id": pa.int64(), "text": pa.string(), "flag": pa.bool_(), "items": pa.list_(pa.int64())}
)
ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(0, 5),
        "text": st.none() | st.sampled_from(["", "a", "b"]),
        "flag": st.none() | st.booleans(),
        "items": st.none() | st.lists(st.integers(0, 1) | st.none(), max_size=2),
    }
)
ROWS = st.lists(ROW, max_size=12)
KEYED = st.lists(ROW, max_size=6, unique_by=lambda row: row["id"])


def put(datasets: Datasets, rows: list[dict[str, Any]], name: str) -> str:
    return str(datasets.put(pa.Table.from_pylist(rows, SCHEMA), name))


def frozen(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))


@LAWS
@given(ROWS)
def test_dataset_does_not_differ_from_itself(shared: Datasets, rows: list[dict[str, Any]]) -> None:
    reference = put(shared, rows, "same")
    # In another order it is another artifact with the same rows.
    turned = put(shared, rows[::-1], "turned")
    for other in (reference, turned):
        found = shared.difference(reference, other)
        assert found.is_empty
        assert found.rows.unchanged == len(rows)
        assert all(item.total_variation in (None, 0) for item in found.drift)


@LAWS
@given(ROWS, ROWS)
def test_rows_are_counted_as_by_hand(
    shared: Datasets, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    found = shared.difference(
        put(shared, before, "before"), put(shared, after, "after"), examples=99
    )
    old, new = Counter(map(frozen, before)), Counter(map(frozen, after))
    assert found.rows.added == (new - old).total()
    assert found.rows.removed == (old - new).total()
    assert found.rows.unchanged == (old & new).total()
    assert found.rows_after == found.rows_before + found.rows.added - found.rows.removed
    assert Counter(map(frozen, map(dict, found.examples.added))) == new - old
    assert Counter(map(frozen, map(dict, found.examples.removed))) == old - new


@LAWS
@given(KEYED, KEYED)
def test_changed_rows_are_counted_as_by_hand(
    shared: Datasets, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    found = shared.difference(
        put(shared, before, "old"), put(shared, after, "new"), key=["id"], examples=99
    )
    old, new = ({row["id"]: row for row in rows} for rows in (before, after))
    both = old.keys() & new.keys()
    changed = {key for key in both if old[key] != new[key]}
    assert found.rows.added == len(new.keys() - both)
    assert found.rows.removed == len(old.keys() - both)
    assert found.rows.changed == len(changed)
    assert found.rows.unchanged == len(both) - len(changed)
    assert {pair.before["id"] for pair in found.examples.changed} == changed
    for name in ("text", "flag", "items"):
        expected = sum(old[key][name] != new[key][name] for key in both)
        assert found.rows.changed_columns.get(name, 0) == expected
    turned = shared.difference("new", "old", key=["id"])
    assert (turned.rows.added, turned.rows.removed) == (found.rows.removed, found.rows.added)


def test_many_parts_give_what_one_gives(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pl.DataFrame({"id": range(50_000), "value": [number % 7 for number in range(50_000)]})
    after = before.filter(pl.col("id") >= 1000).with_columns(
        value=pl.when(pl.col("id") % 1000 == 0).then(-1).otherwise("value")
    )
    datasets.put(before, "wide")
    datasets.put(pl.concat([after, pl.DataFrame({"id": [10**6], "value": [0]})]), "wide")
    monkeypatch.setattr("infra.datasets.row_hashes.PART_BYTES", 50_000)
    assert parts_for(50_000, 1) > 20
    found = datasets.difference("wide@v1", "wide@v2", key=["id"])
    assert (found.rows.added, found.rows.removed, found.rows.changed) == (1, 1000, 49)
    assert found.rows.changed_columns == {"value": 49}
    assert [row["id"] for row in found.examples.removed] == [0, 1, 2, 3, 4]
    assert found.examples.changed[0].before == {"id": 1000, "value": 6}
    assert found.examples.changed[0].after == {"id": 1000, "value": -1}
    plain = datasets.difference("wide@v1", "wide@v2")
    assert (plain.rows.added, plain.rows.removed) == (50, 1049)


def test_columns_that_changed_are_listed(datasets: Datasets) -> None:
    datasets.put([{"id": 1, "gone": "x", "n": 1, "kind": 1}], "columns")
    datasets.put([{"id": 1, "n": 1.5, "come": True, "kind": "one"}], "columns")
    found = datasets.difference("columns@v1", "columns@v2", key=["id"])
    assert set(found.schema) == {
        FieldChange("gone", "removed", "string", None),
        FieldChange("come", "added", None, "bool"),
        FieldChange("n", "type", "int64", "double"),
        FieldChange("kind", "type", "int64", "string"),
    }
    # Integers and fractions compare; a number and a text do not.
    assert found.rows.changed_columns == {"n": 1}
    assert {item.column: item.compared for item in found.drift}["kind"] == "nothing"


def test_numbers_of_two_types_are_the_same_number(datasets: Datasets) -> None:
    datasets.put(pl.DataFrame({"n": [1, 2, None]}, {"n": pl.Int32}), "types")
    datasets.put(pl.DataFrame({"n": [1.0, 2.0, None]}), "types")
    found = datasets.difference("types@v1", "types@v2")
    assert found.rows.unchanged == 3
    assert not found.is_empty


def test_nothing_false_zero_and_empty_are_different(datasets: Datasets) -> None:
    for rows in (
        [{"flag": None, "n": None, "text": None, "items": None}],
        [{"flag": False, "n": 0, "text": "", "items": []}],
    ):
        table = pa.Table.from_pylist(
            rows,
            pa.schema(
                {
                    "flag": pa.bool_(),
                    "n": pa.int64(),
                    "text": pa.string(),
                    "items": pa.list_(pa.int64()),
                }
            ),
        )
        datasets.put(table, "nothing")
    for name in ("flag", "n", "text", "items"):
        tables = [datasets.load(f"nothing@v{number}", columns=[name]) for number in (1, 2)]
        references = [str(datasets.put(table, name)) for table in tables]
        assert datasets.difference(*references).rows.added == 1


def test_datasets_without_a_common_column_share_no_row(datasets: Datasets) -> None:
    datasets.put([{"a": 1}, {"a": 2}], "apart")
    datasets.put([{"b": 1}], "apart")
    found = datasets.difference("apart@v1", "apart@v2")
    assert (found.rows.added, found.rows.removed, found.rows.unchanged) == (1, 2, 0)


def test_key_that_tells_no_rows_apart_is_refused(datasets: Datasets) -> None:
    datasets.put([{"id": 1, "x": 1}, {"id": 2, "x": 1}, {"id": 1, "x": 2}], "keys")
    datasets.put([{"id": 1, "x": 1}], "keys")
    with pytest.raises(InvalidRequest, match="rows 1 and 3 have the same"):
        datasets.difference("keys@v1", "keys@v2", key=["id"])
    with pytest.raises(NotFound, match="No column of both 'idd'; did you mean 'id'"):
        datasets.difference("keys@v1", "keys@v2", key=["idd"])


def test_one_split_is_compared_alone(datasets: Datasets) -> None:
    datasets.put({"train": [{"id": 1}, {"id": 2}], "test": [{"id": 3}]}, "splits")
    datasets.put({"train": [{"id": 1}, {"id": 2}], "test": [{"id": 4}]}, "splits")
    assert datasets.difference("splits@v1", "splits@v2", split="train").rows.unchanged == 2
    assert datasets.difference("splits@v1", "splits@v2", split="test").rows.added == 1


def drift_of(before: list[Any], after: list[Any]) -> Any:
    tables = [pa.table({"x": values}) for values in (before, after)]
    (found,) = drifts(*(profile_batches(table.to_batches(), table.schema) for table in tables))
    return found


def test_distances_are_what_their_formulas_say() -> None:
    first, second = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert psi(first, second) == pytest.approx(-0.25 * np.log(0.5) + 0.25 * np.log(1.5))
    assert total_variation(first, second) == 0.25
    found = drift_of([1, 1, 2, 2], [1, 2, 2, 2])
    assert found.compared == "values"
    assert found.psi == pytest.approx(psi(first, second))
    assert (found.total_variation, found.ks) == (0.25, 0.25)
    words = drift_of(["a", "a", None, None], ["a", "b", "b", None])
    assert words.total_variation == pytest.approx(2 / 3)
    assert (words.ks, words.nulls_before, words.nulls_after) == (None, 0.5, 0.25)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 2.0])
def test_drift_of_quantiles_is_within_one_percent_of_the_data(shift: float) -> None:
    rng = np.random.default_rng(11)
    before, after = rng.normal(size=20_000), rng.normal(shift, 1.2, size=30_000)
    points = np.sort(np.concatenate([before, after]))
    steps = [
        np.searchsorted(np.sort(values), points, side="right") / len(values)
        for values in (before, after)
    ]
    edges = np.quantile(before, np.arange(1, 10) / 10)
    shares = [
        np.bincount(np.searchsorted(edges, values), minlength=10) / len(values)
        for values in (before, after)
    ]
    found = drift_of(before.tolist(), after.tolist())
    assert found.compared == "quantiles"
    assert found.ks == pytest.approx(np.abs(steps[0] - steps[1]).max(), abs=0.01)
    assert found.total_variation == pytest.approx(total_variation(*shares), abs=0.01)
    assert found.psi == pytest.approx(psi(*shares), abs=0.02, rel=0.05)


def test_drift_of_numbers_that_repeat_much_is_seen() -> None:
    rng = np.random.default_rng(3)
    before = np.where(rng.random(5000) < 0.9, 0.0, rng.random(5000))
    after = np.where(rng.random(5000) < 0.6, 0.0, rng.random(5000))
    assert drift_of(before.tolist(), after.tolist()).ks == pytest.approx(0.3, abs=0.03)


def test_texts_that_hardly_repeat_are_compared_by_length() -> None:
    before = [f"{number:08}" for number in range(500)]
    found = drift_of(before, [text * 3 for text in before])
    assert (found.compared, found.ks) == ("lengths", 1.0)
    assert drift_of(before, before[::-1]).psi == 0
    often = ["x"] * 400 + before
    assert drift_of([*often, *often], often).compared == "lengths"
    assert drift_of(["x"] * 900 + before, ["x"] * 600 + before).compared == "frequent values"


def test_nothing_is_compared_with_nothing() -> None:
    found = drift_of([None, None], [None])
    assert (found.compared, found.psi, found.nulls_after) == ("nothing", None, 1.0)
    assert drift_of([], []).nulls_before == 0
