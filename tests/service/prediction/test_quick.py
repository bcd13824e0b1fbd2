"""A row that is as most are is read without a closer look, and reads the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classical_models import COLUMNS, ROW
from infra.classical import Column, ModelFile
from infra.errors import RagstoneError
from service.prediction import tensors
from service.prediction.columns import Reader, Table, joined, row_values
from service.prediction.quick import Quick, Row

ALL = (
    *COLUMNS,
    Column(name="grade", type="int64", categories=(1, 2, 3)),
    Column(name="member", type="bool", categories=(True, False), nullable=True),
    Column(name="note", type="string"),
    Column(name="balance", type="float64"),
)
USUAL: dict[str, Any] = {**ROW, "grade": 2, "member": True, "note": "new", "balance": -3.5}
DATATYPES = {"float64": "FP64", "int64": "INT64", "bool": "BOOL", "string": "BYTES"}
ODD = st.sampled_from([None, True, False, 0, 1, 3, 2**53 + 1, -1.5, 1e308, "", "pro", "3", [], {}])
READER = Reader(
    ModelFile(format="onnx", file="m.onnx", task="regression", inputs=ALL, target="y"), max_rows=9
)


def quick() -> Quick:
    found = Quick.of(ALL)
    assert found is not None
    return found


def the_long_way(values: dict[str, Any]) -> Table:
    """Two rows are always looked at closely."""
    return READER.of_rows([values, values])


def as_tensors(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "datatype": DATATYPES[each.type], "shape": [1], "data": [value]}
        for each in ALL
        if (value := values[each.name]) is not ...
    ]


def assert_same(row: Row, table: Table) -> None:
    assert not table.warnings
    assert list(row) == list(table.columns)
    for name, column in table.columns.items():
        assert row[name].dtype == column.dtype
        np.testing.assert_array_equal(row[name], column[:1])
    assert row_values(Table(1, row), 0, ALL) == row_values(table, 0, ALL)


@pytest.mark.parametrize(
    "changes", [{}, {"balance": 4}, {"age": None}, {"plan": None, "member": None}, {"age": 41}]
)
def test_usual_rows_are_read(changes: dict[str, Any]) -> None:
    values = {**USUAL, **changes}
    row = quick().of_row(values)
    assert row is not None
    assert_same(row, the_long_way(values))
    by_tensors = quick().of_tensors(as_tensors(values))
    assert by_tensors is not None
    assert by_tensors.given == row.given


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([each.name for each in ALL]), ODD, max_size=3))
def test_what_is_read_reads_the_same_the_long_way(changes: dict[str, Any]) -> None:
    values = {**USUAL, **changes}
    row = quick().of_row(values)
    if row is None:
        return
    assert_same(row, the_long_way(values))


@settings(max_examples=300)
@given(
    st.sampled_from(range(len(ALL))),
    st.sampled_from(["name", "datatype", "shape", "data", "parameters"]),
    st.one_of(
        ODD,
        st.sampled_from(["FP32", "INT32", "BYTES", "age", "note"]),
        st.lists(st.sampled_from([0, 1, 2, True, 1.0, "a", [1.5]]), max_size=2),
    ),
)
def test_what_is_read_of_tensors_reads_the_same_the_long_way(at: int, part: str, odd: Any) -> None:
    once = quick()
    inputs = as_tensors(USUAL)
    assert once.of_tensors(inputs) is not None  # as it remembers
    inputs[at] = {**inputs[at], part: odd}
    row = once.of_tensors(inputs)
    if row is None:
        return
    _, values = tensors._read(inputs, memoryview(b""), READER_KINDS)
    assert_same(row, READER.of_values(1, values))


READER_KINDS = {each.name: each.type for each in ALL}


@pytest.mark.parametrize("inputs", [[], [1], ["age"], [{}], [None], as_tensors(USUAL)[1:]])
def test_what_are_no_such_tensors_goes_the_long_way(inputs: list[Any]) -> None:
    assert quick().of_tensors(inputs) is None


def test_what_training_never_saw_goes_the_long_way() -> None:
    for changes in ({"age": 17.0}, {"plan": "gold"}, {"grade": 4}, {"balance": 1e309}):
        assert quick().of_row({**USUAL, **changes}) is None


def test_numbers_that_are_categories_go_the_long_way() -> None:
    assert Quick.of((Column(name="size", type="float64", categories=(1.0, 2.5)),)) is None


def test_rows_of_several_requests_lie_below_one_another() -> None:
    other = {**USUAL, "age": 20.0, "note": "old"}
    rows = [quick().of_row(USUAL), quick().of_row(other)]
    both = joined([row for row in rows if row is not None])
    table = READER.of_rows([USUAL, other])
    assert both.keys() == table.columns.keys()
    for name, column in table.columns.items():
        np.testing.assert_array_equal(both[name], column)


def test_a_refused_row_is_refused_whether_alone_or_not() -> None:
    for changes in ({"note": ""}, {"balance": None}, {"visits": True}, {"trial": 1}):
        for rows in ([{**USUAL, **changes}], [USUAL, {**USUAL, **changes}]):
            with pytest.raises(RagstoneError):
                READER.of_rows(rows)
