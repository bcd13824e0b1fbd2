"""Retrieval nDCG: grades discounted by rank, divided by those of the best order there is."""

from __future__ import annotations

import math

from evals.metrics._ranking import Ranked


class RetrievalNdcg(Ranked):
    """Järvelin and Kekäläinen 2002, with the grade itself as the gain, as trec_eval has it."""

    def measure(self, found: list[float], wanted: list[float]) -> float:
        # Rounding may lift the best order a hair above itself.
        return min(1.0, _gain(found) / _gain(wanted[: self.k]))


def _gain(grades: list[float]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


build = RetrievalNdcg.model_validate
