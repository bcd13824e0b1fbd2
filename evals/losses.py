"""The error of each case of a set, for a diagnosis: from a file, or a slice of an evaluation."""

from __future__ import annotations

from pathlib import Path

from evals.cases import rows_of
from evals.diagnosis import Losses
from evals.evaluation import Evaluation
from evals.problems import nearest
from evals.score_tables import single
from evals.suite import ALL
from evals.verdicts import table
from infra.errors import InvalidRequest, NotFound

CLUSTER = "cluster"
"""The column of a file that says what cases have in common, if there is one."""


def of_file(path: Path, *, column: str = "error") -> Losses:
    """Return the errors that a column of a table holds: 1 or 0 for wrong or right, or any loss.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: a row has no number there; names it.
    """
    if not path.is_file():
        raise NotFound(
            "file of errors", str(path), among=[str(one) for one in path.parent.glob("*")]
        )
    values, clusters = [], []
    for number, (place, row) in enumerate(rows_of(path), 1):
        if column not in row:
            raise InvalidRequest(f"{place}: no column {column!r}{nearest(column, row)}")
        try:
            values.append(float(row[column]))
        except (TypeError, ValueError):
            raise InvalidRequest(
                f"{place}: {column!r} is {row[column]!r:.60}, which is no number"
            ) from None
        clusters.append(str(row.get(CLUSTER) or f"row {number}"))
    return Losses(values, clusters)


def of_slice(evaluation: Evaluation, metric: str, slice_name: str) -> Losses:
    """Return how far each case of a slice is from the best score that there is.

    Raises:
        NotFound: there is no such metric or slice.
        InvalidRequest: the metric has no best score or no scores of cases, or too few are scored.
    """
    described = evaluation.described
    slices = [ALL, *(each.name for each in described.suite.slices)]
    for kind, name, names in (
        ("metric", metric, list(described.metrics)),
        ("slice", slice_name, slices),
    ):
        if name not in names:
            raise NotFound(kind, name, among=names, are_few=True)
    by = described.metrics[metric]
    best = by.bounds[1] if by.higher_is_better else by.bounds[0]
    if by.is_of_set or best is None:
        raise InvalidRequest(f"{metric!r} has no best score for a case; name a metric that has one")
    members = {trial.case.id for trial in evaluation.members(slice_name)}
    sample = single(table(evaluation, metric, members))
    if not sample.values.size or sample.coverage < described.suite.min_coverage:
        raise InvalidRequest(
            f"{sample.coverage:.1%} of the scores of {metric!r} on {slice_name!r} are there, and "
            f"{described.suite.min_coverage:.1%} must be"
        )
    return Losses(abs(sample.values - best), sample.clusters)
