"""Page-Hinkley: a sum of deviations from the mean so far that rises too far above its minimum."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.columns import EXTRA, Column, Floats
from monitoring.detector import CATEGORIES, NUMBERS, Kinds, Parameters, obstacle
from monitoring.drift import _streams
from monitoring.drift._streams import RankWatch
from monitoring.findings import Finding

NAME = "page_hinkley"
_FIRST = 30
"""Values before the first look; river's default."""
_STREAMS = 1_000
_AT_ONCE = 1_000_000
"""Values that are simulated at once at most, 8 bytes each in about six arrays."""
_SURE = 0.01
_LEAST_LEVEL = 1 - _SURE ** (1 / _STREAMS)
"""At a lower one not even the highest of all streams is surely high enough."""


class PageHinkley(Parameters):
    """Page (Biometrika 1954) and Hinkley, by river, on ranks in the reference.

    Its threshold is that which uniform streams of the horizon's length exceed with the
    probability `level`, found by simulation: for ranks one threshold serves all data.
    """

    reads: ClassVar[Kinds] = NUMBERS | CATEGORIES

    level: float = Field(0.05, ge=_LEAST_LEVEL, lt=1)
    """Probability of a false alarm over the whole horizon; 1,000 streams tell none below 0.0046."""
    horizon: int = Field(10_000, ge=100, le=1_000_000)
    """Values within which a false alarm has probability `level` at most."""
    tolerance: float = Field(0.02, ge=0, lt=0.5)
    """By which the mean rank may move; 0.07 standard deviations of a normal variable."""

    def watch(self, reference: Column) -> RankWatch | Finding:
        found = obstacle(NAME, reference, reference, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        detector: Any = require("river.drift", extra=EXTRA).PageHinkley(
            min_instances=_FIRST,
            delta=self.tolerance,
            threshold=threshold(self.horizon, self.level, self.tolerance),
            alpha=1.0,
        )
        return RankWatch(NAME, detector, _streams.ranking(reference), reference)


@lru_cache(maxsize=32)
def threshold(horizon: int, level: float, tolerance: float) -> float:
    """Return what the statistic exceeds within a horizon with probability `level` at most.

    A quantile of 1,000 simulated streams, taken so far out that it is not too low with 99 %
    confidence (an order statistic, by the binomial distribution).

    Raises:
        InvalidRequest: the level is so low that it takes more streams.
    """
    binomial = require("scipy.stats", extra=EXTRA).binom
    rank = int(binomial.ppf(_SURE, _STREAMS, level))
    if rank < 1:
        raise InvalidRequest(f"Level {level!r} is below the {_LEAST_LEVEL:.4f} that can be told")
    rng = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // horizon)
    highest = np.concatenate(
        [
            _highest(rng, (min(at_once, _STREAMS - first), horizon), tolerance)
            for first in range(0, _STREAMS, at_once)
        ]
    )
    return float(np.sort(highest)[_STREAMS - rank])


def _highest(rng: np.random.Generator, shape: tuple[int, int], tolerance: float) -> Floats:
    """Return the largest value of the statistic along each of some uniform streams."""
    streams, horizon = shape
    values = rng.random(shape)
    gaps = values - np.cumsum(values, axis=1) / np.arange(1, horizon + 1)
    most = np.zeros(streams)
    for sign in (1.0, -1.0):
        sums = np.cumsum(sign * gaps - tolerance, axis=1)
        rise = sums - np.minimum.accumulate(sums, axis=1)
        most = np.maximum(most, rise[:, _FIRST - 1 :].max(axis=1))
    return most


build = PageHinkley.model_validate
