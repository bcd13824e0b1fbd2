"""Prometheus metrics of classical models: rows, latency, batches, and values training never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram

from infra.errors import (
    EngineFailed,
    EngineTimedOut,
    InvalidRequest,
    Overloaded,
    RagstoneError,
)
from monitoring import exemplars
from monitoring.bounded import Bounded
from monitoring.seconds import Seconds

PREDICTION_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)
BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
MOST_NAMES = 100
"""Models, and versions of them, that have series of their own; further ones share `other`."""

PredictionOutcome: TypeAlias = Literal["answered", "refused", "overloaded", "failed", "late"]
_ENDS: Mapping[type[RagstoneError], PredictionOutcome] = {
    EngineTimedOut: "late",
    EngineFailed: "failed",
    Overloaded: "overloaded",
    InvalidRequest: "refused",
}


def outcome_of(error: RagstoneError) -> PredictionOutcome:
    """Return what a request that ended so is counted as."""
    return next((_ENDS[kind] for kind in _ENDS if isinstance(error, kind)), "refused")


@dataclass(frozen=True, slots=True)
class _Answered:
    """The series of what a version answers."""

    requests: Counter
    rows: Counter
    seconds: Seconds


class PredictionMetrics:
    """What is counted of predictions; label values are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = Bounded(MOST_NAMES)
        self._versions = Bounded(MOST_NAMES)
        self._answered: dict[tuple[str, str], _Answered] = {}
        """By model and version, as they are told; looking series up takes longer than counting."""
        self._requests = Counter(
            "ragstone_prediction_requests_total",
            "Requests to classical models, by how they ended; late is past the deadline.",
            ("model", "outcome"),
            registry=registry,
        )
        self._rows = Counter(
            "ragstone_prediction_rows_total",
            "Rows that a version of a model answered.",
            ("model", "version"),
            registry=registry,
        )
        self._seconds = Seconds(
            "ragstone_prediction_duration_seconds",
            "From the request's body to the prediction, waiting for its batch included.",
            ("model",),
            buckets=PREDICTION_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "ragstone_prediction_batch_rows",
            "Rows that were answered together.",
            ("model",),
            buckets=BATCH_ROWS,
            registry=registry,
        )
        self._warnings = Counter(
            "ragstone_prediction_warnings_total",
            "Values that training never saw: unknown_category or out_of_range; and rows without "
            "values of a feature view: unknown_key, too_early or too_old.",
            ("model", "kind"),
            registry=registry,
        )

    def count(self, model: str, outcome: PredictionOutcome) -> None:
        """Count a request that ended."""
        self._requests.labels(self._models.bounded(model), outcome).inc()

    def observe(self, model: str, version: str, *, rows: int, seconds: float) -> None:
        """Observe an answered request."""
        series = self._series(model, version)
        series.requests.inc()
        series.rows.inc(rows)
        series.seconds.observe(seconds, exemplars.current())

    def observe_together(self, model: str, version: str, seconds: Sequence[float]) -> None:
        """Observe requests for a row each that were answered together."""
        series = self._series(model, version)
        series.requests.inc(len(seconds))
        series.rows.inc(len(seconds))
        series.seconds.observe_all(seconds)

    def _series(self, model: str, version: str) -> _Answered:
        key = (self._models.bounded(model), self._versions.bounded(version))
        series = self._answered.get(key)
        if series is None:
            name, number = key
            series = self._answered[key] = _Answered(
                self._requests.labels(name, "answered"),
                self._rows.labels(name, number),
                self._seconds.labels(name),
            )
        return series

    def observe_batch(self, model: str, rows: int) -> None:
        """Observe how many rows were answered together."""
        self._batches.labels(self._models.bounded(model)).observe(rows)

    def count_warnings(self, model: str, kind: str, number: int) -> None:
        """Count values that training never saw, or rows without values of a view."""
        self._warnings.labels(self._models.bounded(model), kind).inc(number)
