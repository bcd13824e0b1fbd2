"""Every Prometheus metric of the service, in one place; label values are bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics

from monitoring import exemplars
from monitoring.bounded import Bounded
from monitoring.gateway_metrics import GatewayMetrics
from monitoring.standing_metrics import StandingMetrics

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
STAGES = frozenset({"embed", "filter", "dense", "lexical", "fuse", "fetch"})
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MOST_ROUTES = 200
MOST_ENGINES = 50
MOST_LABELS = 20
"""Of feedback, with series of their own."""
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What this process counts; one instance for each process, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.gateway = GatewayMetrics(registry)
        """Of calls to models."""
        self.standing = StandingMetrics(registry)
        """Of what the database knows."""
        self._routes = Bounded(MOST_ROUTES)
        self._engines = Bounded(MOST_ENGINES)
        self._labels = Bounded(MOST_LABELS)
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "ragstone_http_requests_total",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "ragstone_http_request_duration_seconds",
            "From the request's first byte to the response's last.",
            ("route",),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._stage_seconds = Histogram(
            "ragstone_search_duration_seconds",
            "Steps of a search; dense and lexical run side by side.",
            ("stage",),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self._answers = Counter(
            "ragstone_answers_total",
            "Questions by how they ended.",
            ("engine", "outcome"),
            registry=registry,
        )
        self._documents = Counter(
            "ragstone_documents_ingested_total",
            "Attached files that were read, by how it ended.",
            ("outcome",),
            registry=registry,
        )
        self._chunks = Counter(
            "ragstone_chunks_committed_total",
            "Chunks committed with their vectors.",
            registry=registry,
        )
        self._screened = Counter(
            "ragstone_screened_total",
            "Questions and passages that seem to instruct the model.",
            ("kind",),
            registry=registry,
        )
        self._top_score = Histogram(
            "ragstone_search_top_score",
            "The fused score of the best passage that a search found.",
            buckets=SCORES,
            registry=registry,
        )
        self._empty = Counter(
            "ragstone_search_empty_total", "Searches that found no passage.", registry=registry
        )
        self._feedback = Counter(
            "ragstone_feedback_total",
            "What people said of answers and predictions; values of labels are those first seen.",
            ("kind", "value"),
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
        for value in ("up", "down"):
            self._feedback.labels("thumbs", value)
        self._gauges = {
            name: Gauge(f"ragstone_{name}", text, registry=registry)
            for name, text in _GAUGES.items()
        }

    def count_request(self, method: str, route: str, *, status: int, seconds: float) -> None:
        """Count one exchange; `route` is a template like `/v1/files/{file_id}`, never a path."""
        known = method if method in METHODS else "OTHER"
        series = self._of_requests.get((known, route, status))
        if series is None:  # looking a series up takes longer than counting in it
            bounded = self._routes.bounded(route)
            requests = self._requests.labels(known, bounded, str(status))
            series = requests, self._request_seconds.labels(bounded)
            self._of_requests[known, route, status] = series
        series[0].inc()
        series[1].observe(seconds, exemplars.current())

    def observe_search(self, timings_ms: Mapping[str, float], scores: Sequence[float]) -> None:
        """Observe the milliseconds of a search by step, and how well its best passage fits.

        Args:
            timings_ms: by step; steps that are not of a search are left out.
            scores: of the passages that were found, best first.
        """
        if scores:
            self._top_score.observe(scores[0])
        else:
            self._empty.inc()
        for stage in STAGES & timings_ms.keys():
            self._stage_seconds.labels(stage).observe(timings_ms[stage] / 1e3)

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

    def count_feedback(self, kind: Literal["thumbs", "correction", "label"], value: str) -> None:
        """Count what somebody said; `value` is `up`, `down`, or the label that was given."""
        self._feedback.labels(kind, self._labels.bounded(value)).inc()

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
    "documents_waiting": "Attached files that wait to be read.",
    "jobs_queued": "Jobs that wait, those for a later moment too.",
    "jobs_running": "Jobs that run, in whatever process.",
    "jobs_failed": "Jobs that were given up and wait for somebody to look at them.",
    "jobs_oldest_seconds": "How long the job that could have started first has waited.",
}
