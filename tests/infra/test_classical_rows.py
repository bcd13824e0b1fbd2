"""Raw values encoded for a model: lists and arrays alike, and what is refused by row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.classical import Column
from infra.classical_rows import encode, encode_rows
from infra.errors import InvalidRequest

NUMBER = Column(name="x", type="float64", nullable=True)
WHOLE = Column(name="x", type="int64")
FLAG = Column(name="x", type="bool", nullable=True)
TEXT = Column(name="x", type="string", nullable=True)
CODE = Column(name="x", type="int64", categories=(1, 2), nullable=True)


@given(st.lists(st.floats(allow_infinity=False) | st.integers(-(2**53), 2**53)))
def test_lists_and_arrays_of_the_same_numbers_are_encoded_to_the_same_bits(values):
    from_list = encode(values, NUMBER)
    from_array = encode(np.array(values, dtype=np.float64), NUMBER)
    assert from_list.dtype == from_array.dtype == np.float64
    assert from_list[~np.isnan(from_list)].tobytes() == from_array[~np.isnan(from_array)].tobytes()
    assert np.isnan(from_list).tolist() == np.isnan(from_array).tolist()


def test_each_type_has_one_form():
    assert encode([1, 2.0], WHOLE).tolist() == [1.0, 2.0]
    found = encode([True, False, None], FLAG).tolist()
    assert found[:2] == [1.0, 0.0]
    assert math.isnan(found[2])
    assert encode(["a", None, ""], TEXT).tolist() == ["a", "", ""]
    assert encode([1, 7, None], CODE).tolist() == ["1", "7", ""]
    assert encode(np.array([1, 7]), CODE).tolist() == ["1", "7"]
    assert encode([3.0, -0.0], CODE).tolist() == encode([3, 0], CODE).tolist() == ["3", "0"]
    assert encode(np.array([3.0, math.nan]), CODE).tolist() == ["3", ""]


@pytest.mark.parametrize(
    ("values", "column", "said"),
    [
        ([1.0, math.inf], NUMBER, "Row 1.*not finite"),
        (np.array([1.0, -math.inf]), NUMBER, "Row 1.*not finite"),
        ([10**400], NUMBER, "not finite"),
        (["1"], NUMBER, "is no float64"),
        ([True], NUMBER, "is no float64"),
        ([[1.0]], NUMBER, "is no float64"),
        ([1.5], WHOLE, "is no int64"),
        (np.array([1.5]), WHOLE, "whole number"),
        ([None], WHOLE, "may not be missing"),
        (np.array([math.nan]), WHOLE, "may not be missing"),
        ([1], FLAG, "is no bool"),
        (np.array([2.0]), FLAG, "neither true nor false"),
        ([3], TEXT, "is no string"),
        (["\ud800"], TEXT, "not Unicode"),
        (["1"], CODE, "is no int64"),
    ],
)
def test_what_a_column_cannot_hold_is_refused_by_row(values, column, said):
    with pytest.raises(InvalidRequest, match=said):
        encode(values, column)


def test_rows_are_taken_by_name_in_any_order():
    columns = (Column(name="a", type="float64"), Column(name="b", type="string", nullable=True))
    found = encode_rows([{"b": "x", "a": 1}, {"a": 2}], columns)
    assert list(found) == ["a", "b"]
    assert found["a"].tolist() == [1.0, 2.0]
    assert found["b"].tolist() == ["x", ""]
    with pytest.raises(InvalidRequest, match="Row 1 has no column 'c'"):
        encode_rows([{"a": 1}, {"a": 1, "c": 2}], columns)
    with pytest.raises(InvalidRequest, match="Row 0 lacks 'a'"):
        encode_rows([{"b": "x"}], columns)
