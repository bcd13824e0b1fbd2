"""Prometheus metrics of calls to models: traffic, latency, tokens, cost, cache, replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.contracts import Usage
from monitoring import exemplars
from monitoring.bounded import Bounded

CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FIRST_BYTE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BETWEEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
MOST_NAMES = 100
"""Models, and tags, that have series of their own; further ones share `other`."""

CacheResult: TypeAlias = Literal["cache", "shared", "replayed", "miss"]
BreakerState: TypeAlias = Literal["closed", "half_open", "open"]
_STATES: dict[BreakerState, int] = {"closed": 0, "half_open": 1, "open": 2}


class ReplicaState(Protocol):
    """How one replica of a model server fares."""

    @property
    def upstream(self) -> str: ...

    @property
    def replica(self) -> str:
        """Its address."""
        ...

    @property
    def breaker(self) -> BreakerState: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int:
        """For any replica of the upstream."""
        ...

    @property
    def failures(self) -> int:
        """Since the start."""
        ...


Family = TypeVar("Family", Counter, Histogram)


class GatewayMetrics:
    """What is counted of calls to models; label values are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = Bounded(MOST_NAMES)
        self._tags = Bounded(MOST_NAMES)
        self._calls = Counter(
            "ragstone_model_calls_total",
            "Calls of models that ended, by the status the caller saw; 499 is a caller who left.",
            ("model", "upstream", "tag", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "ragstone_model_call_duration_seconds",
            "From a call's arrival to the last byte of its answer.",
            ("model", "tag"),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "ragstone_model_time_to_first_byte_seconds",
            "From a call's arrival to the first byte of its answer: of a stream, the first token.",
            ("model", "tag"),
            buckets=FIRST_BYTE_SECONDS,
            registry=registry,
        )
        self._between = Histogram(
            "ragstone_model_inter_token_latency_seconds",
            "Between two events of a stream, the mean of each stream.",
            ("model", "tag"),
            buckets=BETWEEN_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "ragstone_model_tokens_total",
            "Tokens by type: input, cached (of the input, found in the prefix cache), output.",
            ("model", "tag", "type"),
            registry=registry,
        )
        self._cost = Counter(
            "ragstone_model_cost_total",
            "What calls cost, in the currency of the settings.",
            ("model", "tag"),
            registry=registry,
        )
        self._retries = Counter(
            "ragstone_model_retries_total",
            "Tries beyond the first.",
            ("model",),
            registry=registry,
        )
        self._cache = Counter(
            "ragstone_answer_cache_total",
            "Calls that memory might answer: cached, shared with one under way, replayed by "
            "key, or not found.",
            ("result",),
            registry=registry,
        )
        self._registry = registry
        self._known: dict[tuple[object, tuple[str, ...]], Any] = {}

    def count_call(self, model: str, *, upstream: str, tag: str, status: int) -> None:
        """Count a call that ended."""
        self._of(
            self._calls, self._models.bounded(model), upstream, self._tags.bounded(tag), str(status)
        ).inc()

    def observe_call(
        self, model: str, *, tag: str, seconds: float, first_byte: float | None, pieces: int
    ) -> None:
        """Observe how long a call took, in seconds; `pieces` are the events of a stream."""
        names = (self._models.bounded(model), self._tags.bounded(tag))
        trace = exemplars.current()
        self._of(self._seconds, *names).observe(seconds, trace)
        if first_byte is None:
            return
        self._of(self._first_byte, *names).observe(first_byte, trace)
        if pieces > 1:
            self._of(self._between, *names).observe((seconds - first_byte) / (pieces - 1))

    def count_use(
        self, model: str, *, tag: str, usage: Usage, cached_tokens: int = 0, cost: float = 0.0
    ) -> None:
        """Count the tokens of a call and what they cost."""
        names = (self._models.bounded(model), self._tags.bounded(tag))
        self._of(self._tokens, *names, "input").inc(usage.prompt_tokens)
        self._of(self._tokens, *names, "output").inc(usage.completion_tokens)
        if cached_tokens:
            self._of(self._tokens, *names, "cached").inc(cached_tokens)
        if cost:
            self._of(self._cost, *names).inc(cost)

    def count_retries(self, model: str, retries: int) -> None:
        """Count the tries of a call beyond its first."""
        if retries > 0:
            self._of(self._retries, self._models.bounded(model)).inc(retries)

    def count_cache(self, result: CacheResult) -> None:
        """Count what became of a call that may be answered from memory."""
        self._of(self._cache, result).inc()

    def watch_replicas(self, read: Callable[[], Iterable[ReplicaState]]) -> None:
        """Ask `read` for the state of every replica whenever the metrics are scraped."""
        self._registry.register(_Replicas(read))

    def _of(self, family: Family, *labels: str) -> Family:
        """Return a series: to look one up takes longer than to count in it."""
        found: Family | None = self._known.get((family, labels))
        if found is None:
            found = self._known[family, labels] = family.labels(*labels)
        return found


class _Replicas(Collector):
    def __init__(self, read: Callable[[], Iterable[ReplicaState]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterator[Metric]:
        running, waiting, breaker, failures = families = _families()
        queues: dict[str, int] = {}
        for state in self._read():
            names = [state.upstream, state.replica]
            running.add_metric(names, state.running)
            breaker.add_metric(names, _STATES[state.breaker])
            failures.add_metric(names, state.failures)
            queues[state.upstream] = state.waiting
        for upstream, count in queues.items():
            waiting.add_metric([upstream], count)
        yield from families


def _families() -> tuple[
    GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily
]:
    labels = ("upstream", "replica")
    return (
        GaugeMetricFamily("ragstone_replica_running", "Calls at a replica.", labels=labels),
        GaugeMetricFamily(
            "ragstone_upstream_waiting", "Calls that wait for any replica.", labels=("upstream",)
        ),
        GaugeMetricFamily(
            "ragstone_replica_breaker_state",
            "0 closed: used; 1 half open: one call tries it; 2 open: left alone.",
            labels=labels,
        ),
        CounterMetricFamily(
            "ragstone_replica_failures", "Calls that failed at a replica.", labels=labels
        ),
    )
