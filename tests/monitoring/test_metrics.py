"""What is counted stays bounded whatever callers name, and leads to traces where it may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from infra import telemetry
from infra.contracts import Usage
from infra.errors import StorageFailed
from monitoring.metrics import Metrics
from monitoring.standing_metrics import Reading

MOST_OF_ONE = 250
MOST = 5_000
"""Series of one process."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(metrics.render().decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("strangers", [8_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_any_number_of_users_models_and_questions_leaves_the_series_few(
    metrics: Metrics, strangers: int
) -> None:
    def readings() -> Iterator[Reading]:
        for number in range(strangers):
            yield Reading("ragstone_drift_alarm", (f"monitor {number}",), float(number == 7_777))

    metrics.standing.watch("drift", readings)
    for number in range(strangers):
        name = f"stranger-{number}"
        metrics.gateway.count_call(name, upstream="vllm", tag=name, status=200)
        metrics.gateway.observe_call(name, tag=name, seconds=1.0, first_byte=0.1, pieces=9)
        metrics.gateway.count_use(name, tag=name, usage=Usage(5, 5), cost=0.1)
        metrics.gateway.count_retries(name, 1)
        metrics.count_request(f"METHOD{number}", f"/{name}", status=200, seconds=0.1)
        metrics.count_answer(name, "answered")
        metrics.feedback.count("label", name)
    found = samples(metrics)
    rows = Counter(name for name, _ in found if not name.endswith("_bucket"))
    assert max(rows.values()) <= MOST_OF_ONE
    assert sum(rows.values()) <= MOST
    total = sum(value for (name, _), value in found.items() if name == "ragstone_model_calls_total")
    assert total == strangers, "what has no series of its own is counted all the same"
    other = found["ragstone_drift_alarm", (("monitor", "other"),)]
    assert other == 1.0, "an alarm past the first monitors is not lost"


def test_a_duration_leads_to_the_trace_it_was_observed_in(metrics: Metrics) -> None:
    token = telemetry.traceparent.set(f"00-{'a' * 32}-{'b' * 16}-01")
    metrics.count_request("GET", "/v1/models", status=200, seconds=0.2)
    telemetry.traceparent.set(f"00-{'c' * 32}-{'d' * 16}-00")
    metrics.count_request("GET", "/v1/models", status=200, seconds=3.0)
    telemetry.traceparent.reset(token)
    metrics.count_request("GET", "/v1/models", status=200, seconds=20.0)
    text = metrics.render(has_exemplars=True).decode()
    exemplars = [
        sample.exemplar.labels
        for family in parse_open(text)
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [{"trace_id": "a" * 32}], "of traces that are kept, and no others"
    assert "trace_id" not in metrics.render().decode()


def test_what_cannot_be_read_has_no_series_and_is_told(metrics: Metrics) -> None:
    is_down = False
    now = [0.0]

    def read() -> list[Reading]:
        if is_down:
            raise StorageFailed("the database is gone")
        return [Reading("ragstone_eval_passed", ("faq",), 1.0)]

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.standing._clock = lambda: now[0]
    metrics.standing.watch("evaluations", read)
    passed = ("ragstone_eval_passed", (("suite", "faq"),))
    unreadable = ("ragstone_standing_unreadable", (("part", "evaluations"),))
    assert samples(metrics)[passed] == 1.0
    is_down = True
    assert samples(metrics)[unreadable] == 0.0, "a reading serves the scrapes that follow at once"
    now[0] += 60
    found = samples(metrics)
    assert passed not in found
    assert found[unreadable] == 1.0
