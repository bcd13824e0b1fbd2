"""An evaluation: what was evaluated on what, each trial with its scores, and the verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from evals import scoring
from evals.metric import Metric, SetMetric, is_of_set, open_metric
from evals.scores import Counts, Score
from evals.suite import ALL, Suite
from evals.trial import Trial
from infra.errors import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class MeasuredBy:
    """A metric as a suite used it."""

    metric: str
    version: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    bounds: tuple[float | None, float | None] = (0.0, 1.0)
    higher_is_better: bool = True
    is_measured: bool = False
    is_of_set: bool = False
    """Whether it scores all cases together."""
    is_pass_or_fail: bool = False
    """Whether it says of itself that every score is 0 or 1."""
    rests_on: Mapping[str, str] = field(default_factory=dict)
    """Releases of packages, and the embedder, that decide its scores."""

    @classmethod
    def of(
        cls,
        metric: Metric | SetMetric,
        *,
        name: str,
        parameters: Mapping[str, Any],
        embedder: Callable[[], str] = str,
    ) -> MeasuredBy:
        """Describe a metric; `embedder` gives the identity of the one there is, if it counts."""
        # A metric from outside need not have what `Parameters` has.
        rests_on = {each: _release(each) for each in getattr(metric, "libraries", ())}
        if getattr(metric, "embeds", False):
            rests_on["embedder"] = embedder()
        return cls(
            name,
            metric.version,
            # What a name stands for may change, such as that of a rubric.
            {**parameters, **getattr(metric, "identified", {})},
            metric.bounds,
            metric.higher_is_better,
            metric.is_measured,
            is_of_set(metric),
            metric.is_pass_or_fail,
            rests_on,
        )

    def of_set(self) -> SetMetric:
        """Build the metric again.

        Raises:
            InvalidConfiguration: it does not score sets.
        """
        built = open_metric(self.metric, self.parameters)
        if not is_of_set(built):
            raise InvalidConfiguration(f"Metric {self.metric!r} does not score sets any more")
        return built

    @property
    def identity(self) -> str:
        """What must be the same of two runs whose scores are compared."""
        text = orjson.dumps(self.parameters, option=orjson.OPT_SORT_KEYS).decode()
        rests_on = "".join(f", {name} {said}" for name, said in sorted(self.rests_on.items()))
        return f"{self.metric} {self.version} {text}{rests_on}"


@dataclass(frozen=True, slots=True)
class Described:
    """What was evaluated; equal descriptions are runs of the same."""

    suite: Suite
    suite_digest: str
    dataset: str
    """The file's name, or the version of the dataset."""
    dataset_digest: str
    """Of the cases."""
    target: Mapping[str, Any]
    """The target's identity."""
    metrics: Mapping[str, MeasuredBy]
    copies_digest: str = ""
    """Of perturbed copies of the cases, if there are any."""

    @property
    def digest(self) -> str:
        """The hash of everything that decides the outputs and scores."""
        metrics = {name: each.identity for name, each in self.metrics.items()}
        content = [self.suite_digest, self.dataset_digest, dict(self.target), metrics]
        content += [self.copies_digest] if self.copies_digest else []
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS, default=str)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished run."""

    described: Described
    trials: tuple[Trial, ...]
    """In the order of the dataset, the repeats of a case side by side."""

    @property
    def failures(self) -> int:
        """Trials without an output."""
        return sum(trial.output is None for trial in self.trials)

    @property
    def postponed(self) -> int:
        """Trials with a score that failed for a while."""
        return sum(trial.output is not None and not trial.is_finished for trial in self.trials)

    def members(self, slice_name: str) -> list[Trial]:
        """Return the trials of a slice; perturbed copies are in that of their perturbation only."""
        if slice_name == ALL:
            return [trial for trial in self.trials if not trial.case.original]
        return [trial for trial in self.trials if slice_name in trial.case.slices]

    def scores(self, metric: str, slice_name: str = ALL) -> list[Score]:
        """Return the score of each trial; of a metric of the set, a 0 or why it has no part."""
        by = self.described.metrics[metric]
        if by.is_of_set:
            built, members = by.of_set(), self.members(slice_name)
            whole = scoring.of_set(built, members)
            own = [scoring.membership(built, trial) for trial in members]
            return [whole if one.value is not None and whole.value is None else one for one in own]
        return [trial.scores[metric] for trial in self.members(slice_name)]

    def mean(self, metric: str, slice_name: str = ALL) -> float | None:
        """Return the mean over cases of their means over repeats; None if nothing is scored.

        Of a metric of the set, its score.
        """
        by = self.described.metrics[metric]
        if by.is_of_set:
            return scoring.of_set(by.of_set(), self.members(slice_name)).value
        by_case: dict[str, list[float]] = {}
        for trial in self.members(slice_name):
            value = trial.scores[metric].value
            if value is not None:
                by_case.setdefault(trial.case.id, []).append(value)
        means = [sum(values) / len(values) for values in by_case.values()]
        return sum(means) / len(means) if means else None

    def summary(self, *, measured: bool) -> list[dict[str, Any]]:
        """Return mean and counts of each metric on each slice.

        Args:
            measured: of the metrics that are measured anew each time, or of all others.
        """
        names = self.described.suite.slice_names
        return [
            {
                "metric": metric,
                "slice": name,
                "mean": self.mean(metric, name),
                **_counted(self.scores(metric, name)),
            }
            for metric, by in self.described.metrics.items()
            if by.is_measured == measured
            for name in names
        ]


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # its scores are errors that say so
        return "absent"


def _counted(scores: Sequence[Score]) -> dict[str, Any]:
    counts = Counts.of(scores)
    return {
        "scored": counts.scored,
        "unscored": counts.unscored,
        "refused": counts.refused,
        "error": counts.error,
        "coverage": counts.coverage,
    }
