"""Pseudo-values: what each group of cases adds to a metric of the whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from evals.metric import SetMetric
from evals.scores import Score, State
from evals.trial import Trial

GROUPS = 100
"""The metric is reckoned once for each: more say little more, and take longer."""


@dataclass(frozen=True, slots=True)
class Row:
    """The pseudo-value of a trial's group."""

    case: str
    value: float
    state: State
    group: str


def pseudo_values(metric: SetMetric, trials: Sequence[Trial]) -> list[Row]:
    """Return a row for each trial, whose mean is the metric of the set, freed of its bias.

    Of `g` groups, that of a group is `g` times the metric of all trials less `g - 1` times that of
    all others (Quenouille 1956, Tukey 1958; Kott 2001 for groups). Their mean over groups behaves
    like a mean over cases, so that what is known of means holds for F1 or an area under a curve as
    well; it does not for a median or another statistic that jumps. Cases of one cluster are in one
    group, and a group is the same in every run over the same cases.
    """
    groups = _groups(trials)
    answered = [trial for trial in trials if trial.output is not None]
    whole = metric.score_set(answered) if answered else Score.error("no trial has an output")
    values: dict[str, float] = {}
    if whole.value is not None:
        for group in sorted(set(groups.values())):
            others = [trial for trial in answered if groups[trial.case.cluster] != group]
            left = metric.score_set(others) if others else Score.unscored("there is one group")
            if left.value is not None:
                count = len(set(groups.values()))
                values[group] = count * whole.value - (count - 1) * left.value
    return [_row(trial, groups[trial.case.cluster], values) for trial in trials]


def _row(trial: Trial, group: str, values: dict[str, float]) -> Row:
    if trial.output is None or group not in values:
        return Row(trial.case.id, 0.0, "error", group)
    return Row(trial.case.id, values[group], "scored", group)


def _groups(trials: Sequence[Trial]) -> dict[str, str]:
    """Return the group of each cluster, by the order of hashes: the same in every run."""
    clusters = sorted({trial.case.cluster for trial in trials}, key=_hash)
    count = min(GROUPS, len(clusters))
    return {cluster: str(place % count) for place, cluster in enumerate(clusters)}


def _hash(cluster: str) -> str:
    return hashlib.sha256(cluster.encode("utf-8", "surrogatepass")).hexdigest()
