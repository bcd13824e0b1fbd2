"""AURC: the risk of answering, averaged over how many of the surest answers are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from evals.metric import Parameters
from evals.metrics._predictions import Unusable, number, predicted, probabilities
from evals.refusals import is_refusal
from evals.scores import Score
from evals.statistics.risk_coverage import selective_risks
from evals.trial import Output, Trial


class Aurc(Parameters):
    """The area under the risk-coverage curve: small where what is wrong is what is least sure.

    Confidence is what an output says of itself, or the likeliest label's probability. What is
    refused comes last: refusing everything gains nothing.
    """

    higher_is_better: ClassVar[bool] = False

    of: str = ""
    """The metric of the suite, from 0 to 1, that says how right an answer is; what it lacks to 1 is
    the risk. If absent, the risk is a wrong label."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of,) if self.of else ()

    def takes_part(self, trial: Trial) -> bool:
        if self.of:
            score = trial.scores.get(self.of)
            # One that failed costs the set its score; one that does not apply costs nothing.
            return trial.output is not None and (
                score is None or score.state in {"scored", "error"}
            )
        return trial.case.expected is not None and (
            trial.output is not None and trial.output.prediction is not None
        )

    def score_set(self, trials: Sequence[Trial]) -> Score:
        try:
            risks = self.curve(trials)
        except Unusable as error:
            return Score.error(str(error))
        if not risks:
            return Score.unscored(
                "no trial has both a confidence and what tells whether it is right"
            )
        return Score.of(min(1.0, max(0.0, sum(risks) / len(risks))))

    def curve(self, trials: Sequence[Trial]) -> list[float]:
        """Return the risk of the surest k, for each k.

        Raises:
            Unusable: some say how sure they are and others do not, or a score is missing.
        """
        losses = self._losses(trials)
        sure = [_confidence(trial.output) for trial, _ in losses if trial.output is not None]
        answers = [each for each in sure if each != -math.inf]
        mute = answers.count(None)
        if not sure or (answers and mute == len(answers)):
            return []
        if mute:
            raise Unusable(
                f"{mute} of {len(answers)} answers have no `confidence`, nor probabilities"
            )
        known = [each for each in sure if each is not None]
        found: list[float] = selective_risks(known, [lost for _, lost in losses]).tolist()
        return found

    def _losses(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        if not self.of:
            pairs = [(each.trial, each.pair) for each in predicted(trials)]
            return [(trial, float(wanted != given)) for trial, (wanted, given) in pairs]
        found = []
        for trial in (each for each in trials if each.output is not None):
            score = trial.scores.get(self.of)
            if score is None or score.state == "error":
                why = "there is no such metric" if score is None else score.reason
                raise Unusable(f"case {trial.case.id!r} has no score of {self.of!r}: {why}")
            if score.value is not None:
                found.append((trial, 1 - score.value))
        return found


def _confidence(output: Output) -> float | None:
    if is_refusal(output):
        return -math.inf
    if output.confidence is not None:
        return number(output.confidence, "confidence")
    if isinstance(output.prediction, Mapping):
        return max(probabilities(output.prediction).values())
    return None


build = Aurc.model_validate
