"""Histograms for OpenTelemetry's exporters: added up here, and sent from a thread now and then."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricExporter

INTERVAL_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""For the last sending; a collector that takes longer goes without it."""
MOST_SERIES = 2_000
"""Of one histogram; what comes with further values of attributes is counted in one series more."""
OVERFLOW = "otel.metric.overflow"
"""OpenTelemetry's attribute of that one."""


@dataclass(slots=True)
class _Series:
    counts: list[int]
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")


@dataclass(slots=True)
class Histogram:
    """One histogram with a fixed set of attributes.

    One of the SDK's costs 10 microseconds for each value, most of it for a new set of attributes.
    """

    name: str
    unit: str
    description: str
    attributes: tuple[str, ...]
    bounds: Sequence[float]
    """Of the buckets, each with its upper one."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _series: dict[tuple[str, ...], _Series] = field(default_factory=dict)

    def record(self, value: float, *values: str) -> None:
        """Count a value; `values` are those of the attributes, empty where one does not apply."""
        bucket = bisect_left(self.bounds, value)
        with self._lock:
            series = self._series.get(values) or self._add(values)
            series.counts[bucket] += 1
            series.total += value
            if value < series.least:
                series.least = value
            if value > series.most:
                series.most = value

    def _add(self, values: tuple[str, ...]) -> _Series:
        key = values if len(self._series) < MOST_SERIES else ()
        return self._series.setdefault(key, _Series([0] * (len(self.bounds) + 1)))

    def read(self, since: int, now: int) -> Metric:
        """Return what was counted; the times are nanoseconds since 1970."""
        from opentelemetry.sdk.metrics import export

        with self._lock:
            points = [
                export.HistogramDataPoint(
                    attributes=self._named(values),
                    start_time_unix_nano=since,
                    time_unix_nano=now,
                    count=sum(series.counts),
                    sum=series.total,
                    bucket_counts=tuple(series.counts),
                    explicit_bounds=self.bounds,
                    min=series.least,
                    max=series.most,
                )
                for values, series in self._series.items()
            ]
        cumulative = export.AggregationTemporality.CUMULATIVE
        return export.Metric(
            self.name, self.description, self.unit, export.Histogram(points, cumulative)
        )

    def _named(self, values: tuple[str, ...]) -> dict[str, str | bool]:
        if not values:
            return {OVERFLOW: True}
        pairs = zip(self.attributes, values, strict=True)
        return {name: value for name, value in pairs if value}


class Sending:
    """Sends histograms every `INTERVAL_SECONDS`, and once more at the end."""

    def __init__(
        self,
        exporter: MetricExporter,
        histograms: Sequence[Histogram],
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        from opentelemetry.sdk.resources import Resource

        self._exporter = exporter
        self._histograms = tuple(histograms)
        self._resource = Resource.create({"service.name": "ragstone"})
        self._clock_ns = clock_ns
        self._close_seconds = close_seconds
        self._since = clock_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def send(self) -> None:
        """Send all that was counted since the start, if there is anything."""
        from opentelemetry.sdk.metrics import export
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        now = self._clock_ns()
        read = [each.read(self._since, now) for each in self._histograms]
        if found := [metric for metric in read if metric.data.data_points]:
            scope = export.ScopeMetrics(InstrumentationScope("ragstone"), found, "")
            self._exporter.export(
                export.MetricsData([export.ResourceMetrics(self._resource, [scope], "")])
            )

    def close(self) -> None:
        """Send what is left, as far as there is time, and end; a second call does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(self._close_seconds)
        self._exporter.shutdown()

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            is_stopping = self._stopping.wait(INTERVAL_SECONDS)
            self.send()
