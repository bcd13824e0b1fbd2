"""Gauges of what database and driver know, read when scraped: drift, budgets, evaluations, GPUs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.errors import RagstoneError
from monitoring.bounded import OTHER

logger = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
"""That a reading serves further scrapes; several Prometheus servers may ask."""
MOST_SERIES = 200
"""Of one gauge; of further ones the largest value is told, as `other`."""
_UNREADABLE = "ragstone_standing_unreadable"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a gauge of `GAUGES`, with its labels in their order."""

    gauge: str
    labels: tuple[str, ...]
    value: float


Read = Callable[[], Iterable[Reading]]


class StandingMetrics(Collector):
    """Asks whoever knows; what cannot be read has no series, and is told as unreadable."""

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._parts: dict[str, _Part] = {}
        self._reading = threading.Lock()
        registry.register(self)

    def watch(self, part: str, read: Read, *, kept_seconds: float = KEPT_SECONDS) -> None:
        """Have a part of the service tell its readings; a second time replaces the first."""
        self._parts[part] = _Part(read, kept_seconds)

    def describe(self) -> Iterable[Metric]:
        return _families().values()

    def collect(self) -> Iterator[Metric]:
        families = _families()
        with self._reading:
            for name, part in self._parts.items():
                is_readable = part.refresh(self._clock())
                families[_UNREADABLE].add_metric([name], float(not is_readable))
            readings = [each for part in self._parts.values() for each in part.readings]
        for gauge, family in families.items():
            for labels, value in _bounded(each for each in readings if each.gauge == gauge):
                family.add_metric(list(labels), value)
        yield from families.values()


class _Part:
    def __init__(self, read: Read, kept_seconds: float) -> None:
        self._read = read
        self._kept_seconds = kept_seconds
        self._read_at = float("-inf")
        self._is_readable = True
        self.readings: list[Reading] = []

    def refresh(self, now: float) -> bool:
        """Read again if it is time; returns whether it could be read the last time."""
        if now - self._read_at < self._kept_seconds:
            return self._is_readable
        self._read_at = now
        try:
            self.readings, self._is_readable = list(self._read()), True
        except RagstoneError as error:
            logger.warning("a scrape goes without what cannot be read: %s", error.message)
            self.readings, self._is_readable = [], False
        return self._is_readable


def _bounded(readings: Iterable[Reading]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the first series as they are, the largest of the rest as one."""
    found = {each.labels: each.value for each in readings}
    kept = list(found)[: MOST_SERIES if len(found) <= MOST_SERIES else MOST_SERIES - 1]
    for labels in kept:
        yield labels, found.pop(labels)
    if found:
        width = len(next(iter(found)))
        yield (OTHER,) * width, max(found.values())


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(name, text, labels=labels)
        for name, (labels, text) in GAUGES.items()
    }


GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "ragstone_drift_verdict": (
        ("monitor", "verdict"),
        "1 for what the last window showed: drift, stable, not_enough_data, incomparable.",
    ),
    "ragstone_drift_alarm": (
        ("monitor",),
        "1 from the window that confirms drift to the one that confirms its end.",
    ),
    "ragstone_drift_effect_ratio": (
        ("monitor", "feature"),
        "How much a feature moved, in units of the least effect that counts.",
    ),
    "ragstone_drift_p_value": (
        ("monitor", "feature"),
        "Of 'this feature has not moved', corrected for the other features.",
    ),
    "ragstone_drift_stream_alarm": (
        ("monitor", "feature", "detector"),
        "1 where a sequential detector is sure of a change.",
    ),
    "ragstone_drift_window_rows": (
        ("monitor", "window"),
        "Rows that were compared: reference, measurement; rows that are missing to a full window.",
    ),
    "ragstone_drift_run_timestamp_seconds": (("monitor",), "When a window was last judged."),
    "ragstone_drift_due_timestamp_seconds": (
        ("monitor",),
        "When the next one is to be judged; before the first one, when this process began.",
    ),
    "ragstone_drift_triggers": (
        ("monitor", "action"),
        "What windows led to and is kept: ticket, harm, started, suppressed, resolved.",
    ),
    "ragstone_performance_estimate": (
        ("monitor", "metric", "bound"),
        "Of a column's mean, of a metric by confidence or by labels: estimate, low, high.",
    ),
    "ragstone_performance_refused": (
        ("monitor", "metric"),
        "1 where the last window does not tell: too little in it, or outside of the reference.",
    ),
    "ragstone_performance_floor": (("monitor", "metric"), "Below it, a change does harm."),
    "ragstone_budget_spent_ratio": (
        ("holder", "period"),
        "The share that is spent of the budget that has least left.",
    ),
    "ragstone_index_lag_changes": (
        ("collection",),
        "Committed changes that searches of this process do not see yet.",
    ),
    "ragstone_source_due_timestamp_seconds": (
        ("source",),
        "When a source has to be in step again, by its schedule.",
    ),
    "ragstone_eval_passed": (("suite",), "Whether the newest evaluation of a suite passed."),
    "ragstone_eval_timestamp_seconds": (("suite",), "When the newest evaluation was made."),
    "ragstone_gpu_utilization_ratio": (
        ("gpu",),
        "The share of the last moments in which a GPU of this machine computed.",
    ),
    "ragstone_gpu_memory_used_bytes": (("gpu",), "By whatever process."),
    "ragstone_gpu_memory_size_bytes": (("gpu",), "Of the GPU's own memory."),
    "ragstone_gpu_temperature_celsius": (("gpu",), "Of the die."),
    "ragstone_gpu_power_watts": (("gpu",), "Drawn, the board's memory included."),
    _UNREADABLE: (("part",), "1 where the last attempt to read these gauges failed."),
}
