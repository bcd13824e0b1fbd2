"""The expression language: what it computes, what it refuses, and that nothing of it runs."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest
from infra.expectations.compiling import compile_expression
from infra.expectations.expression import check_pattern, parse

FRAME = pl.DataFrame(
    {
        "a": [1, 5, None],
        "b": [2, 2, 2],
        "s": ["Abc", None, " x "],
        "day": [date(2024, 1, 31), date(2024, 2, 1), None],
        "at": [datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC), None],
        "two words": [1, 2, 3],
        "flag": [True, False, None],
    }
)


def compute(text: str) -> list[Any]:
    return FRAME.select(compile_expression(parse(text))).to_series().to_list()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a < b", [True, False, None]),
        ("1 <= a < b + 1", [True, False, None]),
        ("a + b * 2 == 5", [True, False, None]),
        ("(a - 1) / 2 == 2.0", [False, True, None]),
        ("a // 2 == 2 and a % 2 == 1", [False, True, None]),
        ("-a < -2", [False, True, None]),
        ("not a > b", [True, False, None]),
        ("a > b or b == 2", [True, True, True]),
        ("a > b and b != 2", [False, False, False]),
        ("a in [1, 2]", [True, False, None]),
        ("a not in (1, 2)", [False, True, None]),
        ("a in []", [False, False, None]),
        ("s in ['Abc', 'x']", [True, None, False]),
        ("a is None", [False, False, True]),
        ("a is not None", [True, True, False]),
        ("is_missing(s)", [False, True, False]),
        ("a > 2 if flag else a < 2", [False, False, None]),
        ("length(s) == 3", [True, None, True]),
        ("lower(s) == 'abc'", [True, None, False]),
        ("upper(strip(s)) == 'X'", [False, None, True]),
        ("starts_with(s, 'A') and ends_with(s, 'c')", [True, None, False]),
        ("contains(s, '.')", [False, None, False]),
        (r"matches(s, '^\w+$')", [True, None, False]),
        ("abs(a - 4) == 3", [True, False, None]),
        ("day < date('2024-02-01')", [True, False, None]),
        ("at < moment('2024-01-31T12:00:00+01:00')", [True, False, None]),
        ("year(day) == 2024 and month(day) == 1 and day(day) == 31", [True, False, None]),
        ("weekday(day) == 3", [True, False, None]),
        ("column('two words') >= 2", [False, True, True]),
        ("flag == True", [True, False, None]),
        ("a > 1 and flag", [False, False, None]),
    ],
)
def test_expression_is_computed_as_sql_would(text: str, values: list[Any]) -> None:
    assert compute(text) == values


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('ls')",
        "a.__class__",
        "open('x')",
        "(lambda: a)()",
        "[x for x in a]",
        "a if (b := 1) else a",
        "f'{a}'",
        "a ** 9999999",
        "a << 1",
        "a & b",
        "a[0]",
        "a in b",
        "a in [b]",
        "abs(a, b)",
        "abs()",
        "abs(x=a)",
        "abs(*a)",
        "contains(s, s)",
        "column(a)",
        "date('soon') < day",
        "matches(s, '(?=x)')",
        "a is 1",
        "a == None",
        "a is None < b",
        "a > 99999999999999999999",
        "a == b'x'",
        "a == 1j",
        "a == ...",
        "await a",
        "yield a",
        "a; b",
        "a = b",
        "",
        "   ",
        "(",
        "\x00",
        "1 < 2",
    ],
)
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_unknown_function_suggests_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="no function 'lenght'; did you mean 'length'"):
        parse("lenght(s) > 1")


@pytest.mark.parametrize(
    "text",
    ["(" * 900 + "a" + ")" * 900, "-" * 1_500 + "a", "a" + "+a" * 900, "not " * 400 + "a",
     "a" * 3_000, "a<" * 900 + "a", "abs(" * 300 + "a" + ")" * 300],
)  # fmt: skip
def test_deep_and_long_expressions_are_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        parse(text)
    assert time.perf_counter() - started < 1


@given(st.text(alphabet="ab1.()[]'\"<>=!+-*/%, notrmi\\d_", max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        expression = parse(text)
    except InvalidRequest:
        return
    compile_expression(expression)


NUMBERS = st.none() | st.integers(-50, 50)
COMPARISONS = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8),
    COMPARISONS,
    st.sampled_from(["+", "-", "*"]),
    st.integers(-9, 9),
)
@settings(max_examples=100, deadline=None)
def test_it_computes_what_python_would(
    rows: Any, comparison: str, operator: str, number: int
) -> None:
    text = f"a {operator} {number} {comparison} b"
    frame = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.Int64}, orient="row")
    computed = frame.select(compile_expression(parse(text))).to_series().to_list()
    expected = [
        None if None in row else eval(text, {}, dict(zip("ab", row, strict=True))) for row in rows
    ]
    assert computed == expected


def test_expression_that_is_no_condition_or_compares_other_types_fails_as_a_value(
    judge: Any,
) -> None:
    assert "not true or false" in judge(FRAME, rule="expression", expression="a + b").message
    result = judge(FRAME, rule="expression", expression="s > 1")
    assert not result.passed
    assert "cannot be evaluated" in result.message
    assert "No column 'aa'" in judge(FRAME, rule="expression", expression="aa > b").message


def test_rows_with_a_missing_value_pass(judge: Any) -> None:
    result = judge(FRAME, rule="expression", expression="a < b")
    assert (result.checked, result.failing) == (2, 1)
    assert result.samples[0].values == {"a": 5, "b": 2}
    assert result.name == "expression(a, b)"


@pytest.mark.parametrize(
    "pattern", ["(a{1000}){1000}", r"\p{L}{2000}{50}", "(?<=a)b", r"(a)\1", "["]
)
def test_pattern_that_could_be_slow_or_large_is_refused(pattern: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest, match="not a regular expression"):
        check_pattern(pattern)
    assert time.perf_counter() - started < 3
