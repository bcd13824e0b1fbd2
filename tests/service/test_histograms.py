"""Histograms hold what the SDK's own would hold of the same values."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter

from service.histograms import MOST_SERIES, OVERFLOW, Histogram, Sending

BOUNDS = (0.0, 1.0, 4.0, 16.0)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100, allow_subnormal=False))
FIELDS = ("count", "bucket_counts", "explicit_bounds", "min", "max")


def made() -> Histogram:
    return Histogram("h", "s", "How long.", attributes=("model", "error.type"), bounds=BOUNDS)


def points(histogram: Histogram) -> dict[frozenset[tuple[str, Any]], Any]:
    data = histogram.read(1, 2).data
    return {frozenset((point.attributes or {}).items()): point for point in data.data_points}


def of_the_sdk(values: list[tuple[float, str, str]]) -> dict[frozenset[tuple[str, Any]], Any]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    theirs = provider.get_meter("m").create_histogram(
        "h", "s", "How long.", explicit_bucket_boundaries_advisory=BOUNDS
    )
    for value, model, error in values:
        names = {"model": model, "error.type": error}
        theirs.record(value, {name: each for name, each in names.items() if each})
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    return {frozenset((point.attributes or {}).items()): point for point in metric.data.data_points}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(VALUES, st.sampled_from("ab"), st.sampled_from(("", "timeout"))),
        min_size=1,
        max_size=20,
    )
)
def test_it_holds_what_the_sdks_own_holds(values: list[tuple[float, str, str]]) -> None:
    histogram = made()
    for value, *names in values:
        histogram.record(value, *names)
    ours, theirs = points(histogram), of_the_sdk(values)
    assert ours.keys() == theirs.keys()
    for key, point in ours.items():
        assert [getattr(point, name) for name in FIELDS] == [
            getattr(theirs[key], name) for name in FIELDS
        ]
        assert abs(point.sum - theirs[key].sum) <= 1e-9 * point.sum


def test_more_names_than_are_kept_are_counted_in_one_series() -> None:
    histogram = made()
    for number in range(MOST_SERIES + 5):
        histogram.record(1.0, f"model-{number}", "")
    found = points(histogram)
    assert len(found) == MOST_SERIES + 1
    assert found[frozenset({(OVERFLOW, True)})].count == 5


def test_the_end_waits_for_no_collector_that_does_not_answer() -> None:
    going = threading.Event()

    class Hung(MetricExporter):
        has_sent = is_closed = False

        def export(self, *_: Any, **__: Any) -> Any:
            going.wait(10)
            self.has_sent = True

        def force_flush(self, *_: Any) -> bool:
            return True

        def shutdown(self, *_: Any, **__: Any) -> None:
            self.is_closed = True

    histogram, exporter = made(), Hung()
    histogram.record(1.0, "a", "")
    sending = Sending(exporter, [histogram], close_seconds=0.01)
    sending.close()
    assert (exporter.has_sent, exporter.is_closed) == (False, True)
    going.set()
