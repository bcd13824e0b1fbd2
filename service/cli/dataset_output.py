"""How datasets are shown in the terminal: columns, rows and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.cli.json_values import as_json
from service.cli.output import print_table, say

if TYPE_CHECKING:
    from infra.datasets.difference import Difference
    from infra.datasets.profile import Column, Numbers

CELL = 40
"""Characters of a value in a table."""
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def summary(column: Column) -> tuple[object, ...]:
    """Return the row of a column in a table of all."""
    numbers = column.numbers or column.lengths
    top = ", ".join(f"{cell(top.value)} ({top.count})" for top in column.top[:2])
    lengths = column.lengths
    return (
        column.name,
        column.type,
        column.nulls,
        column.distinct if column.distinct_exact else f"~{column.distinct}",
        f"length {lengths.minimum:g}" if lengths else cell(column.minimum),
        f"{numbers.quantile(0.5):g}" if numbers and column.kind != "time" else None,
        f"length {lengths.maximum:g}" if lengths else cell(column.maximum),
        top,
    )


def print_column(column: Column) -> None:
    """Print all that is known of one column."""
    for name in ("name", "type", "nulls", "distinct", "minimum", "maximum", "not_finite"):
        say(f"{name:<12}{cell(getattr(column, name))}")
    if column.numbers is not None:
        _show_numbers("values", column.numbers)
    if column.lengths is not None:
        _show_numbers("lengths", column.lengths)
    if column.top:
        rows = [(cell(top.value), top.count) for top in column.top]
        print_table(("value", "count"), rows, numbers=("count",))
        if column.top_error:
            say(f"counts may be too low by {column.top_error}")


def _show_numbers(title: str, numbers: Numbers) -> None:
    exact = "" if numbers.exact else ", approximate"
    say(f"{title:<12}mean {_figure(numbers.mean)}, std {_figure(numbers.std)}{exact}")
    say(" " * 12 + ", ".join(f"p{share * 100:g} {numbers.quantile(share):g}" for share in SHARES))


def print_difference(found: Difference) -> None:
    """Print what changed between two datasets."""
    rows = found.rows
    say(f"{found.rows_before} rows -> {found.rows_after} rows")
    changed = f", {rows.changed} changed" if found.key else ""
    say(f"{rows.added} added, {rows.removed} removed{changed}, {rows.unchanged} unchanged")
    for field in found.schema:
        say(f"column {field.name!r}: {field.before or 'absent'} -> {field.after or 'absent'}")
    for name, count in rows.changed_columns.items():
        say(f"  {name} changed in {count} rows")
    for row in found.examples.added:
        say(f"  + {_line(row)}")
    for row in found.examples.removed:
        say(f"  - {_line(row)}")
    for pair in found.examples.changed:
        names = [name for name in pair.before if pair.before[name] != pair.after.get(name)]
        values = (f"{name} {cell(pair.before[name])} -> {cell(pair.after[name])}" for name in names)
        where = {name: pair.before[name] for name in found.key}
        say(f"  ~ {_line(where)}: {', '.join(values)}")
    drift = sorted(found.drift, key=lambda item: -(item.psi or 0))
    table = [
        (
            item.column,
            *(_figure(value) for value in (item.psi, item.total_variation, item.ks)),
            f"{item.nulls_before:.1%} -> {item.nulls_after:.1%}",
            item.compared,
        )
        for item in drift
    ]
    columns = ("column", "PSI", "total variation", "KS", "nulls", "compared by")
    print_table(columns, table, numbers=columns[1:4])


def _line(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={cell(value)}" for name, value in row.items())


def cell(value: object) -> str:
    """Return a value as a table shows it, on one line and cut."""
    if value is None:
        return ""
    text = " ".join(str(value).split()) if isinstance(value, str) else str(as_json(value))
    return text if len(text) <= CELL else f"{text[: CELL - 3]}..."


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
