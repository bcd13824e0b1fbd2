"""Prometheus metrics of groundedness: scores, verdicts, what is not carried, what was not seen."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from infra.contracts import Groundedness

SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
Blind: TypeAlias = Literal["failed", "slow", "overloaded", "closed", "no_passages", "partly_read"]
"""Why the scorer did not see an answer, or not all of it."""


class GroundednessMetrics:
    """The rate of hallucination is `verdicts{verdict="unsupported"}` over all verdicts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._scores = Histogram(
            "ragstone_groundedness_score",
            "How well passages carry the weakest sentence of an answer.",
            buckets=SCORES,
            registry=registry,
        )
        self._verdicts = Counter(
            "ragstone_groundedness_verdicts_total",
            "Answers by what was found: grounded, unsupported, uncertain, unscored.",
            ("verdict",),
            registry=registry,
        )
        self._unsupported = Counter(
            "ragstone_groundedness_unsupported_sentences_total",
            "Sentences that no passage carries, by what they disagree in.",
            ("disagreement",),
            registry=registry,
        )
        self._uncited = Counter(
            "ragstone_groundedness_uncited_sentences_total",
            "Sentences without a citation, of answers that were scored.",
            registry=registry,
        )
        self._blind = Counter(
            "ragstone_groundedness_blind_total",
            "Answers that were not scored though they should be, or not in whole.",
            ("reason",),
            registry=registry,
        )
        self._seconds = Histogram(
            "ragstone_groundedness_duration_seconds",
            "What scoring an answer took.",
            buckets=SECONDS,
            registry=registry,
        )
        # Of a counter that begins at 1, nobody sees the increase.
        for disagreement in ("number", "date", "name", "none"):
            self._unsupported.labels(disagreement)
        for reason in get_args(Blind):
            self._blind.labels(reason)
        for verdict in ("grounded", "unsupported", "uncertain", "unscored"):
            self._verdicts.labels(verdict)

    def observe(self, found: Groundedness, *, seconds: float) -> None:
        """Take note of what was found of an answer."""
        self._seconds.observe(seconds)
        self._verdicts.labels(found.verdict).inc()
        self._uncited.inc(len(found.uncited))
        if found.score is not None:
            self._scores.observe(found.score)
        if found.coverage < 1:
            self._blind.labels("partly_read").inc()
        for sentence in found.unsupported:
            kinds = sorted({each.kind for each in sentence.disagreements})
            self._unsupported.labels(kinds[0] if kinds else "none").inc()

    def count_blind(self, reason: Blind) -> None:
        self._blind.labels(reason).inc()
