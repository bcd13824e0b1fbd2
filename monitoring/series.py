"""Every series that the service exports: its name, type, labels and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from monitoring.metrics import Metrics

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}


@dataclass(frozen=True, slots=True)
class Series:
    """A family of series."""

    name: str
    """As it is queried; of a histogram without `_bucket`, `_sum` and `_count`."""
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def queried(self) -> tuple[str, ...]:
        """Return the names that a query may use."""
        base = self.name.removesuffix("_total")
        return tuple(base + suffix for suffix in SUFFIXES[self.kind])


def exported() -> list[Series]:
    """Return all series of a serving process, by name."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.gateway.watch_replicas(lambda: ())
    return sorted(_found(registry), key=lambda each: each.name)


def _found(registry: CollectorRegistry) -> Iterator[Series]:
    # No public way leads from a registry to its collectors; their samples do not name the labels
    # of what was not counted yet.
    for collector in set(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            for family in collector.describe():
                labels = tuple(collector._labelnames)
                yield _series(family.name, family.type, labels, family.documentation)
        else:
            described = getattr(collector, "describe", collector.collect)
            for family in described() or collector.collect():
                labels = tuple(getattr(family, "_labelnames", ()))
                yield _series(family.name, family.type, labels, family.documentation)


def _series(name: str, kind: str, labels: tuple[str, ...], text: str) -> Series:
    return Series(f"{name}_total" if kind == "counter" else name, kind, labels, text)
