"""Prometheus metrics of searches: how long each step takes, how well the best passage fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

STAGES = frozenset({"embed", "filter", "dense", "lexical", "fuse", "fetch"})
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class SearchMetrics:
    """What is counted of searches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stage_seconds = Histogram(
            "ragstone_search_duration_seconds",
            "Steps of a search; dense and lexical run side by side.",
            ("stage",),
            buckets=STAGE_SECONDS,
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

    def observe(self, timings_ms: Mapping[str, float], scores: Sequence[float]) -> None:
        """Observe the milliseconds of a search by step, and how well its best passage fits.

        Args:
            timings_ms: by step; steps that are not of a search are left out.
            scores: of the passages that were found, best first.
        """
        for stage in STAGES & timings_ms.keys():
            self._stage_seconds.labels(stage).observe(timings_ms[stage] / 1e3)
        if scores:
            self._top_score.observe(scores[0])
        else:
            self._empty.inc()
