"""What a report shows of an evaluation: intervals by slice, distributions, what went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from evals import scoring
from evals.evaluation import Evaluation
from evals.evidence import weigh
from evals.score_tables import single
from evals.scores import STATES, Counts
from evals.statistics.intervals import Interval
from evals.suite import ALL
from evals.trial import Trial
from evals.verdicts import table

MOST_ROWS = 300
"""Of metrics by slices; those that come last in the suite are left out."""
RESAMPLES = 1_999
_DRAWS = 2_000_000
_FEWEST_RESAMPLES = 399
BINS = 20
_Scale: TypeAlias = tuple[float | None, float | None, bool]
"""The bounds of a metric, and whether higher is better."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric on a slice."""

    metric: str
    slice: str
    mean: float | None
    interval: Interval | None
    """Of 95 %; None where nothing can be said of it, and of metrics of the whole set: theirs takes
    the metric a hundred times for each slice, and gates say it where it decides."""
    counts: Counts


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many trials scored what."""

    metric: str
    low: float
    high: float
    counts: tuple[int, ...]
    """In bins of equal width from `low` to `high`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The risk of the surest cases of all."""

    metric: str
    risks: tuple[float, ...]
    """Of the surest 1, 2, ... of them."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A case by what it lost: 0 is the best that there is of every metric, 1 the worst."""

    case: str
    share: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Regression:
    """A case that lost against the baseline."""

    case: str
    share: float
    """Of what could be lost, how much more than before, between 0 and 1."""
    before: Trial
    after: Trial
    metrics: tuple[str, ...]
    """Those that were counted."""


def rows(evaluation: Evaluation) -> list[Row]:
    """Return each metric on each slice, in the order of the suite.

    Raises:
        MissingDependency: the extra `evals` is not installed.
    """
    slices = evaluation.described.suite.slice_names
    places = [(metric, name) for metric in evaluation.described.metrics for name in slices]
    return [_row(evaluation, *place) for place in places[:MOST_ROWS]]


def distributions(evaluation: Evaluation) -> list[Distribution]:
    """Return that of each metric that scores cases."""
    found = []
    for metric, by in evaluation.described.metrics.items():
        trials = [] if by.is_of_set else evaluation.members(ALL)
        values = [trial.scores[metric].value for trial in trials]
        scored = np.array([value for value in values if value is not None])
        if not scored.size:
            continue
        low = float(scored.min()) if by.bounds[0] is None else by.bounds[0]
        high = float(scored.max()) if by.bounds[1] is None else by.bounds[1]
        if low == high:
            high = low + (abs(low) or 1.0)
        counts, _ = np.histogram(scored, BINS, (low, high))
        found.append(Distribution(metric, low, high, tuple(counts.tolist())))
    return found


def curves(evaluation: Evaluation) -> list[Curve]:
    """Return that of each metric of the set that has one, over all cases."""
    found = []
    for metric, by in evaluation.described.metrics.items():
        built = by.of_set() if by.is_of_set else None
        curve = getattr(built, "curve", None)
        # Where there is no score the reasons say why.
        if built is not None and curve is not None and evaluation.mean(metric) is not None:
            counted = scoring.counted(built, evaluation.members(ALL))
            found.append(Curve(metric, tuple(curve(counted))))
    return found


def worst(evaluation: Evaluation, most: int) -> list[Loss]:
    """Return the cases that lost most, without those that lost nothing or have no output.

    What counts are the metrics that gates look at; if there are none, all that have bounds.
    """
    losses = [loss for loss in _losses(evaluation.trials, _counted(evaluation)) if loss.share > 0]
    return sorted(losses, key=lambda loss: (-loss.share, loss.case))[:most]


