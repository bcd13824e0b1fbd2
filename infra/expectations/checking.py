"""Checks a table against a suite; a rule that cannot be evaluated fails, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl

from infra.errors import InvalidRequest, NotFound, RagstoneError
from infra.expectations import (
    chat,
    duplicates,
    expression,
    freshness,
    table_rules,
    text_rules,
    texts,
    value_rules,
    values,
    whole_table,
)
from infra.expectations.compiling import column, compile_expression
from infra.expectations.evaluation import Judged, Models, Stated, Table, readable
from infra.expectations.recognizers import mask
from infra.expectations.report import Report, Result, Sample, shown
from infra.expectations.rules import RowRule, Rule
from infra.expectations.suite import Suite

_UNFIT = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # of dates that Python's calendar does not have
    OverflowError,
    ValueError,
    TypeError,
)
_EVALUATORS: Mapping[type[Rule], Callable[[Any, Table], Judged | Stated]] = {
    table_rules.Columns: whole_table.evaluate_columns,
    table_rules.Rows: whole_table.evaluate_rows,
    value_rules.Nulls: values.evaluate_nulls,
    value_rules.Unique: values.evaluate_unique,
    value_rules.Range: values.evaluate_range,
    value_rules.Categories: values.evaluate_categories,
    value_rules.Pattern: values.evaluate_pattern,
    table_rules.Statistic: whole_table.evaluate_statistic,
    table_rules.Freshness: freshness.evaluate_freshness,
    value_rules.Expression: values.evaluate_expression,
    text_rules.Length: texts.evaluate_length,
    text_rules.Language: texts.evaluate_language,
    text_rules.Duplicates: duplicates.evaluate_duplicates,
    text_rules.Pii: texts.evaluate_pii,
    text_rules.Chat: chat.evaluate_chat,
}


def run(
    suite: Suite,
    frame: pl.LazyFrame,
    *,
    now: datetime,
    samples: int,
    models: Models | None = None,
) -> Report:
    """Evaluate every rule of a suite."""
    schema = frame.collect_schema()
    index = "row"
    while index in schema:
        index += "_"
    whole = Table(frame.with_row_index(index), schema, now, index, models or Models())
    results = [_result(suite, check, whole, samples) for check in suite.checks]
    results += [_untranslated(text) for text in suite.untranslated]
    rows = int(whole.frame.select(pl.len()).collect().item())
    passed = all(result.passed for result in results if result.severity == "required")
    return Report(suite.name, suite.digest, rows, len(schema), passed, now, tuple(results))


def as_frame(data: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]) -> pl.LazyFrame:
    """Return a table, or its batches, as one lazy frame.

    Raises:
        InvalidRequest: there is no batch, or their columns differ.
    """
    if isinstance(data, pl.DataFrame | pl.LazyFrame):
        return data.lazy()
    batches = list(data)
    if not batches:
        raise InvalidRequest("There is no batch to check; give at least one, which may be empty")
    try:
        return pl.concat(batches, how="vertical_relaxed").lazy()
    except pl.exceptions.PolarsError as error:
        raise InvalidRequest(f"The batches are not of one table: {error}") from None


def _result(suite: Suite, check: Rule, whole: Table, samples: int) -> Result:
    try:
        table = _narrowed(check, whole)
        verdict = _EVALUATORS[type(check)](check, table)
        if isinstance(verdict, Stated):
            return _make(check, verdict.passed, verdict.message, observed=dict(verdict.observed))
        return _judged(suite, check, table, verdict=verdict, samples=samples)
    except RagstoneError as error:
        return _make(check, False, error.message)
    except _UNFIT as error:
        # What cannot be compared or computed; the words may quote the data.
        first = str(error).strip().partition("\n")[0]
        return _make(check, False, f"cannot be evaluated: {mask(first)[:300]}")


def _narrowed(check: Rule, whole: Table) -> Table:
    for name in check.reads:
        if name not in whole.schema:
            raise NotFound("column", name, among=whole.schema)
    if check.where is None:
        return whole
    condition = compile_expression(expression.parse(check.where))
    return replace(whole, frame=whole.frame.filter(condition))


def _judged(suite: Suite, check: Rule, table: Table, *, verdict: Judged, samples: int) -> Result:
    bad = (~verdict.good).arg_true()
    share = len(bad) / verdict.checked if verdict.checked else float(bool(len(bad)))
    allowed = check.max_failing_share if isinstance(check, RowRule) else 0.0
    message = f"{len(bad)} of {verdict.checked} rows fail"
    if len(bad):
        message += f" ({share:.2%})" + (f"; at most {allowed:.2%} may" if allowed else "")
    names = [*suite.key, *check.reads]
    return _make(
        check,
        share <= allowed,
        message,
        checked=verdict.checked,
        failing=len(bad),
        observed=dict(verdict.observed),
        samples=_samples(table, verdict, bad[:samples].to_list(), names),
    )


def _samples(
    table: Table, verdict: Judged, positions: list[int], names: list[str]
) -> tuple[Sample, ...]:
    """Take the first failing rows."""
    if not positions:
        return ()
    wanted = [name for name in dict.fromkeys(names) if name in table.schema]
    place = "position"
    while place in table.schema or place == table.index:
        place += "_"
    rows = (
        table.frame.select(
            column(table.index), *(readable(column(name), table.schema[name]) for name in wanted)
        )
        .with_row_index(place)
        .filter(pl.col(place).is_in(positions))
        .collect()
    )
    return tuple(
        Sample(
            row=int(row[table.index]),
            values={name: shown(row[name]) for name in wanted},
            reason=mask(verdict.reasons(row[place])),
        )
        for row in rows.iter_rows(named=True)
    )


def _untranslated(text: str) -> Result:
    return Result(
        name=text,
        rule="untranslated",
        severity="warning",
        passed=False,
        message="this expectation has no counterpart here, so it was not checked",
    )


def _make(check: Rule, passed: bool, message: str, **figures: Any) -> Result:
    return Result(
        name=check.name or f"{check.rule}({', '.join(check.subject)})",
        rule=check.rule,
        severity=check.severity,
        passed=passed,
        message=message,
        columns=check.subject,
        **figures,
    )
