"""Rules of a table as a whole: its columns, its rows, its statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

import polars as pl

from infra.expectations import table_rules
from infra.expectations.comparing import ORDERED, fitting, plain
from infra.expectations.evaluation import Stated, Table
from infra.expectations.report import shown
from infra.expectations.types import is_of

_STATISTICS: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "min": lambda values: values.min(),
    "max": lambda values: values.max(),
    "mean": lambda values: values.mean(),
    "median": lambda values: values.median(),
    "std": lambda values: values.std(),
    "sum": lambda values: values.sum(),
    "distinct": lambda values: values.n_unique(),
    "distinct_share": lambda values: values.n_unique() / values.len(),
}


def evaluate_columns(rule: table_rules.Columns, table: Table) -> Stated:
    """Compare the names and types of the columns with those declared."""
    problems = []
    present = list(table.schema)
    for name, wanted in rule.columns.items():
        kind = wanted.type if isinstance(wanted, table_rules.ColumnType) else wanted
        if name not in table.schema:
            if not (isinstance(wanted, table_rules.ColumnType) and wanted.optional):
                problems.append(f"{name!r} is missing")
        elif kind is not None and not is_of(table.schema[name], kind):
            problems.append(f"{name!r} holds {table.schema[name]}, not {kind}")
    extra = [name for name in present if name not in rule.columns]
    if rule.others == "forbid" and extra:
        problems.append(f"not declared: {', '.join(map(repr, extra[:20]))}")
    declared = [name for name in rule.columns if name in table.schema]
    if rule.ordered and declared != [name for name in present if name in rule.columns]:
        problems.append(f"the order is {present[:20]!r}")
    message = "; ".join(problems) if problems else f"{len(declared)} columns are as declared"
    return Stated(not problems, message, {"columns": len(present)})


def evaluate_rows(rule: table_rules.Rows, table: Table) -> Stated:
    """Count the rows."""
    count = int(table.frame.select(pl.len()).collect().item())
    return _between(count, rule.min, rule.max, what="rows")


def evaluate_statistic(rule: table_rules.Statistic, table: Table) -> Stated:
    """Compute one number of the column."""
    needed = ORDERED if rule.statistic in {"min", "max", "median"} else ["number", "boolean"]
    dtype = table.schema[rule.column]
    if not rule.statistic.startswith("distinct"):
        table.require(rule.column, needed, "a number or, for min, max and median, a date")
    number = _STATISTICS[rule.statistic](plain(dtype).drop_nulls())
    found = table.select(rule.column).select(number).collect().item()
    if found is None:
        return Stated(passed=False, message=f"column {rule.column!r} has too few values for it")
    zone = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
    if isinstance(found, datetime):
        dtype = pl.Datetime("us", zone)
    elif not isinstance(found, date):
        dtype = pl.Float64()
    low, high = fitting(rule.min, dtype), fitting(rule.max, dtype, late=True)
    return _between(found, low, high, what=rule.statistic)


def _between(number: Any, low: Any, high: Any, *, what: str) -> Stated:
    passed = (low is None or number >= low) and (high is None or number <= high)
    bounds = [
        f"{word} {_figure(bound)}"
        for word, bound in (("at least", low), ("at most", high))
        if bound is not None
    ]
    return Stated(
        passed, f"{what}: {_figure(number)}; {' and '.join(bounds)}", {what: shown(number)}
    )


def _figure(number: Any) -> str:
    return f"{number:.6g}" if isinstance(number, float) else str(shown(number))
