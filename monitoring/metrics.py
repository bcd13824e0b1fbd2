"""Every Prometheus metric of the service, in one place; label values are bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics

from monitoring import exemplars
from monitoring.bounded import Bounded
from monitoring.challenger_metrics import ChallengerMetrics
from monitoring.feedback_metrics import FeedbackMetrics
from monitoring.gateway_metrics import GatewayMetrics
from monitoring.groundedness_metrics import GroundednessMetrics
from monitoring.prediction_metrics import PredictionMetrics
from monitoring.search_metrics import SearchMetrics
from monitoring.seconds import Seconds
from monitoring.standing_metrics import StandingMetrics

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MOST_ROUTES = 200
MOST_ENGINES = 50


class Metrics:
    """What this process counts; one instance for each process, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.gateway = GatewayMetrics(registry)
        """Of calls to models."""
        self.groundedness = GroundednessMetrics(registry)
        self.feedback = FeedbackMetrics(registry)
        self.searches = SearchMetrics(registry)
        self.predictions = PredictionMetrics(registry)
        self.challengers = ChallengerMetrics(registry)
        self.standing = StandingMetrics(registry)
        """Of what the database and the driver of the GPUs know."""
        self._routes = Bounded(MOST_ROUTES)
        self._engines = Bounded(MOST_ENGINES)
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "ragstone_http_requests_total",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._request_seconds = Seconds(
            "ragstone_http_request_duration_seconds",
            "From the request's first byte to the response's last.",
            ("route",),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Seconds]] = {}
        self._answers = Counter(
            "ragstone_answers_total", "By how they ended.", ("engine", "outcome"), registry=registry
        )
        self._documents = Counter(
            "ragstone_documents_ingested_total",
            "Attached files that were read, by how it ended.",
            ("outcome",),
            registry=registry,
        )
        self._chunks = Counter(
            "ragstone_chunks_committed_total", "Chunks committed with vectors.", registry=registry
        )
        self._screened = Counter(
            "ragstone_screened_total",
            "Questions and passages that seem to instruct the model.",
            ("kind",),
            registry=registry,
        )
        self._dropped = Counter(
            "ragstone_interactions_dropped_total",
            "Interactions that are lost: too many waited, or the database refused their values.",
            ("reason",),
            registry=registry,
        )
        for reason in ("full", "refused"):  # or the first one would be no increase
            self._dropped.labels(reason)
        self._gauges = {
            name: Gauge(f"ragstone_{name}", text, registry=registry)
            for name, text in _GAUGES.items()
        }

    def count_request(self, method: str, route: str, *, status: int, seconds: float) -> None:
        """Count one exchange; `route` is a template like `/v1/files/{file_id}`, never a path."""
        number, durations = self._series(method, route, status)
        number.inc()
        durations.observe(seconds, exemplars.current())

    def count_requests(
        self, method: str, route: str, *, status: int, seconds: Sequence[float]
    ) -> None:
        """Count exchanges that ended together and belong to no trace."""
        number, durations = self._series(method, route, status)
        number.inc(len(seconds))
        durations.observe_all(seconds)

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Seconds]:
        known = method if method in METHODS else "OTHER"
        series = self._of_requests.get((known, route, status))
        if series is None:  # looking a series up takes longer than counting in it
            bounded = self._routes.bounded(route)
            requests = self._requests.labels(known, bounded, str(status))
            series = requests, self._request_seconds.labels(bounded)
            self._of_requests[known, route, status] = series
        return series

    def count_answer(
        self, engine: str, outcome: Literal["answered", "abstained", "failed"]
    ) -> None:
        self._answers.labels(self._engines.bounded(engine), outcome).inc()

    def count_screened(self, kind: Literal["question", "passage"], number: int) -> None:
        self._screened.labels(kind).inc(number)

    def count_document(
        self, outcome: Literal["completed", "failed", "removed"], *, chunks: int = 0
    ) -> None:
        self._documents.labels(outcome).inc()
        self._chunks.inc(chunks)

    def count_dropped_interaction(self, reason: Literal["full", "refused"]) -> None:
        self._dropped.labels(reason).inc()

    def watch(self, gauge: str, read: Callable[[], float]) -> None:
        """Have a gauge of `questions_running`, ... ask `read` whenever it is scraped."""
        self._gauges[gauge].set_function(read)

    def render(self, *, has_exemplars: bool = False) -> bytes:
        """Return everything in Prometheus' text format, or in OpenMetrics', which has exemplars."""
        write = openmetrics.generate_latest if has_exemplars else generate_latest
        return write(self._registry)


_GAUGES = {
    "questions_running": "Searches and answers being worked on.",
    "questions_waiting": "Searches and answers waiting for their turn.",
    "models_loaded": "Classical models in memory.",
    "models_loaded_bytes": "Of their files.",
    "feature_views_bytes": "Feature views in memory.",
    "feature_views_stale": "Of them, those whose newest version cannot be read or joined; the one "
    "before it is, or that of the training.",
    "documents_waiting": "Attached files that wait to be read.",
    "interactions_spooled_bytes": "Interactions on disk that wait for the database.",
    "jobs_queued": "Jobs that wait, those for a later moment too.",
    "jobs_running": "Jobs that run, in whatever process.",
    "jobs_failed": "Jobs that were given up and wait for somebody to look at them.",
    "jobs_oldest_seconds": "How long the job that could have started first has waited.",
}
