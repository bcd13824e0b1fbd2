"""Metadata filters: what matches, and what is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidFilter, InvalidRequest
from retrieval.filters import TYPES, Comparison, matches, parse

METADATA = {"year": 2021, "price": 9.5, "team": "support", "public": True, "one": 1}


def _matches(raw: dict[str, Any], metadata: dict[str, Any] | None = None) -> bool:
    return matches(parse(raw), METADATA if metadata is None else metadata)


def _compare(type_: str, key: str, value: object) -> dict[str, Any]:
    return {"type": type_, "key": key, "value": value}


@pytest.mark.parametrize(
    ("type_", "key", "value", "expected"),
    [
        ("eq", "year", 2021, True),
        ("eq", "year", 2021.0, True),
        ("eq", "year", "2021", False),
        ("eq", "team", "support", True),
        ("eq", "team", "Support", False),
        ("eq", "public", True, True),
        ("eq", "public", 1, False),
        ("eq", "one", True, False),
        ("ne", "year", 2020, True),
        ("ne", "year", 2021, False),
        ("ne", "year", "2021", True),
        ("ne", "absent", 1, True),
        ("gt", "year", 2020, True),
        ("gt", "year", 2021, False),
        ("gte", "year", 2021, True),
        ("lt", "price", 9.6, True),
        ("lte", "price", 9.5, True),
        ("lt", "price", 9, False),
        ("gt", "team", "sales", True),
        ("lt", "team", "sales", False),
        ("gt", "team", 1, False),
        ("lt", "team", 1, False),
        ("gt", "public", 0, False),
        ("gt", "absent", 0, False),
        ("lte", "absent", 0, False),
        ("in", "year", [2020, 2021], True),
        ("in", "year", ["2021"], False),
        ("in", "public", [1], False),
        ("in", "one", [True], False),
        ("in", "team", [], False),
        ("in", "absent", [1], False),
        ("nin", "year", [2020], True),
        ("nin", "year", [2021.0], False),
        ("nin", "team", [], True),
        ("nin", "absent", [1], True),
    ],
)
def test_comparisons_are_typed(type_: str, key: str, value: object, expected: bool) -> None:
    assert _matches(_compare(type_, key, value)) is expected


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, float("nan")])
def test_metadata_of_no_comparable_kind_match_only_negations(value: object) -> None:
    metadata = {"key": value}
    for type_ in ("eq", "gt", "gte", "lt", "lte"):
        assert not _matches(_compare(type_, "key", 1), metadata)
    assert not _matches(_compare("in", "key", [1]), metadata)
    assert _matches(_compare("ne", "key", 1), metadata)
    assert _matches(_compare("nin", "key", [1]), metadata)


def test_combinations_and_negations_nest() -> None:
    recent, support = _compare("gte", "year", 2021), _compare("eq", "team", "support")
    sales = _compare("eq", "team", "sales")
    assert _matches({"type": "and", "filters": [recent, support]})
    assert not _matches({"type": "and", "filters": [recent, sales]})
    assert _matches({"type": "or", "filters": [sales, recent]})
    assert not _matches({"type": "or", "filters": [sales]})
    assert _matches({"type": "not", "filter": {"type": "or", "filters": [sales]}})
    assert _matches({"type": "not", "filter": _compare("gt", "absent", 1)})


def test_parsed_filter_is_frozen_and_hashable() -> None:
    assert parse(_compare("eq", "year", 2021)) == Comparison("eq", "year", 2021)
    nested = {"type": "not", "filter": _compare("in", "year", [2021])}
    assert hash(parse(nested)) == hash(parse(nested))


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (None, "filter"),
        ([], "filter"),
        ("year", "filter"),
        ({}, "type"),
        ({"type": "like", "key": "a", "value": 1}, "type"),
        ({"type": ["eq"], "key": "a", "value": 1}, "type"),
        ({"type": "eq", "value": 1}, "key"),
        ({"type": "eq", "key": "", "value": 1}, "key"),
        ({"type": "eq", "key": 5, "value": 1}, "key"),
        ({"type": "eq", "key": "k" * 1_001, "value": 1}, "key"),
        ({"type": "eq", "key": "a"}, "value"),
        ({"type": "eq", "key": "a", "value": None}, "value"),
        ({"type": "eq", "key": "a", "value": [1]}, "value"),
        ({"type": "eq", "key": "a", "value": float("inf")}, "value"),
        ({"type": "eq", "key": "a", "value": "v" * 1_001}, "value"),
        ({"type": "gt", "key": "a", "value": True}, "value"),
        ({"type": "in", "key": "a", "value": 1}, "value"),
        ({"type": "in", "key": "a", "value": "text"}, "value"),
        ({"type": "in", "key": "a", "value": [0] * 1_001}, "value"),
        ({"type": "nin", "key": "a", "value": [1, [2]]}, "value[1]"),
        ({"type": "eq", "key": "a", "value": 1, "boost": 2}, "boost"),
        ({"type": "and"}, "filters"),
        ({"type": "and", "filters": []}, "filters"),
        ({"type": "and", "filters": {"type": "eq"}}, "filters"),
        ({"type": "or", "filters": [_compare("eq", "a", 1), {"type": "eq"}]}, "filters[1].key"),
        ({"type": "or", "filters": [_compare("eq", "a", 1)], "key": "a"}, "key"),
        ({"type": "not"}, "filter"),
        ({"type": "not", "filter": {"type": "and", "filters": [1]}}, "filter.filters[0]"),
    ],
    ids=str,
)
def test_malformed_filter_is_refused_with_its_place(raw: object, place: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(raw)
    assert caught.value.message.startswith(f"{place}: ")
    assert len(caught.value.message) < 300
    assert caught.value.parameter == "filters"
    assert isinstance(caught.value, InvalidRequest)


def test_depth_is_bounded() -> None:
    raw = _compare("eq", "a", 1)
    for _ in range(7):
        raw = {"type": "not", "filter": raw}
    assert _matches(raw, {"a": 2})
    with pytest.raises(InvalidFilter, match="nested deeper than 8"):
        parse({"type": "not", "filter": raw})
    for _ in range(10_000):
        raw = {"type": "and", "filters": [raw]}
    with pytest.raises(InvalidFilter, match="nested deeper than 8"):
        parse(raw)


def test_size_is_bounded() -> None:
    parts = [_compare("eq", "a", n) for n in range(99)]
    assert _matches({"type": "or", "filters": parts}, {"a": 98})
    with pytest.raises(InvalidFilter, match=r"filters\[99\]: more than 100 parts"):
        parse({"type": "or", "filters": [*parts, parts[0]]})


_scalar = st.one_of(
    st.text(max_size=3), st.integers(-3, 3), st.floats(-3, 3, width=16), st.booleans()
)
_comparison = st.one_of(
    st.builds(_compare, st.sampled_from(["eq", "ne"]), st.sampled_from("abc"), _scalar),
    st.builds(
        _compare,
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        st.sampled_from("abc"),
        _scalar.filter(lambda value: not isinstance(value, bool)),
    ),
    st.builds(
        _compare,
        st.sampled_from(["in", "nin"]),
        st.sampled_from("abc"),
        st.lists(_scalar, max_size=4),
    ),
)
_filter = st.recursive(
    _comparison,
    lambda inner: st.one_of(
        st.builds(
            lambda type_, filters: {"type": type_, "filters": filters},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda part: {"type": "not", "filter": part}, inner),
    ),
    max_leaves=6,
).filter(lambda raw: json.dumps(raw).count("type") < 8)
_metadata = st.dictionaries(st.sampled_from("abc"), _scalar)


@given(first=_filter, second=_filter, metadata=_metadata)
def test_boolean_laws_hold(
    first: dict[str, Any], second: dict[str, Any], metadata: dict[str, Any]
) -> None:
    a, b = _matches(first, metadata), _matches(second, metadata)
    assert _matches({"type": "and", "filters": [first, second]}, metadata) is (a and b)
    assert _matches({"type": "or", "filters": [first, second]}, metadata) is (a or b)
    assert _matches({"type": "not", "filter": first}, metadata) is not a


@given(key=st.sampled_from("abc"), value=_scalar, metadata=_metadata)
def test_ne_and_nin_are_the_opposites_of_eq_and_in(
    key: str, value: object, metadata: dict[str, Any]
) -> None:
    equal = _matches(_compare("eq", key, value), metadata)
    assert _matches(_compare("ne", key, value), metadata) is not equal
    assert _matches(_compare("in", key, [value]), metadata) is equal
    assert _matches(_compare("nin", key, [value]), metadata) is not equal


_json = st.recursive(
    st.one_of(st.none(), _scalar, st.sampled_from(TYPES)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "key", "value", "filters", "filter"]), inner, max_size=4
        ),
    ),
    max_leaves=10,
)


@given(raw=_json, metadata=_metadata)
def test_any_json_is_a_filter_or_an_invalid_filter(raw: object, metadata: dict[str, Any]) -> None:
    try:
        chosen = parse(raw)
    except InvalidFilter:
        return
    assert matches(chosen, metadata) in (True, False)
