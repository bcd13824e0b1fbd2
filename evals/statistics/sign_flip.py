"""The sign-flip permutation test: are paired differences as likely up as down."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from evals.statistics.clusters import totals
from evals.statistics.intervals import Floats

_CELLS = 2_000_000
Alternative = Literal["greater", "less", "two-sided"]


def sign_flip(
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    alternative: Alternative = "two-sided",
    resamples: int = 9_999,
    seed: int = 0,
) -> float:
    """Return the p-value of 'differences are symmetric around 0'.

    A cluster flips as a whole. The p-value counts what was observed among the random flips,
    (1 + as extreme) / (1 + all), so it is never 0 (Phipson & Smyth 2010). `permutation_test` of
    scipy gives the same, ten times slower.

    Args:
        differences: shape (n,).
        clusters: one id per difference, shape (n,), or None.
        alternative: where the differences are, if not around 0.
        resamples: how many random flips.
        seed: of the flips.
    """
    sums, _ = totals(differences, clusters)
    observed, rng, extreme = float(sums.sum()), np.random.default_rng(seed), 0
    for start in range(0, resamples, batch := max(1, _CELLS // sums.size)):
        count = min(batch, resamples - start)
        kept = rng.integers(0, 2, size=(count, sums.size), dtype=np.int8)
        flipped = 2 * (kept.astype(np.float64) @ sums) - observed
        extreme += int((_extent(flipped, alternative) >= _tie(observed, alternative)).sum())
    return (1 + extreme) / (1 + resamples)


def _extent(sums: Floats, alternative: Alternative) -> Floats:
    if alternative == "two-sided":
        return np.abs(sums)
    return sums if alternative == "greater" else -sums


def _tie(observed: float, alternative: Alternative) -> float:
    """Return what counts as extreme as observed, whatever order the sum was taken in."""
    extent = float(_extent(np.array([observed]), alternative)[0])
    return extent - 1e-9 * max(1.0, abs(observed))
