"""From rows to tables: order, hold out, draw, choose columns, encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest, NotFound
from training.tabular import columns, sampling, splitting
from training.tabular.columns import Chosen
from training.tabular.specification import Classical
from training.tabular.table import Table

if TYPE_CHECKING:
    import polars as pl

RESERVED = ("prediction", "probability")
"""Names of columns that a stored reference adds to a model's own."""

SAME = 0.95
"""Of rows to train on that are among those to measure on; then they are meant to be the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a model is trained and measured on."""

    train: Table
    test: Table
    raw_train: pl.DataFrame
    raw_test: pl.DataFrame
    """As they came; rows without a label are left out."""
    chosen: Chosen
    counts: Mapping[str, int]
    """Rows: read, without a label, left for training, drawn of these, held out."""


def prepare(spec: Classical, rows: pl.DataFrame, test: pl.DataFrame | None) -> Material:
    """Divide and encode.

    Args:
        spec: what is asked for.
        rows: of `data.train`.
        test: of `data.test`, if it has other rows to measure on.

    Raises:
        NotFound: a column that is named does not exist.
        InvalidRequest: the rows cannot be divided or learned from as asked.
    """
    target = spec.data.target
    labelled = _labelled(rows, target)
    if test is None:
        split = splitting.hold_out(labelled, spec)
        left, held = split.train, labelled[split.test]
    else:
        left, held = splitting.in_order(labelled, spec.data.time), _labelled(test, target)
        _check_same(labelled, held)
    drawn = sampling.draw(labelled, left, spec.sampling, seed=spec.seed)
    train = labelled[drawn]
    chosen = columns.choose(train, _both(train, held), spec)
    _check_reserved(chosen)
    classes = None
    if spec.task == "classification":
        fewest = spec.split.folds if spec.method == "stratified" else 1
        labels = columns.labels(train[target])
        classes = columns.classes_of(labels, target=target, fewest=fewest)
    return Material(
        _table(train, chosen, spec, classes),
        _table(held, chosen, spec, classes),
        train,
        held,
        chosen,
        {
            "read": len(rows) + (0 if test is None else len(test)),
            "without a label": len(rows) - len(labelled),
            "left for training": len(left),
            "trained on": len(train),
            "held out": len(held),
        },
    )


def _labelled(rows: pl.DataFrame, target: str) -> pl.DataFrame:
    if target not in rows.columns:
        raise NotFound("column", target, among=rows.columns)
    values = rows[target]
    known = values.is_not_null()
    if values.dtype.is_float():
        known &= values.is_not_nan().fill_null(value=False)
    found = rows.filter(known)
    if not len(found):
        raise InvalidRequest(f"No row has a value of {target!r}")
    return found


def _check_same(rows: pl.DataFrame, test: pl.DataFrame) -> None:
    for name in rows.columns:
        if name not in test.columns:
            raise NotFound("column of data.test", name, among=test.columns)
    shared = rows.join(test, on=rows.columns, how="semi", nulls_equal=True)
    if len(shared) >= SAME * len(rows):
        raise InvalidRequest(
            f"{len(shared):,} of {len(rows):,} rows of data.train are in data.test as well; what "
            "is measured on rows that were trained on says nothing"
        )


def _both(train: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    import polars

    try:
        found: pl.DataFrame = polars.concat(
            [train, held.select(train.columns)], how="vertical_relaxed"
        )
    except polars.exceptions.PolarsError as error:
        raise InvalidRequest(
            f"data.test and data.train have columns of other types: {error}"
        ) from None
    return found


def _check_reserved(chosen: Chosen) -> None:
    for each in chosen.columns:
        if each.name in RESERVED:
            raise InvalidRequest(
                f"A column is called {each.name!r}, which is what a model's answers are stored "
                "as; rename it or leave it out"
            )


def _table(
    frame: pl.DataFrame, chosen: Chosen, spec: Classical, classes: tuple[Any, ...] | None
) -> Table:
    group, time = spec.data.group, spec.data.time
    return Table(
        columns.encoded(frame, chosen.columns),
        _truth(frame, spec.data.target, classes),
        classes,
        sampling.weights(frame, spec.sampling),
        None if group is None else _codes(frame[group].to_list()),
        None if time is None else _codes(frame[time].to_list()),
    )


def _truth(frame: pl.DataFrame, target: str, classes: tuple[Any, ...] | None) -> NDArray[Any]:
    if classes is None:
        values = frame[target]
        if not values.dtype.is_numeric():
            raise InvalidRequest(f"{target!r} holds {values.dtype}; regression takes numbers")
        found = np.asarray(values.to_numpy(), dtype=np.float64)
        if not np.isfinite(found).all():
            raise InvalidRequest(f"{target!r} holds values that are not finite")
        return found
    codes = {label: code for code, label in enumerate(classes)}
    labels = columns.labels(frame[target])
    unknown = next((each for each in labels if each not in codes), None)
    if unknown is not None:
        raise InvalidRequest(
            f"The class {unknown!r} of {target!r} is among the rows held out and not among those "
            "that are trained on; divide the rows otherwise or leave the class out"
        )
    return np.array([codes[each] for each in labels], dtype=np.int64)


def _codes(values: list[Any]) -> NDArray[Any]:
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)
