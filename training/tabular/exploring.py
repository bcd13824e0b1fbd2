"""Looks at a table before anything is learned: what is missing, odd, or gives the target away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from infra.datasets import plain
from infra.datasets.profile import Column as Profiled
from infra.datasets.profile import Profile
from infra.datasets.profiling import profile_batches
from infra.errors import NotFound
from training.tabular import leakage
from training.tabular.leakage import Power

if TYPE_CHECKING:
    import polars as pl

Task = Literal["classification", "regression"]
MUCH_MISSING = 0.3
FAR_QUARTILES = 3.0
"""Of the distance between the quartiles; what is further out is an outlier, after Tukey (1977)."""
MANY_OUTLIERS = 0.005
RARE_CLASS = 0.05
PLACEHOLDERS = frozenset({"?", "na", "n/a", "nan", "null", "none", "-", "--", "unknown", "missing"})
SENTINELS = frozenset({-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0})
SENTINEL_SHARE = 0.005
FEW_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Hint:
    """Something to look at before training."""

    kind: Literal["leakage", "missing", "anomaly", "target", "rows"]
    column: str | None
    words: str

    def __str__(self) -> str:
        return self.words if self.column is None else f"{self.column!r} {self.words}"


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a table is like."""

    name: str
    profile: Profile
    target: str | None
    task: Task | None
    powers: tuple[Power, ...]
    """How well each column alone predicts the target, the best first."""
    duplicates: int
    """Rows that are equal to an earlier one."""
    contradictions: int
    """Rows that equal another in all but the target: nothing can tell them apart."""
    hints: tuple[Hint, ...]


def explore(
    frame: pl.DataFrame, *, name: str, target: str | None, task: Task | None, seed: int = 0
) -> Exploration:
    """Look at all columns, and at how each alone predicts the target.

    Args:
        frame: the rows; leave out those that a model will be measured on.
        name: what the table is called.
        target: the column that will be predicted, if there is one.
        task: by default regression where the target has many different numbers.
        seed: of samples and folds.

    Raises:
        NotFound: there is no such target.
    """
    if target is not None and target not in frame.columns:
        raise NotFound("column", target, among=frame.columns)
    profile = _profile(frame)
    duplicates = len(frame) - frame.n_unique() if len(frame) else 0
    powers: list[Power] = []
    contradictions = 0
    if target is not None:
        task = task or _task_of(profile.column(target))
        powers = leakage.powers(frame, target, task, seed=seed)
        contradictions = leakage.contradictions(frame, target)
    hints = [
        *_of_rows(len(frame), duplicates, contradictions),
        *(hint for each in profile.columns for hint in _of_column(each, profile.rows, target)),
        *_of_powers(powers),
    ]
    if target is not None and task is not None:
        hints += _of_target(profile.column(target), profile.rows, task)
        found = leakage.sum_of_columns(frame, target) if task == "regression" else None
        if found is not None:
            hints.append(Hint("leakage", target, f"is a sum of columns: R2 {found:.4f} by all"))
    order = ("leakage", "target", "missing", "anomaly", "rows")
    return Exploration(
        name,
        profile,
        target,
        task if target is not None else None,
        tuple(powers),
        duplicates,
        contradictions,
        tuple(sorted(hints, key=lambda each: order.index(each.kind))),
    )


def leaks(found: Exploration) -> list[Hint]:
    """Return the hints that a column gives the target away."""
    return [each for each in found.hints if each.kind == "leakage"]


def _profile(frame: pl.DataFrame) -> Profile:
    table = frame.to_arrow()
    schema = plain.plain_schema(table.schema, source="the rows")
    batches = (plain.conform(each, schema, source="the rows") for each in table.to_batches())
    return profile_batches(batches, schema)


def _task_of(target: Profiled) -> Task:
    many = (target.distinct or 0) > FEW_CLASSES
    return "regression" if target.kind == "number" and many else "classification"


def _of_rows(rows: int, duplicates: int, contradictions: int) -> Iterator[Hint]:
    if duplicates:
        words = f"{duplicates:,} of {rows:,} rows are equal to an earlier one"
        yield Hint("rows", None, f"{words}; some may come to lie on both sides of a split")
    if contradictions:
        words = f"{contradictions:,} rows equal another in all but the target"
        yield Hint("rows", None, f"{words}; no model can get all of them right")


