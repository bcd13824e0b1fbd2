"""Prometheus metrics of feedback: votes for and against answers, corrections, labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from monitoring.bounded import Bounded

MOST_LABELS = 20
"""Labels with a series of their own."""


class FeedbackMetrics:
    """What people said of answers and predictions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._labels = Bounded(MOST_LABELS)
        self._feedback = Counter(
            "ragstone_feedback_total",
            "What people said of answers and predictions; values of labels are those first seen.",
            ("kind", "value"),
            registry=registry,
        )
        for value in ("up", "down"):  # or the first one would be no increase
            self._feedback.labels("thumbs", value)

    def count(self, kind: str, value: str) -> None:
        """Count one; of `thumbs` the value is `up` or `down`, of `label` the label."""
        known = self._labels.bounded(value) if kind == "label" else value
        self._feedback.labels(kind, known).inc()
