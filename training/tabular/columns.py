"""Which columns a model is given and as what, learned from the rows that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, text_of
from infra.classical_rows import encode, is_text
from infra.errors import InvalidRequest, NotFound
from infra.plugins import require
from training.tabular.specification import Classical

if TYPE_CHECKING:
    import polars as pl

MAX_CLASSES = 1_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns that a model is given."""

    columns: tuple[Column, ...]
    left_out: Mapping[str, str]
    """By name, why; of columns that nobody asked to leave out."""


def choose(train: pl.DataFrame, whole: pl.DataFrame, spec: Classical) -> Chosen:
    """Return the columns of a model.

    Args:
        train: rows that are trained on; categories and ranges are theirs.
        whole: all rows, which say whether a value may be missing.
        spec: what is asked for.

    Raises:
        NotFound: a column that is named does not exist.
        InvalidRequest: no column is left.
    """
    data, kinds = spec.data, spec.features.kinds
    apart = {data.target, data.time, data.group, spec.sampling.weight, *data.leave_out}
    apart |= {view.asked_key for view in data.features}
    joined = {name for view in data.features for name in view.features}
    _check_names([*(each for each in apart if each), *kinds], whole)
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    for name in whole.columns:
        if name in apart:
            continue
        found = _column(train[name], kinds.get(name), spec.data.max_categories)
        if isinstance(found, str):
            left_out[name] = found
        else:
            may_miss = name in joined or _is_missing(whole[name])
            columns.append(found.model_copy(update={"nullable": may_miss}))
    if not columns:
        raise InvalidRequest(
            "No column is left for the model to learn from: "
            + "; ".join(f"{name!r} {why}" for name, why in left_out.items())
        )
    return Chosen(tuple(columns), left_out)


def encoded(frame: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the columns as the pipeline takes them.

    Raises:
        NotFound: a column is absent.
        InvalidRequest: a value is none that the column can hold.
    """
    _check_names([each.name for each in columns], frame)
    return as_frame({each.name: encode(raw(frame[each.name], each), each) for each in columns})


def raw(values: pl.Series, column: Column) -> Any:
    """Return values in the fastest form that says the same."""
    polars = require("polars", extra="classical")
    dtype = values.dtype
    if is_text(column):
        return (values.cast(polars.String) if _is_words(dtype) else values).to_list()
    if dtype.is_numeric() or str(dtype) == "Boolean":
        return np.asarray(values.cast(polars.Float64).to_numpy(), dtype=np.float64)
    return values.to_list()


def as_frame(values: Mapping[str, NDArray[Any]]) -> pl.DataFrame:
    """Return encoded columns as the frame that a pipeline takes."""
    polars = require("polars", extra="classical")
    found: pl.DataFrame = polars.DataFrame(
        [
            polars.Series(
                name,
                column.tolist() if column.dtype == object else column,
                dtype=polars.String if column.dtype == object else polars.Float64,
            )
            for name, column in values.items()
        ]
    )
    return found


def labels(values: pl.Series) -> list[Any]:
    """Return the values of a target as classes are named in `model.json`.

    Raises:
        InvalidRequest: they are dates, lists or the like.
    """
    kind = values.dtype
    if kind.is_integer() or str(kind) in {"Boolean", "String"}:
        return values.to_list()
    if str(kind).startswith(("Categorical", "Enum")):
        return values.cast(require("polars", extra="classical").String).to_list()
    if kind.is_float():
        found = values.to_list()
        return [int(each) if each.is_integer() else each for each in found]
    raise InvalidRequest(f"{values.name!r} holds {kind}, which is no class")


def classes_of(values: Sequence[Any], *, target: str, fewest: int) -> tuple[Any, ...]:
    """Return the classes of training rows, sorted as estimators sort them.

    Raises:
        InvalidRequest: there is one alone, too many, or one has fewer rows than there are folds.
    """
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    if not 2 <= len(counts) <= MAX_CLASSES:
        raise InvalidRequest(
            f"{target!r} has {len(counts)} different value(s) in the rows that are trained on; "
            f"classification takes 2 to {MAX_CLASSES}"
        )
    rare = min(counts, key=lambda each: counts[each])
    if counts[rare] < fewest:
        raise InvalidRequest(
            f"The class {rare!r} of {target!r} has {counts[rare]} row(s) that are trained on, and "
            f"there are {fewest} folds; give more of them, fewer folds, or leave the class out"
        )
    return tuple(sorted(counts, key=None if all(map(_is_whole, counts)) else text_of))


def _check_names(names: Sequence[str], frame: pl.DataFrame) -> None:
    for name in names:
        if name not in frame.columns:
            raise NotFound("column", name, among=frame.columns)


def _column(values: pl.Series, kind: str | None, most: int) -> Column | str:
    """Return what a column is, or why it is left out."""
    dtype, present = values.dtype, values.drop_nulls()
    if dtype.is_float():
        present = present.drop_nans()
    if not len(present):
        return "has no value"
    distinct = present.n_unique()
    if distinct == 1 and len(present) == len(values):
        return f"is always {present[0]!r}"
    name = values.name
    if kind == "category" or (kind is None and _is_words(dtype)):
        return _category(present, distinct, most)
    if str(dtype) == "Boolean":
        return Column(name=name, type="bool")
    if not dtype.is_numeric():
        return f"holds {dtype}" + (" and cannot be a number" if kind else "")
    low, high = float(present.min()), float(present.max())  # type: ignore[arg-type]
    whole = "int64" if dtype.is_integer() else "float64"
    return Column.model_validate({"name": name, "type": whole, "low": low, "high": high})


def _category(present: pl.Series, distinct: int, most: int) -> Column | str:
    if distinct > most:
        return f"has {distinct:,} different values, and data.max_categories is {most:,}"
    dtype = present.dtype
    kinds = {"Boolean": "bool"} if not dtype.is_integer() else {str(dtype): "int64"}
    kind = kinds.get(str(dtype), "string")
    if kind == "string" and not _is_words(dtype):
        return f"holds {dtype} and cannot be a category"
    found = [str(each) if kind == "string" else each for each in present.unique().to_list()]
    values = tuple(sorted(each for each in found if each != ""))
    return Column.model_validate({"name": present.name, "type": kind, "categories": values})


def _is_words(dtype: Any) -> bool:
    return str(dtype).startswith(("String", "Categorical", "Enum"))


def _is_missing(values: pl.Series) -> bool:
    if values.null_count():
        return True
    if values.dtype.is_float():
        return bool(values.is_nan().any())
    return _is_words(values.dtype) and bool((values.cast(str) == "").any())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
