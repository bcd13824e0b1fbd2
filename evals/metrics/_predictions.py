"""What all metrics of classical models share: probabilities and numbers that are checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.metric import Parameters
from evals.metrics._answers import label
from evals.scores import Score
from evals.trial import Case, Output, Trial

SUM_TOLERANCE = 1e-3
"""Probabilities that were written with three digits still count as adding up to 1."""


class Unusable(ValueError):
    """A prediction or reference of the wrong kind; the message becomes the score's reason."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A trial whose reference and prediction are both there."""

    trial: Trial
    expected: Any
    prediction: Any

    @property
    def pair(self) -> tuple[str, str]:
        """The expected and the likeliest label."""
        return str(self.expected), str(label(self.prediction))


class OfPredictions(Parameters):
    """A metric of the set over the trials that have a reference and a prediction."""

    def takes_part(self, trial: Trial) -> bool:
        output = trial.output
        return trial.case.expected is not None and (
            output is not None and output.prediction is not None
        )


def predicted(trials: Sequence[Trial]) -> list[Predicted]:
    """Return references and predictions of trials that take part."""
    return [
        Predicted(trial, trial.case.expected, trial.output.prediction)
        for trial in trials
        if trial.output is not None
    ]


def missing(case: Case, output: Output) -> Score | None:
    """Return why there is nothing to compare, or None."""
    if case.expected is None:
        return Score.unscored("the case has no reference")
    if output.prediction is None:
        return Score.unscored("the output has no prediction")
    return None


def probabilities(prediction: Any) -> dict[str, float]:
    """Return probabilities by label.

    Raises:
        Unusable: it is no mapping to probabilities that add up to 1.
    """
    if not isinstance(prediction, Mapping) or not prediction:
        raise Unusable(f"the prediction {prediction!r:.60} has no probabilities by label")
    found = {str(name): number(value, "probability") for name, value in prediction.items()}
    is_share = all(-SUM_TOLERANCE <= value <= 1 + SUM_TOLERANCE for value in found.values())
    if not is_share or abs(sum(found.values()) - 1) > SUM_TOLERANCE:
        raise Unusable(f"the probabilities {prediction!r:.60} do not add up to 1")
    return {name: min(1.0, max(0.0, value)) for name, value in found.items()}


def number(value: Any, kind: str) -> float:
    """Return a finite number, also of text as CSV has it.

    Raises:
        Unusable: it is none; the message calls it a `kind`.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise Unusable(f"the {kind} {value!r:.60} is no finite number")
    return found


def numbers(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """Return references and predictions of a regression. Raises `Unusable`."""
    pairs = predicted(trials)
    wanted = [number(each.expected, "reference") for each in pairs]
    return wanted, [number(each.prediction, "prediction") for each in pairs]