def regressions(before: Evaluation, after: Evaluation, most: int) -> list[Regression]:
    """Return the cases that lost most against a baseline of the same cases, the worst first.

    What counts is what `worst` counts, where the baseline has it too. Perturbed copies are left
    out: those of the baseline may have had other inputs.
    """
    measured = before.described.metrics
    counted = {
        name: scale
        for name, scale in _counted(after).items()
        if name in measured and measured[name].identity == after.described.metrics[name].identity
    }
    was = {loss.case: loss for loss in _losses(before.members(ALL), counted)}
    found = [
        Regression(
            now.case,
            now.share - was[now.case].share,
            was[now.case].trials[0],
            now.trials[0],
            tuple(counted),
        )
        for now in _losses(after.members(ALL), counted)
        if now.case in was and now.share > was[now.case].share
    ]
    return sorted(found, key=lambda one: (-one.share, one.case))[:most]


def reasons(
    evaluation: Evaluation, most: int, *, states: Collection[str] = STATES
) -> list[tuple[str, str, int]]:
    """Return why something has no score: metric, reason and how often, the most frequent first.

    Args:
        evaluation: what was run.
        most: rows.
        states: of the scores that count.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for trial in evaluation.trials:
        if trial.output is None:
            counts["no output", trial.failure] += 1
            continue
        for name, score in trial.scores.items():
            if score.state != "scored" and score.state in states:
                counts[f"{name}: {score.state}", score.reason] += 1
    members = evaluation.members(ALL)
    for name in (name for name, by in evaluation.described.metrics.items() if by.is_of_set):
        for trial, score in zip(members, evaluation.scores(name), strict=True):
            is_told = score.state != "scored" and score.state in states
            if trial.output is not None and is_told:
                counts[f"{name}: {score.state}", score.reason] += 1
    found = [(name, reason, count) for (name, reason), count in counts.items()]
    return sorted(found, key=lambda each: (-each[2], *each[:2]))[:most]


def failed(trials: Sequence[Trial], most: int) -> list[Trial]:
    """Return the first trials without an output."""
    return [trial for trial in trials if trial.output is None][:most]


def _counted(evaluation: Evaluation) -> dict[str, _Scale]:
    gated = {gate.metric for gate in evaluation.described.suite.gates}
    bounded = {
        name: (by.bounds[0], by.bounds[1], by.higher_is_better)
        for name, by in evaluation.described.metrics.items()
        if not by.is_of_set and None not in by.bounds
    }
    return {name: each for name, each in bounded.items() if name in gated} or bounded


def _losses(trials: Sequence[Trial], counted: Mapping[str, _Scale]) -> list[Loss]:
    """Return what each case that has an output lost, the mean over metrics and repeats."""
    by_case: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.output is not None:
            by_case[trial.case.id].append(trial)
    losses = []
    for case, tried in by_case.items():
        lost = [
            _lost(value, low=low or 0.0, high=high or 0.0, higher=higher)
            for trial in tried
            for name, (low, high, higher) in counted.items()
            if (value := trial.scores[name].value) is not None
        ]
        if lost:
            losses.append(Loss(case, sum(lost) / len(lost), tuple(tried)))
    return losses


def _row(evaluation: Evaluation, metric: str, slice_name: str) -> Row:
    counts = Counts.of(evaluation.scores(metric, slice_name))
    mean, interval = evaluation.mean(metric, slice_name), _interval(evaluation, metric, slice_name)
    return Row(metric, slice_name, mean, interval, counts)


def _interval(evaluation: Evaluation, metric: str, slice_name: str) -> Interval | None:
    by = evaluation.described.metrics[metric]
    if by.is_of_set:
        return None
    members = {trial.case.id for trial in evaluation.members(slice_name)}
    sample = single(table(evaluation, metric, members))
    if not sample.values.size:
        return None
    resamples = max(_FEWEST_RESAMPLES, min(RESAMPLES, _DRAWS // sample.values.size))
    low, high = by.bounds
    bounds = None if low is None or high is None else (low, high)
    weighed = weigh(sample, pairs=False, bounds=bounds, resamples=resamples)
    return None if weighed is None else weighed[1].interval(0.95)


def _lost(value: float, *, low: float, high: float, higher: bool) -> float:
    share = (value - low) / (high - low)
    return 1 - share if higher else share
