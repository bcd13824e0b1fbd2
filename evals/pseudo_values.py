"""Pseudo-values: what each group of cases adds to a metric of the whole set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evals import scoring
from evals.metric import SetMetric
from evals.scores import State
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

    With `h = n / m`, where `m` of the `n` trials that take part are in a group, the group's is `h`
    times the metric of all of them less `h - 1` times that of all others: the delete-m_j jackknife
    (Busing, Meijer & van der Leeden, Statistics and Computing 1999), which is Tukey's (1958) where
    groups are of one size. Each of a group's trials has it, so a larger group weighs more, and the
    mean over trials behaves like a mean over cases: what is known of means holds for F1 or an area
    under a curve as well. It does not for a median or another statistic that jumps. Cases of one
    cluster are in one group, and a group is the same in every run over the same cases.
    """
    groups = _groups(trials)
    states = [scoring.membership(metric, trial) for trial in trials]
    counted = [
        trial for trial, score in zip(trials, states, strict=True) if score.state == "scored"
    ]
    sizes = Counter(groups[trial.case.cluster] for trial in counted)
    whole = scoring.of_counted(metric, counted)
    values: dict[str, float] = {}
    for group in sorted(sizes) if whole.value is not None and len(sizes) > 1 else ():
        others = [trial for trial in counted if groups[trial.case.cluster] != group]
        left = scoring.of_counted(metric, others)
        if left.value is not None and whole.value is not None:
            share = len(counted) / sizes[group]
            values[group] = share * whole.value - (share - 1) * left.value
    return [
        _row(trial, groups[trial.case.cluster], score.state, values=values)
        for trial, score in zip(trials, states, strict=True)
    ]


def _row(trial: Trial, group: str, state: State, *, values: dict[str, float]) -> Row:
    if state == "scored" and group in values:
        return Row(trial.case.id, values[group], "scored", group)
    return Row(trial.case.id, 0.0, "error" if state == "scored" else state, group)


def _groups(trials: Sequence[Trial]) -> dict[str, str]:
    """Return the group of each cluster, by the order of hashes: the same in every run."""
    clusters = sorted({trial.case.cluster for trial in trials}, key=_hash)
    count = min(GROUPS, len(clusters))
    return {cluster: str(place % count) for place, cluster in enumerate(clusters)}


def _hash(cluster: str) -> str:
    return hashlib.sha256(cluster.encode("utf-8", "surrogatepass")).hexdigest()
