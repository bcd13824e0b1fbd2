"""What all metrics of classical models share: what is compared, and checks of predictions."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.context import Context
from evals.metric import Parameters
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
    output: Output

    @property
    def prediction(self) -> Any:
        return self.output.prediction

    @property
    def pair(self) -> tuple[str, str]:
        """The expected label, and the one that was chosen."""
        return str(self.expected), str(self.output.label)


class OfPredictions(Parameters):
    """A metric of each prediction beside what was expected."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        if case.expected is None:
            return Score.unscored("the case has no reference")
        if output.prediction is None:
            return Score.unscored("the output has no prediction")
        try:
            return Score.of(self.measure(case, self.read(output)))
        except Unusable as error:
            return Score.error(str(error))

    def read(self, output: Output) -> Any:
        """Return what is measured of an output that has a prediction."""
        return output.prediction

    @abstractmethod
    def measure(self, case: Case, prediction: Any) -> float:
        """Return the score of a case with a reference. Raises `Unusable`."""


class OfPredictedSet(Parameters):
    """A metric of the set over the trials that have a reference and a prediction."""

    def takes_part(self, trial: Trial) -> bool:
        output = trial.output
        return trial.case.expected is not None and (
            output is not None and output.prediction is not None
        )

    def score_set(self, trials: Sequence[Trial]) -> Score:
        try:
            found = self.measure(predicted(trials))
        except Unusable as error:
            return Score.error(str(error))
        return found if isinstance(found, Score) else Score.of(found)

    @abstractmethod
    def measure(self, pairs: Sequence[Predicted]) -> float | Score:
        """Return the score of at least one pair, or why there is none. Raises `Unusable`."""


def predicted(trials: Sequence[Trial]) -> list[Predicted]:
    """Return references and predictions of trials that take part."""
    return [
        Predicted(trial, trial.case.expected, trial.output)
        for trial in trials
        if trial.output is not None
    ]


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


def numbers(pairs: Sequence[Predicted]) -> tuple[list[float], list[float]]:
    """Return references and predictions of a regression. Raises `Unusable`."""
    wanted = [number(each.expected, "reference") for each in pairs]
    return wanted, [number(each.prediction, "prediction") for each in pairs]
