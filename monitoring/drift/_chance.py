"""What chance alone gives: the labels of two windows dealt again over the cells they fall into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from monitoring.columns import Floats
from monitoring.drift._cells import Cells, Counts

Statistic: TypeAlias = Callable[[Counts, Counts], Floats]
"""From counts of the reference and of the window, shape (draws, cells), to values, (draws,)."""
ENOUGH = 20
"""Once so many draws are at least as large as what was seen, the p-value is known well enough."""
_FIRST, _MOST = 32, 1_024
"""Draws at once: few where the first ones say enough."""
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Chance:
    """A statistic beside its distribution under 'both windows are of one distribution'."""

    statistic: float
    p_value: float
    mean: float
    """Of the statistic under chance alone."""

    @property
    def excess(self) -> float:
        """How far it lies above what chance gives on average; 0 if it lies below."""
        return max(0.0, self.statistic - self.mean)


def by_permutation(cells: Cells, statistic: Statistic, *, draws: int, seed: int) -> Chance:
    """Return the p-value of a statistic of counts by permuting which window each value is of.

    With values counted into cells, a permutation is a draw from a multivariate hypergeometric
    distribution, whose cost does not depend on the rows. Draws end early where the result is
    clear (Besag & Clifford, Biometrika 1991), which keeps the p-value exact: P(p <= a) <= a.
    """
    rng = np.random.default_rng(seed)
    observed = float(statistic(cells.reference[None, :], cells.current[None, :])[0])
    pooled, rows = cells.pooled, int(cells.current.sum())
    least = observed - _TIE * max(1.0, abs(observed))
    done, above, total = 0, 0, 0.0
    while done < draws:
        size = min(max(_FIRST, 3 * done), _MOST, draws - done)
        dealt = rng.multivariate_hypergeometric(pooled, rows, size=size, method="marginals")
        values = statistic(pooled - dealt, dealt)
        total += float(values.sum())
        reached = above + np.cumsum(values >= least)
        if reached[-1] >= ENOUGH:
            until = done + int(np.argmax(reached >= ENOUGH)) + 1
            return Chance(observed, ENOUGH / until, total / (done + size))
        above, done = int(reached[-1]), done + size
    return Chance(observed, (1 + above) / (1 + draws), total / done)
