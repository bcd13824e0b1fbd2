"""Labels in a file: which of them a model contradicts, and how far those who gave them agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import orjson

from evals.cases import Row
from evals.labels import suspect_labels
from evals.problems import nearest
from evals.statistics.agreement import Agreement, cohen, krippendorff
from evals.statistics.intervals import Interval
from infra.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table are called."""

    id: str = "id"
    """If there is no such column, rows are numbered from 1."""
    label: str = "label"
    probabilities: str = "probabilities"
    """A mapping from labels to probabilities, by a model that was not trained on the row."""
    annotators: tuple[str, ...] = ()
    """A column for each who labelled; empty where one did not."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is probably wrong."""

    row: str
    label: str
    suggested: str
    """What the model prefers."""
    quality: float
    """How well the label fits, between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two annotators and the rows that both labelled."""

    first: str
    second: str
    rows: int
    agreement: Agreement | None
    """None where kappa is not defined: too few rows, or one label alone."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a file of labels."""

    rows: int
    suspects: tuple[Suspect, ...] = ()
    """The most doubtful first."""
    share: Interval | None = None
    """Of rows that are suspect; None without probabilities."""
    alpha: float | None = None
    """Krippendorff's, of all annotators; None where there are not two, or it is not defined."""
    pairs: tuple[Pair, ...] = ()


def inspect(rows: Iterable[Row], columns: Columns) -> Inspection:
    """Return what is doubtful in the labels of a table.

    Raises:
        InvalidRequest: there is nothing to hold labels against, or a row has no label or no
            probabilities that add up to 1; names the row.
        MissingDependency: the extra `evals` is not installed.
    """
    found = list(rows)
    known = dict.fromkeys(name for _, row in found for name in row)
    if not found:
        raise InvalidRequest("The file has no rows; there is no label to look at")
    for name in columns.annotators:
        if name not in known:
            raise InvalidRequest(f"No row has the column {name!r}{nearest(name, known)}")
    has_model = columns.probabilities in known
    if not has_model and len(columns.annotators) < 2:
        wanted = columns.probabilities
        raise InvalidRequest(
            f"No row has the column {wanted!r}{nearest(wanted, known)}; give the probabilities of "
            "a model, or two annotators"
        )
    suspects, share = _suspects(found, columns) if has_model else ((), None)
    given = {name: [_name(row.get(name)) for _, row in found] for name in columns.annotators}
    return Inspection(
        len(found),
        suspects,
        share,
        _alpha(list(given.values())),
        tuple(_pair(*names, given) for names in combinations(given, 2)),
    )


def _suspects(rows: Sequence[Row], columns: Columns) -> tuple[tuple[Suspect, ...], Interval]:
    labels, shares = [], []
    for place, row in rows:
        label = _name(row.get(columns.label))
        if label is None:
            raise InvalidRequest(f"{place}: no {columns.label!r}{nearest(columns.label, row)}")
        labels.append(label)
        shares.append(_mapping(row.get(columns.probabilities), place))
    classes = sorted({*labels, *(name for share in shares for name in share)})
    predicted = np.array([[share.get(name, 0.0) for name in classes] for share in shares])
    for (place, _), total in zip(rows, predicted.sum(axis=1), strict=True):
        if not abs(total - 1) <= 1e-3:
            raise InvalidRequest(f"{place}: the probabilities add up to {total:.4g}, not to 1")
    found = suspect_labels([classes.index(label) for label in labels], predicted)
    suspects = tuple(
        Suspect(
            _name(rows[at][1].get(columns.id)) or str(at + 1),
            labels[at],
            classes[better],
            float(found.quality[at]),
        )
        for at, better in zip(found.rows.tolist(), found.suggested.tolist(), strict=True)
    )
    return suspects, found.share


def _mapping(value: Any, place: str) -> dict[str, float]:
    """Return probabilities by label, also from JSON in a cell of a CSV file."""
    try:
        read = orjson.loads(value) if isinstance(value, str) else value
        if isinstance(read, Mapping):
            return {str(name): float(share or 0.0) for name, share in read.items()}
    except (TypeError, ValueError):
        pass
    raise InvalidRequest(
        f'{place}: the probabilities are {value!r:.60}; write them as {{"label": 0.9, ...}}'
    )


def _name(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _alpha(given: Sequence[Sequence[str | None]]) -> float | None:
    try:
        return krippendorff(list(zip(*given, strict=True))) if len(given) > 1 else None
    except InvalidRequest:
        return None


def _pair(first: str, second: str, given: Mapping[str, Sequence[str | None]]) -> Pair:
    both = [
        (one, other)
        for one, other in zip(given[first], given[second], strict=True)
        if one is not None and other is not None
    ]
    try:
        agreement = cohen([one for one, _ in both], [other for _, other in both])
    except InvalidRequest:
        agreement = None
    return Pair(first, second, len(both), agreement)
