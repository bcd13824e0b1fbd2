"""Every Prometheus metric of the service, in one place; label values are bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from monitoring.gateway_metrics import GatewayMetrics
from monitoring.groundedness_metrics import GroundednessMetrics

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
STAGES = frozenset({"embed", "filter", "dense", "lexical", "fuse", "fetch"})
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What this process counts; one instance for each process, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.gateway = GatewayMetrics(registry)
        """Of calls to models."""
        self.groundedness = GroundednessMetrics(registry)
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
        self._dropped = Counter(
            "ragstone_interactions_dropped_total",
            "Interactions that are lost: too many waited, or the database refused their values.",
            ("reason",),
            registry=registry,
        )
        self._gauges = {
            name: Gauge(f"ragstone_{name}", text, registry=registry)
            for name, text in _GAUGES.items()
        }

    def count_request(self, method: str, route: str, *, status: int, seconds: float) -> None:
        """Count one exchange; `route` is a template like `/v1/files/{file_id}`, never a path."""
        known = method if method in METHODS else "OTHER"
        series = self._of_requests.get((known, route, status))
        if series is None:  # looking a series up takes longer than counting in it
            requests = self._requests.labels(known, route, str(status))
            series = requests, self._request_seconds.labels(route)
            self._of_requests[known, route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def observe_search(self, timings_ms: Mapping[str, float]) -> None:
        """Observe the milliseconds of a search by step; steps that are not of a search are not."""
        for stage in STAGES & timings_ms.keys():
            self._stage_seconds.labels(stage).observe(timings_ms[stage] / 1e3)

    def count_answer(
        self, engine: str, outcome: Literal["answered", "abstained", "failed"]
    ) -> None:
        self._answers.labels(engine, outcome).inc()

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

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


_GAUGES = {
    "questions_running": "Searches and answers being worked on.",
    "questions_waiting": "Searches and answers waiting for their turn.",
    "documents_waiting": "Attached files that wait to be read.",
    "jobs_queued": "Jobs that wait, those for a later moment too.",
    "jobs_running": "Jobs that run, in whatever process.",
    "jobs_failed": "Jobs that were given up and wait for somebody to look at them.",
    "jobs_oldest_seconds": "How long the job that could have started first has waited.",
}