def _of_column(column: Profiled, rows: int, target: str | None) -> Iterator[Hint]:
    name = column.name
    missing = column.nulls / max(1, rows)
    if missing >= MUCH_MISSING:
        yield Hint("missing", name, f"is missing in {missing:.0%} of the rows")
    if column.distinct == 1 and not column.nulls:
        yield Hint("anomaly", name, "is always the same")
    if column.not_finite:
        yield Hint("anomaly", name, f"is NaN or infinite in {column.not_finite:,} rows")
    is_whole = column.type.startswith(("int", "uint", "string"))
    if name != target and is_whole and rows > FEW_CLASSES and column.distinct == rows:
        yield Hint("leakage", name, "is different in every row, as an id is")
    yield from _of_values(column, rows)
    yield from _of_outliers(column)


def _of_values(column: Profiled, rows: int) -> Iterator[Hint]:
    for top in column.top:
        share = top.count / max(1, rows)
        if isinstance(top.value, str) and top.value.strip().lower() in PLACEHOLDERS:
            words = f"is {top.value!r} in {share:.1%} of the rows, which may stand for missing"
            yield Hint("missing", column.name, words)
    numbers = column.numbers
    if column.kind != "number" or numbers is None:
        return
    low, high = numbers.quantile(0.25), numbers.quantile(0.75)
    for top in column.top:
        value, share = top.value, top.count / max(1, rows)
        is_apart = isinstance(value, int | float) and not low <= value <= high
        is_end = value in {numbers.minimum, numbers.maximum}
        if is_apart and is_end and float(value) in SENTINELS and share >= SENTINEL_SHARE:
            words = f"is {value:g} in {share:.1%} of the rows, which may stand for missing"
            yield Hint("missing", column.name, words)


def _of_outliers(column: Profiled) -> Iterator[Hint]:
    share = outliers(column)
    if share > MANY_OUTLIERS:
        words = f"lies far out in {share:.1%} of the rows"
        yield Hint("anomaly", column.name, f"{words}, beyond three times its quartiles' distance")


def outliers(column: Profiled) -> float:
    """Return the share of a column's numbers that lie far out, by its quantiles."""
    numbers = column.numbers
    if column.kind != "number" or numbers is None or not numbers.quantiles:
        return 0.0
    low, high = numbers.quantile(0.25), numbers.quantile(0.75)
    reach = FAR_QUARTILES * (high - low)
    if reach == 0:
        return 0.0
    far = sum(not low - reach <= each <= high + reach for each in numbers.quantiles)
    return far / len(numbers.quantiles)


def _of_powers(powers: Sequence[Power]) -> Iterator[Hint]:
    for each in powers:
        if each.gives_away:
            words = f"alone predicts the target: {each.metric} {each.value:.3f}"
            yield Hint("leakage", each.column, f"{words}; is it known before the target is?")
        if each.by_missing is not None:
            words = f"predicts the target by being missing: {each.metric} {each.by_missing:.3f}"
            yield Hint("leakage", each.column, words)


def _of_target(target: Profiled, rows: int, task: Task) -> Iterator[Hint]:
    if target.nulls:
        yield Hint("target", target.name, f"is missing in {target.nulls:,} rows")
    if task == "classification":
        for top in target.top:
            share = top.count / max(1, rows)
            if share < RARE_CLASS and (target.distinct or 0) <= FEW_CLASSES:
                yield Hint("target", target.name, f"is {top.value!r} in {share:.1%} of the rows")


def as_values(found: Exploration) -> dict[str, Any]:
    """Return JSON's values."""
    return {
        "name": found.name,
        "rows": found.profile.rows,
        "target": found.target,
        "task": found.task,
        "duplicates": found.duplicates,
        "contradictions": found.contradictions,
        "hints": [
            {"kind": each.kind, "column": each.column, "words": str(each)} for each in found.hints
        ],
        "powers": [
            {"column": each.column, "metric": each.metric, "value": each.value}
            for each in found.powers
        ],
        "columns": [
            {
                "name": each.name,
                "type": each.type,
                "missing": each.nulls,
                "distinct": each.distinct,
                "outliers": outliers(each),
            }
            for each in found.profile.columns
        ],
    }
