"""Two evaluations side by side: each metric before and after, and which cases changed."""

from __future__ import annotations

from dataclasses import dataclass

from evals.evaluation import Evaluation
from evals.evidence import weigh
from evals.score_tables import paired
from evals.statistics.sign_flip import sign_flip
from evals.suite import ALL
from evals.verdicts import table
from infra.errors import IncomparableBaseline


@dataclass(frozen=True, slots=True)
class Row:
    """One metric on one slice in both evaluations, over the cases that both scored."""

    metric: str
    slice: str
    before: float | None
    after: float | None
    difference: float | None
    """The mean of the differences of cases."""
    low: float | None
    """Of the 95 % interval of the difference."""
    high: float | None
    p: float | None
    """Of 'nothing changed', two-sided, by permutation."""
    cases: int


@dataclass(frozen=True, slots=True)
class Change:
    """A case whose score changed."""

    metric: str
    case: str
    before: float
    after: float


def compare(before: Evaluation, after: Evaluation) -> list[Row]:
    """Return a row for each metric that both have, on each slice of the later one.

    Raises:
        IncomparableBaseline: they are of other cases, or of other versions of a metric.
    """
    if before.described.dataset_digest != after.described.dataset_digest:
        raise IncomparableBaseline(
            "The two evaluations are of other cases; run one of them again on those of the other"
        )
    slices = [ALL, *(each.name for each in after.described.suite.slices)]
    return [
        _row(metric, name, before, after=after)
        for metric in after.described.metrics
        if metric in before.described.metrics
        for name in slices
    ]


def changes(before: Evaluation, after: Evaluation) -> list[Change]:
    """Return the cases that scored otherwise, those that lost most first."""
    found = []
    for metric, by in after.described.metrics.items():
        if metric not in before.described.metrics or by.is_measured or by.is_of_set:
            continue
        sign = 1 if by.higher_is_better else -1
        old, new = _by_case(before, metric), _by_case(after, metric)
        found += [
            (sign * (new[case] - old[case]), Change(metric, case, old[case], new[case]))
            for case in new
            if case in old and new[case] != old[case]
        ]
    found.sort(key=lambda pair: (pair[0], pair[1].metric, pair[1].case))
    return [change for _, change in found]


def _row(metric: str, slice_name: str, before: Evaluation, *, after: Evaluation) -> Row:
    members = {trial.case.id for trial in after.members(slice_name)}
    sample = paired(table(after, metric, members), table(before, metric, members))
    if not sample.values.size or sample.outcomes is None:
        return Row(metric, slice_name, None, None, None, None, None, None, 0)
    old, new = sample.outcomes
    by = after.described.metrics[metric]
    low, high = (None, None) if by.is_of_set else by.bounds
    bounds = None if low is None or high is None else (low - high, high - low)
    weighed = weigh(sample, pairs=True, bounds=bounds)
    interval = None if weighed is None else weighed[1].interval(0.95)
    return Row(
        metric,
        slice_name,
        float(old.mean()),
        float(new.mean()),
        float(sample.values.mean()),
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        sign_flip(sample.values, sample.clusters),
        int(sample.values.size),
    )


def _by_case(evaluation: Evaluation, metric: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for trial in evaluation.trials:
        value = trial.scores[metric].value
        if value is not None and not trial.case.original:
            found.setdefault(trial.case.id, []).append(value)
    return {case: sum(values) / len(values) for case, values in found.items()}
