"""Rows and columns as a model takes them, and what is refused or told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import classical_models
from classical_models import COLUMNS, ROW
from infra.classical import ModelFile
from infra.errors import InvalidRequest, TooLarge
from service.prediction.columns import Reader, Warned, flat, row_values

MODEL = ModelFile(
    format="onnx", file="model.onnx", task="regression", inputs=COLUMNS, target="value"
)
READER = Reader(MODEL, max_rows=100)


def test_rows_and_columns_mean_the_same() -> None:
    given = classical_models.rows(40)
    by_rows = READER.of_rows(given)
    by_columns = READER.of_values(40, {name: [row[name] for row in given] for name in ROW})
    assert by_rows.rows == by_columns.rows == 40
    for name in ROW:
        np.testing.assert_array_equal(by_rows.columns[name], by_columns.columns[name])
    assert list(by_rows.columns) == list(ROW)


def test_a_row_is_read_back_as_it_was_given() -> None:
    table = READER.of_rows([ROW, {"visits": 2, "trial": True}])
    assert row_values(table, 0, COLUMNS) == ROW
    assert row_values(table, 1, COLUMNS) == {"age": None, "visits": 2, "trial": True, "plan": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": "41"}, "age"),
        ({"age": True}, "age"),
        ({"age": 10**400}, "age"),
        ({"visits": 3.5}, "visits"),
        ({"visits": None}, "visits"),
        ({"trial": 1}, "trial"),
        ({"plan": 7}, "plan"),
        ({"plan": ["pro"]}, "plan"),
        ({"surname": "Ada"}, "surname"),
    ],
)
def test_what_is_no_value_of_a_column_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"Row 1.*{words}"):
        READER.of_rows([ROW, {**ROW, **change}])


@pytest.mark.parametrize("rows", [[], ["a"], [[1, 2]], [None]])
def test_what_is_no_row_is_refused(rows: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        READER.of_rows(rows)


def test_more_rows_than_allowed_are_refused() -> None:
    with pytest.raises(TooLarge, match="101"):
        READER.of_rows([ROW] * 101)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_refused_and_nan_is_a_missing_value(value: float) -> None:
    given: dict[str, Any] = {name: [value] for name, value in ROW.items()}
    table = READER.of_values(1, {**given, "age": np.array([np.nan])})
    assert np.isnan(table.columns["age"][0])
    with pytest.raises(InvalidRequest, match="age"):
        READER.of_values(1, {**given, "age": np.array([value])})
    with pytest.raises(InvalidRequest, match="visits"):
        READER.of_values(1, {**given, "visits": np.array([np.nan])})


def test_columns_that_are_missing_or_strange_are_named() -> None:
    given: dict[str, Any] = {name: [value] for name, value in ROW.items()}
    del given["plan"]
    with pytest.raises(InvalidRequest, match="'plan'.*'colour'"):
        READER.of_values(1, {**given, "colour": ["red"]})


def test_what_training_never_saw_is_told() -> None:
    table = READER.of_rows([ROW, {**ROW, "plan": "gold", "age": 17.0}, {**ROW, "plan": None}])
    assert table.warnings == [
        Warned(1, "plan", "unknown_category"),
        Warned(1, "age", "out_of_range"),
    ]


def test_unknown_category_is_refused_where_the_settings_say_so() -> None:
    strict = Reader(MODEL, max_rows=100, refuses_unknown=True)
    assert strict.of_rows([{**ROW, "age": 17.0}]).warnings == [Warned(0, "age", "out_of_range")]
    with pytest.raises(InvalidRequest, match="'gold'"):
        strict.of_rows([ROW, {**ROW, "plan": "gold"}])


@pytest.mark.parametrize(
    ("data", "shape", "found"),
    [
        ([1, 2], (2,), [1, 2]),
        ([1, 2], (2, 1), [1, 2]),
        ([[1], [2]], (2, 1), [1, 2]),
        ([], (0,), []),
    ],
)
def test_data_may_be_nested_as_its_shape_says_or_not_at_all(
    data: list[Any], shape: tuple[int, ...], found: list[Any]
) -> None:
    assert list(flat(data, shape)) == found


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1], (2,)),
        ([[1, 2]], (2, 1)),
        ([[1], 2], (2, 1)),
        ([[1], [2]], (2,)),
        ([[[1]], [[2]]], (2, 1)),
        ([1.0], (2**31,)),
        ([[], []], (2, 1)),
    ],
)
def test_data_of_another_shape_is_refused(data: list[Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest):
        flat(data, shape)
