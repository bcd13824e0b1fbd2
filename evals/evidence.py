"""Which statistics suit a sample: exact counts, a cluster bootstrap, or bets."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from evals.score_tables import Sample
from evals.statistics.betting import bets
from evals.statistics.clusters import bootstrap, totals
from evals.statistics.intervals import Interval
from evals.statistics.matched_pairs import MatchedPairs
from evals.statistics.rates import Rate
from evals.statistics.unchanged import Unchanged
from infra.errors import InvalidRequest

MIN_VARYING = 20
"""Clusters that must differ from the rest before a bootstrap is to be trusted."""
Method = Literal["matched pairs", "rate", "cluster bootstrap", "bets", "no change"]


class Evidence(Protocol):
    """What a sample says about its mean."""

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at most the threshold'; never 0."""

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at least the threshold'; never 0."""

    def interval(self, level: float = 0.95) -> Interval:
        """Return the bounds that these tests do not reject, each at (1 - level) / 2."""


def weigh(
    sample: Sample,
    *,
    pairs: bool,
    bounds: tuple[float, float] | None,
    anytime: bool = False,
    resamples: int = 9_999,
    seed: int = 0,
) -> tuple[Method, Evidence] | None:
    """Return how a sample is judged, and the result; None if nothing can be said of it.

    Where the metric says that it passes or fails, cases that stand alone are counted. Everything
    else is a mean over clusters, drawn again; where fewer than `MIN_VARYING` of them differ from
    the others, that would take what was not seen for impossible, so bets are made, which need the
    bounds. A metric of the whole set has none: where it did not change, clusters are counted.

    Args:
        sample: at least one case.
        pairs: whether the values are differences.
        bounds: of a value of the sample.
        anytime: whether the result may be read after every case, in the order in which they came.
        resamples: of the bootstrap.
        seed: of every draw.

    Raises:
        InvalidRequest: `anytime` without times or bounds, or a value is outside the bounds.
    """
    if (
        bounds is not None
        and not ((sample.values >= bounds[0]) & (sample.values <= bounds[1])).all()
    ):
        raise InvalidRequest(
            f"A value is outside the bounds {bounds!r}; declare the bounds of the metric, or none"
        )
    if anytime:
        if sample.arrived is None or bounds is None:
            raise InvalidRequest("Reading at any time needs the metric's bounds and arrival times")
        return "bets", _bets(sample, bounds, np.lexsort((sample.clusters, sample.arrived)))
    if sample.can_be_counted:
        if not pairs:
            return "rate", Rate(int(np.rint(sample.values).sum()), sample.values.size)
        changes = np.rint(sample.values)
        return "matched pairs", MatchedPairs(
            int((changes > 0).sum()), int((changes < 0).sum()), sample.values.size
        )
    sums, sizes = totals(sample.values, sample.clusters)
    _, counts = np.unique(np.round(sums / sizes, 12), return_counts=True)
    if sums.size - counts.max() >= MIN_VARYING:
        drawn = bootstrap(sample.values, sample.clusters, resamples=resamples, seed=seed)
        return "cluster bootstrap", drawn
    if bounds is None:
        of_set = sample.of_set
        if not pairs or of_set is None or of_set.width is None or sample.values.any():
            return None
        return "no change", Unchanged(of_set.clusters, of_set.width)
    shuffled = np.random.default_rng(seed).permutation(sample.values.size)
    return "bets", _bets(sample, bounds, shuffled)


def _bets(
    sample: Sample, bounds: tuple[float, float], order: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> Evidence:
    return bets(sample.values[order], sample.clusters[order], bounds=bounds)
