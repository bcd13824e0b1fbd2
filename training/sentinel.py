"""Rules that end a training: a loss or gradient that is no number, a spike, too many hours."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean, pstdev

from infra.errors import Conflict
from training.specification.schedule import Abort

SPIKE_WINDOW = 50
"""Losses that a new one is held against."""
SPIKE_MIN_LOSSES = 20
"""Fewer say too little about how much losses vary."""
SPIKE_FLOOR = 0.05
"""Of the mean: what a loss varies at least, so that a flat curve makes no spike of a ripple."""
LEARNING = "lower schedule.learning_rate, "
BEFORE_LEARNING = "no rate is to blame yet: with DoRA no row of a weight may be all 0; else "


class Aborted(Conflict):
    """A training was ended by one of its own rules; nothing of it may be registered."""


class Sentinel:
    """Looks at each step of one training.

    Args:
        rules: what ends it.
        clock: of seconds.
    """

    def __init__(self, rules: Abort, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._began = clock()
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def look(self, step: int, *, loss: float, grad_norm: float | None = None) -> None:
        """Take the figures of a step.

        Raises:
            Aborted: a rule is broken; says which, at which step and by how much.
        """
        if self._rules.nonfinite:
            _refuse_nonfinite(step, "loss", loss)
            _refuse_nonfinite(step, "gradient norm", grad_norm)
        self._refuse_spike(step, loss)
        hours = (self._clock() - self._began) / 3600
        if self._rules.max_hours is not None and hours > self._rules.max_hours:
            raise Aborted(
                f"Step {step}: trained for {hours:.2f} hours, and schedule.abort.max_hours is "
                f"{self._rules.max_hours!r}; the last checkpoint can be gone on from"
            )
        self._losses.append(loss)

    def _refuse_spike(self, step: int, loss: float) -> None:
        sigmas = self._rules.spike_sigmas
        if sigmas is None or len(self._losses) < SPIKE_MIN_LOSSES:
            return
        mean = fmean(self._losses)
        spread = max(pstdev(self._losses, mean), SPIKE_FLOOR * abs(mean))
        if loss > mean + sigmas * spread:
            raise Aborted(
                f"Step {step}: the loss {loss:.4g} is more than {sigmas:g} standard deviations "
                f"above the {mean:.4g} of the {len(self._losses)} steps before; lower "
                "schedule.learning_rate, look at the rows, or raise schedule.abort.spike_sigmas"
            )


def _refuse_nonfinite(step: int, what: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        first = BEFORE_LEARNING if step == 1 else LEARNING
        raise Aborted(
            f"Step {step}: the {what} is {value!r}; {first}use bfloat16 rather than float16, or "
            "look for rows without a supervised token"
        )
