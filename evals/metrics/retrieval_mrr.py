"""Retrieval MRR: one divided by the rank of the first relevant document; 0 if none is found."""

from __future__ import annotations

from evals.metrics._ranking import Ranked


class RetrievalMrr(Ranked):
    """The reciprocal rank; its mean over cases is the MRR (Voorhees 1999)."""

    def measure(self, found: list[float], wanted: list[float]) -> float:
        del wanted
        return next((1 / rank for rank, grade in enumerate(found, 1) if grade > 0), 0.0)


build = RetrievalMrr.model_validate
