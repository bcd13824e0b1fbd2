"""Rules of the values in each row, run by pandera on polars."""

from __future__ import annotations

from typing import Any

import pandera.polars as pandera
import polars as pl
from pandera.constants import CHECK_OUTPUT_KEY

from infra.errors import InvalidRequest
from infra.expectations import expression, value_rules
from infra.expectations.comparing import KEY, ORDERED, fitting, listed, plain
from infra.expectations.compiling import compile_expression
from infra.expectations.evaluation import Judged, Stated, Table, readable
from infra.expectations.report import shown
from infra.expectations.types import is_of

_MOST_UNEXPECTED = 10


def evaluate_nulls(rule: value_rules.Nulls, table: Table) -> Judged:
    """See which rows have a value."""
    missing = _missing(table.schema[rule.column])
    good = ~missing if rule.expect == "none" else missing
    check = pandera.Check(lambda data: data.lazyframe.select(good))
    judged = _run(table.select(rule.column), check)
    return Judged(judged.good, len(judged.good))


def evaluate_unique(rule: value_rules.Unique, table: Table) -> Judged:
    """See which rows share all their values of some columns with another."""
    columns = [pl.col(str(place)) for place in range(len(rule.columns))]
    present = [column.is_not_null() for column in columns]
    applies = pl.all_horizontal(present) if rule.missing == "skip" else pl.any_horizontal(present)
    good = pl.when(applies).then(pl.struct(columns).is_unique())
    check = pandera.Check(lambda data: data.lazyframe.select(good))
    return _run(table.select(*rule.columns), check, applies=applies)


def evaluate_range(rule: value_rules.Range, table: Table) -> Judged:
    """Compare each value with the bounds."""
    dtype = table.require(rule.column, ORDERED, "a number, a date or a moment")
    above, below = (rule.exclusive in {side, "both"} for side in ("min", "max"))
    low, high = fitting(rule.min, dtype, late=above), fitting(rule.max, dtype, late=not below)
    checks = []
    if low is not None:
        checks.append((pandera.Check.gt if above else pandera.Check.ge)(low))
    if high is not None:
        checks.append((pandera.Check.lt if below else pandera.Check.le)(high))
    frame = table.select(rule.column).select(plain(dtype))
    judged = [_run(frame, check) for check in checks]
    good = judged[0].good
    for other in judged[1:]:
        good &= other.good
    seen = readable(pl.col(KEY), dtype)
    found = frame.select(seen.min().alias("min"), seen.max().alias("max"))
    observed = {name: shown(value) for name, value in found.collect().row(0, named=True).items()}
    return Judged(good, judged[0].checked, observed)


def evaluate_categories(rule: value_rules.Categories, table: Table) -> Judged | Stated:
    """Compare each value with the list."""
    dtype = table.schema[rule.column]
    values = listed(rule, dtype).drop_nulls()
    frame = table.select(rule.column).select(plain(dtype))
    check = pandera.Check.isin if rule.expect == "listed" else pandera.Check.notin
    judged = _run(frame, check(values.to_list()))
    bad = frame.select(readable(pl.col(KEY), dtype)).collect().to_series().filter(~judged.good)
    counts = bad.value_counts(sort=True).head(_MOST_UNEXPECTED).rows()
    observed: dict[str, Any] = {"unexpected": {str(shown(value)): n for value, n in counts}}
    if rule.complete:
        absent = set(values.to_list()) - set(frame.unique().collect().to_series().to_list())
        if absent:
            names = ", ".join(repr(shown(value)) for value in sorted(absent, key=str)[:20])
            return Stated(passed=False, message=f"never occurs: {names}", observed=observed)
    return Judged(judged.good, judged.checked, observed)


def evaluate_pattern(rule: value_rules.Pattern, table: Table) -> Judged:
    """Search each text for the regular expression."""
    table.require(rule.column, ["string"], "text")
    frame = table.select(rule.column).select(plain(table.schema[rule.column]))
    found = pl.col(KEY).str.contains(rule.regex)
    good = found if rule.expect == "match" else ~found
    return _run(frame, pandera.Check(lambda data: data.lazyframe.select(good)))


def evaluate_expression(rule: value_rules.Expression, table: Table) -> Judged:
    """Compute the expression for each row."""
    holds = compile_expression(expression.parse(rule.expression))
    frame = table.frame.select(holds.alias(KEY))
    if frame.collect_schema()[KEY] not in (pl.Boolean, pl.Null):
        raise InvalidRequest(
            f"{rule.expression!r} is {frame.collect_schema()[KEY]}, not true or false"
        )
    good = pl.col(KEY).cast(pl.Boolean)
    return _run(frame, pandera.Check(lambda data: data.lazyframe.select(good)))


def _run(frame: pl.LazyFrame, check: Any, *, applies: pl.Expr | None = None) -> Judged:
    """Let pandera check a frame; a value that is missing passes."""
    good = check(frame, KEY).check_output.collect()[CHECK_OUTPUT_KEY]
    applies = pl.col(KEY).is_not_null() if applies is None else applies
    checked = frame.select(applies.alias("applies")).select(pl.col("applies").sum())
    return Judged(good, int(checked.collect().item()))


def _missing(dtype: pl.DataType) -> pl.Expr:
    missing = pl.col(KEY).is_null()
    return (
        missing | pl.col(KEY).is_nan().fill_null(value=True) if is_of(dtype, "float") else missing
    )
