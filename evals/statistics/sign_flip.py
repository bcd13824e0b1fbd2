"""The sign-flip permutation test: are paired differences as likely up as down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evals.statistics.clusters import totals

_CELLS = 2_000_000


def sign_flip(
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 9_999,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of 'differences are symmetric around 0'.

    A cluster flips as a whole. The p-value counts what was observed among the random flips,
    (1 + as extreme) / (1 + all), so it is never 0 (Phipson & Smyth 2010). `permutation_test` of
    scipy gives the same, ten times slower.

    Args:
        differences: shape (n,).
        clusters: one id per difference, shape (n,), or None.
        resamples: how many random flips.
        seed: of the flips.
    """
    sums, _ = totals(differences, clusters)
    observed, rng, extreme = float(sums.sum()), np.random.default_rng(seed), 0
    # What is as extreme as observed, whatever order the sum was taken in.
    least = abs(observed) - 1e-9 * max(1.0, abs(observed))
    for start in range(0, resamples, batch := max(1, _CELLS // sums.size)):
        count = min(batch, resamples - start)
        kept = rng.integers(0, 2, size=(count, sums.size), dtype=np.int8)
        flipped = 2 * (kept.astype(np.float64) @ sums) - observed
        extreme += int((np.abs(flipped) >= least).sum())
    return (1 + extreme) / (1 + resamples)
