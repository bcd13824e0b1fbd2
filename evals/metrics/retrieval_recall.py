"""Retrieval recall: the share of the relevant documents that are among the first k."""

from __future__ import annotations

from evals.metrics._ranking import Ranked


class RetrievalRecall(Ranked):
    """R@k as trec_eval has it."""

    def measure(self, found: list[float], wanted: list[float]) -> float:
        return sum(grade > 0 for grade in found) / len(wanted)


build = RetrievalRecall.model_validate
