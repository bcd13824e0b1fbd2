"""Prometheus metrics of challengers: what was asked of them, how it ended, how often they agree."""

from __future__ import annotations

from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter

from monitoring.bounded import Bounded
from monitoring.prediction_metrics import MOST_NAMES, PredictionOutcome

Role: TypeAlias = Literal["shadow", "canary"]
"""Whether its answer is thrown away, or told."""


class ChallengerMetrics:
    """What is counted of versions that are compared; label values are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = Bounded(MOST_NAMES)
        self._versions = Bounded(MOST_NAMES)
        self._requests = Counter(
            "ragstone_challenger_requests_total",
            "Requests that a version was asked as a shadow or a canary, by how they ended; dropped "
            "were too many.",
            ("model", "version", "role", "outcome"),
            registry=registry,
        )
        self._rows = Counter(
            "ragstone_challenger_rows_total",
            "Rows that both versions predicted, by whether both say the same.",
            ("model", "agrees"),
            registry=registry,
        )

    def count(
        self, model: str, version: str, role: Role, outcome: PredictionOutcome | Literal["dropped"]
    ) -> None:
        """Count a request that ended."""
        bounded = self._models.bounded(model), self._versions.bounded(version)
        self._requests.labels(*bounded, role, outcome).inc()

    def observe(self, model: str, *, same: int, rows: int) -> None:
        """Observe a request that both answered, and of how many rows they say the same."""
        name = self._models.bounded(model)
        self._rows.labels(name, "yes").inc(same)
        self._rows.labels(name, "no").inc(rows - same)
