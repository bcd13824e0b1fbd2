"""What a probability has meant: how often rows that had it were positive, rising with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.plugins import require
from monitoring.columns import EXTRA, Floats

_CELLS = 200


class Calibration:
    """Isotonic regression over cells of equal count, so that fitting it again is cheap."""

    def __init__(self, probabilities: Floats, labels: npt.NDArray[np.bool_]) -> None:
        ordered = np.sort(probabilities)
        steps = np.arange(1, _CELLS) * ordered.size // _CELLS
        self._place = np.searchsorted(np.unique(ordered[steps]), probabilities, side="left")
        self._probabilities = probabilities
        self._labels = labels.astype(np.float64)

    def at(
        self,
        scores: Floats,
        rows: npt.NDArray[np.int64],
        weights: Floats,
        labels: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return how often rows with these scores are positive, (scores,), by some of the rows.

        Args:
            scores: shape (scores,).
            rows: of the reference, repeated ones among them.
            weights: of those rows, shape (rows,).
            labels: of those rows instead of their own, shape (rows,).
        """
        isotonic = require("sklearn.isotonic", extra=EXTRA)
        place = self._place[rows]
        total = np.bincount(place, weights=weights)
        held = total > 0
        told = self._labels[rows] if labels is None else labels
        mean, share = (
            np.bincount(place, weights=weights * values)[held] / total[held]
            for values in (self._probabilities[rows], told)
        )
        fitted = isotonic.isotonic_regression(share, sample_weight=total[held], y_min=0, y_max=1)
        found: Floats = np.interp(scores, mean, fitted)
        return found
