"""Log loss: minus the logarithm of the probability that was given to the expected label."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictions, probabilities
from evals.trial import Case


class LogLoss(OfPredictions):
    """In nats; its mean is scikit-learn's `log_loss`."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    smallest: float = Field(default=1e-15, gt=0, lt=0.5)
    """A smaller probability counts as this one, or one sure error would be infinite."""

    def measure(self, case: Case, prediction: Any) -> float:
        given = probabilities(prediction).get(str(case.expected), 0.0)
        return abs(math.log(max(given, self.smallest)))


build = LogLoss.model_validate
