"""What is observed together counts as if it were observed one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from monitoring.seconds import Seconds

AMOUNTS = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.500001, 1.0, 7.0, 1e9]), max_size=20)


@given(AMOUNTS)
def test_amounts_that_are_observed_together_count_as_one_by_one(amounts: list[float]) -> None:
    samples = []
    for is_together in (True, False):
        registry = CollectorRegistry()
        series = Seconds("s", "s", ("route",), buckets=(0.1, 0.5, 1.0), registry=registry)
        if is_together:
            series.labels("a").observe_all(amounts)
        else:
            series.labels("a")
            for each in amounts:
                series.labels("a").observe(each)
        (metric,) = registry.collect()
        samples.append(
            {
                (each.name, *each.labels.values()): each.value
                for each in metric.samples
                if not each.name.endswith("_created")
            }
        )
    assert samples[0].keys() == samples[1].keys()
    for name, value in samples[1].items():
        assert samples[0][name] == pytest.approx(value)
