"""How each expectation of Great Expectations is said in our rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Arguments: TypeAlias = dict[str, Any]
Translator: TypeAlias = Callable[[Arguments], list[dict[str, Any]]]
"""Takes what it understands out of the arguments; what is left over was not understood."""
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("int", "int64", "int32", "integer", "bigint", "smallint", "long"), "integer"),
    **dict.fromkeys(("integertype", "longtype", "number", "int8", "int16"), "integer"),
    **dict.fromkeys(("float", "float64", "float32", "double", "real", "doubletype"), "float"),
    **dict.fromkeys(("floattype", "float_", "double precision"), "float"),
    **dict.fromkeys(("str", "string", "text", "varchar", "stringtype", "char"), "string"),
    **dict.fromkeys(("bool", "boolean", "bool_", "booleantype"), "boolean"),
    **dict.fromkeys(("date", "datetype"), "date"),
    **dict.fromkeys(("datetime", "datetime64", "datetime64[ns]", "timestamp"), "datetime"),
    **dict.fromkeys(("timestamptype", "timestamptz", "datetime.datetime"), "datetime"),
    **dict.fromkeys(("decimal", "numeric", "decimaltype"), "number"),
}


class Untranslatable(Exception):
    """Why one expectation has no counterpart."""


def _bounds(a: Arguments, low: str = "min_value", high: str = "max_value") -> dict[str, Any]:
    found = {"min": a.pop(low, None), "max": a.pop(high, None)}
    return {key: value for key, value in found.items() if value is not None}


def _range(a: Arguments) -> list[dict[str, Any]]:
    strict = (a.pop("strict_min", False), a.pop("strict_max", False))
    word = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
        strict, "both"
    )
    return [{"rule": "range", "column": a.pop("column"), "exclusive": word, **_bounds(a)}]


def _statistic(name: str) -> Translator:
    def translator(a: Arguments) -> list[dict[str, Any]]:
        if a.pop("strict_min", False) or a.pop("strict_max", False):
            raise Untranslatable("strict bounds of a statistic have no counterpart")
        check = {"rule": "statistic", "column": a.pop("column"), "statistic": name, **_bounds(a)}
        return [check]

    return translator


def _values(expect: str, *, complete: bool = False) -> Translator:
    def translator(a: Arguments) -> list[dict[str, Any]]:
        check: dict[str, Any] = {"rule": "categories", "column": a.pop("column"), "expect": expect}
        return [{**check, "values": a.pop("value_set"), "complete": complete}]

    return translator


def _pattern(expect: str) -> Translator:
    return lambda a: [_one_pattern(a.pop("column"), a.pop("regex"), expect)]


def _patterns(expect: str) -> Translator:
    def translator(a: Arguments) -> list[dict[str, Any]]:
        name, every = a.pop("column"), a.pop("regex_list")
        if a.pop("match_on", "any") == "any" and expect == "match":
            return [_one_pattern(name, "|".join(f"(?:{one})" for one in every), expect)]
        return [_one_pattern(name, one, expect) for one in every]

    return translator


def _one_pattern(name: str, regex: str, expect: str) -> dict[str, Any]:
    return {"rule": "pattern", "column": name, "regex": regex, "expect": expect}


def _lengths(a: Arguments) -> list[dict[str, Any]]:
    return [{"rule": "length", "column": a.pop("column"), **_bounds(a)}]


def _length(a: Arguments) -> list[dict[str, Any]]:
    value = a.pop("value")
    return [{"rule": "length", "column": a.pop("column"), "min": value, "max": value}]


def _types(key: str) -> Translator:
    def translator(a: Arguments) -> list[dict[str, Any]]:
        given = a.pop(key)
        names = [given] if isinstance(given, str) else list(given)
        kinds = {_TYPES.get(str(name).lower().partition("(")[0]) for name in names}
        if None in kinds or not kinds:
            raise Untranslatable(f"the types {names!r} have no counterpart")
        if len(kinds) > 1 and kinds > {"integer", "float", "number"}:
            raise Untranslatable(f"the types {names!r} are of several families")
        kind = kinds.pop() if len(kinds) == 1 else "number"
        return [{"rule": "columns", "columns": {a.pop("column"): kind}}]

    return translator


def _ordered_columns(a: Arguments) -> list[dict[str, Any]]:
    names = a.pop("column_list")
    columns = dict.fromkeys(names)
    return [{"rule": "columns", "columns": columns, "others": "forbid", "ordered": True}]


def _column_set(a: Arguments) -> list[dict[str, Any]]:
    others = "forbid" if a.pop("exact_match", True) else "allow"
    return [{"rule": "columns", "columns": dict.fromkeys(a.pop("column_set")), "others": others}]


def _pair(operator: str) -> Translator:
    def translator(a: Arguments) -> list[dict[str, Any]]:
        own = operator + ("=" if operator == ">" and a.pop("or_equal", False) else "")
        first, second = _quoted(a.pop("column_A")), _quoted(a.pop("column_B"))
        holds = f"{first} {own} {second}"
        ignored = a.pop("ignore_row_if", "both_values_are_missing")
        if ignored == "both_values_are_missing":
            holds = (
                f"{first} is None and {second} is None or {_present([first, second])} and {holds}"
            )
        elif ignored == "neither":
            holds = f"{_present([first, second])} and {holds}"
        elif ignored != "either_value_is_missing":
            raise Untranslatable(f"ignore_row_if {ignored!r} has no counterpart")
        return [{"rule": "expression", "expression": holds}]

    return translator


def _sum(a: Arguments) -> list[dict[str, Any]]:
    total = a.pop("sum_total")
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise Untranslatable(f"the sum {total!r} is no number")
    names = [_quoted(name) for name in a.pop("column_list")]
    ignored = a.pop("ignore_row_if", "all_values_are_missing")
    if ignored == "any_value_is_missing":
        return [{"rule": "expression", "expression": f"{' + '.join(names)} == {total!r}"}]
    if ignored not in {"all_values_are_missing", "never"}:
        raise Untranslatable(f"ignore_row_if {ignored!r} has no counterpart")
    # A missing summand counts as nothing there.
    whole = " + ".join(f"(0 if {name} is None else {name})" for name in names)
    holds = f"{whole} == {total!r}"
    if ignored == "all_values_are_missing":
        holds = f"{' and '.join(f'{name} is None' for name in names)} or {holds}"
    return [{"rule": "expression", "expression": holds}]


def _compound(a: Arguments) -> list[dict[str, Any]]:
    missing = {"all_values_are_missing": "value", "any_value_is_missing": "skip"}.get(
        a.pop("ignore_row_if", "all_values_are_missing")
    )
    if missing is None:
        raise Untranslatable("rows without any value are always passed over here")
    return [{"rule": "unique", "columns": a.pop("column_list"), "missing": missing}]


def _present(names: list[str]) -> str:
    return " and ".join(f"{name} is not None" for name in names)


def _quoted(name: str) -> str:
    return f"column({name!r})"


def _exists(a: Arguments) -> list[dict[str, Any]]:
    return [{"rule": "columns", "columns": {a.pop("column"): None}}]


TRANSLATORS: Mapping[str, Translator] = {
    "expect_table_row_count_to_be_between": lambda a: [{"rule": "rows", **_bounds(a)}],
    "expect_table_row_count_to_equal": lambda a: [
        {"rule": "rows", **dict.fromkeys(("min", "max"), a.pop("value"))}
    ],
    "expect_table_columns_to_match_ordered_list": _ordered_columns,
    "expect_table_columns_to_match_set": _column_set,
    "expect_column_to_exist": _exists,
    "expect_column_values_to_be_of_type": _types("type_"),
    "expect_column_values_to_be_in_type_list": _types("type_list"),
    "expect_column_values_to_not_be_null": lambda a: [{"rule": "nulls", "column": a.pop("column")}],
    "expect_column_values_to_be_null": lambda a: [
        {"rule": "nulls", "column": a.pop("column"), "expect": "all"}
    ],
    "expect_column_values_to_be_unique": lambda a: [
        {"rule": "unique", "columns": [a.pop("column")]}
    ],
    "expect_compound_columns_to_be_unique": _compound,
    "expect_column_values_to_be_between": _range,
    "expect_column_values_to_be_in_set": _values("listed"),
    "expect_column_values_to_not_be_in_set": _values("unlisted"),
    "expect_column_distinct_values_to_be_in_set": _values("listed"),
    "expect_column_distinct_values_to_equal_set": _values("listed", complete=True),
    "expect_column_values_to_match_regex": _pattern("match"),
    "expect_column_values_to_not_match_regex": _pattern("no match"),
    "expect_column_values_to_match_regex_list": _patterns("match"),
    "expect_column_values_to_not_match_regex_list": _patterns("no match"),
    "expect_column_value_lengths_to_be_between": _lengths,
    "expect_column_value_lengths_to_equal": _length,
    "expect_column_min_to_be_between": _statistic("min"),
    "expect_column_max_to_be_between": _statistic("max"),
    "expect_column_mean_to_be_between": _statistic("mean"),
    "expect_column_median_to_be_between": _statistic("median"),
    "expect_column_stdev_to_be_between": _statistic("std"),
    "expect_column_sum_to_be_between": _statistic("sum"),
    "expect_column_unique_value_count_to_be_between": _statistic("distinct"),
    "expect_column_proportion_of_unique_values_to_be_between": _statistic("distinct_share"),
    "expect_column_pair_values_a_to_be_greater_than_b": _pair(">"),
    "expect_column_pair_values_to_be_equal": _pair("=="),
    "expect_multicolumn_sum_to_equal": _sum,
}
