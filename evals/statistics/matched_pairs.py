"""Pass or fail of the same cases before and after: score and exact tests, their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats, Interval, clopper_pearson
from infra.errors import InvalidRequest
from infra.plugins import require

MAX_EXACT = 200
"""Cases up to which tests are exact; above, the score test keeps its level as well."""
_SET_ASIDE = 1e-4
"""Part of the error that the interval of the nuisance parameter takes (Berger & Boos 1994)."""
_NUISANCES = 32
_ALL = 1 - 1e-9
_NONE = 1e-12
_BISECTIONS = 16


@dataclass(frozen=True)
class MatchedPairs:
    """Counts of cases that are independent of each other and passed or failed twice.

    The difference is the share that passes after, less the share that passed before.
    """

    better: int
    """Failed before, passes now."""
    worse: int
    """Passed before, fails now."""
    cases: int
    """All, the unchanged ones too."""

    def __post_init__(self) -> None:
        if min(self.better, self.worse) < 0 or self.cases == 0:
            raise InvalidRequest(f"{self!r}: counts cannot be negative, and there must be cases")
        if self.better + self.worse > self.cases:
            raise InvalidRequest(f"{self!r}: more cases changed than there are")

    @property
    def estimate(self) -> float:
        return (self.better - self.worse) / self.cases

    @cached_property
    def exact(self) -> bool:
        """Whether p-values and bounds are exact, because there are few cases."""
        return self.cases <= MAX_EXACT

    @cached_property
    def likely_to_worsen(self) -> Interval:
        """The interval of the rate of getting worse that exact tests look for the worst in."""
        return clopper_pearson(self.worse, self.cases, level=1 - _SET_ASIDE)

    @cached_property
    def mirror(self) -> MatchedPairs:
        """The same cases with before and after exchanged."""
        return MatchedPairs(self.worse, self.better, self.cases)

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the difference is at most the threshold' against 'above it'."""
        if not -1 <= threshold <= 1:
            raise InvalidRequest(f"threshold {threshold!r}: differences of rates are within 1")
        threshold = min(_ALL, max(-_ALL, threshold))
        z = float(_score(self.better, self.worse, self.cases, threshold))
        if self.exact:
            return min(1.0, _unconditional(self, threshold, z) + _SET_ASIDE)
        return max(float(require("scipy.special", extra="evals").ndtr(-z)), math.ulp(0.0))

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the difference is at least the threshold' against 'below it'."""
        return self.mirror.p_above(-threshold)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the bounds that the two tests do not reject, each at (1 - level) / 2."""
        tail = (1 - level) / 2
        return Interval(self.estimate, _low(self, tail), -_low(self.mirror, tail), level)


def _score(
    better: npt.ArrayLike, worse: npt.ArrayLike, cases: int, threshold: float
) -> npt.NDArray[np.float64]:
    """Return the score statistic of 'difference = threshold' (Tango, Stat. in Medicine 1998)."""
    b, c = np.asarray(better, dtype=np.float64), np.asarray(worse, dtype=np.float64)
    linear = (2 * cases - b + c) * threshold - b - c
    constant = -c * threshold * (1 - threshold)
    root = np.sqrt(np.maximum(linear**2 - 8 * cases * constant, 0.0))
    rate = (root - linear) / (4 * cases)  # of getting worse, the likeliest under the hypothesis
    variance = np.maximum(cases * (2 * rate + threshold * (1 - threshold)), 0.0)
    gap = b - c - cases * threshold
    scores: Floats = np.where(variance > 0, gap / np.sqrt(np.where(variance > 0, variance, 1)), 0)
    return scores


def _unconditional(pairs: MatchedPairs, threshold: float, z: float) -> float:
    """Return P(score >= z) at the difference `threshold`, for the worst rate of getting worse.

    Exact and unconditional (Hsueh, Liu & Chen, Biometrics 2001), with the rate confined to its
    own interval.
    """
    special, n = require("scipy.special", extra="evals"), pairs.cases
    likely, least, most_likely = pairs.likely_to_worsen, max(0.0, -threshold), (1 - threshold) / 2
    if likely.low > most_likely:  # so many got worse that the difference lies below the threshold
        return 1.0
    if likely.high < least:  # so few that it lies above
        return 0.0
    worse = np.linspace(max(likely.low, least), min(likely.high, most_likely), _NUISANCES)
    better = np.clip(worse + threshold, 0.0, 1.0)
    better[better < _NONE] = 0.0  # scipy fails on rates that hardly are numbers
    b, c = np.arange(n + 1)[:, None], np.arange(n + 1)[None, :]
    beyond = (_score(b, c, n, threshold) >= z - 1e-9) & (b + c <= n)
    most = beyond.sum(axis=1)[:, None] - 1  # the score falls as more get worse
    better_of_all = require("scipy.stats", extra="evals").binom.pmf(b, n, better)
    rest = np.where(better < 1, worse / np.maximum(1 - better, 1e-300), 0.0)
    worse_of_rest = special.bdtr(np.maximum(most, 0), n - b, np.minimum(rest, 1.0))
    return float((better_of_all * np.where(most >= 0, worse_of_rest, 0.0)).sum(axis=0).max())


def _low(pairs: MatchedPairs, tail: float) -> float:
    """Return a threshold of which the test is still sure, and a step further on no more.

    There may be larger ones: an exact p-value does not rise evenly.
    """
    sure, unsure = -1.0, pairs.estimate
    for _ in range(_BISECTIONS if pairs.exact else 40):
        middle = (sure + unsure) / 2
        if pairs.p_above(middle) <= tail:
            sure = middle
        else:
            unsure = middle
    return sure
