"""Retrieval precision: the share of the first k places that hold a relevant document."""

from __future__ import annotations

from evals.metrics._ranking import Ranked


class RetrievalPrecision(Ranked):
    """P@k as trec_eval has it: a place that is not filled is one without a relevant document."""

    def measure(self, found: list[float], wanted: list[float]) -> float:
        del wanted
        return sum(grade > 0 for grade in found) / self.k


build = RetrievalPrecision.model_validate
