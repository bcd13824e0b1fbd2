"""A call that ended is counted, and kept as an interaction."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from gateway_outcomes import made_call, made_outcome
from infra.contracts import Interaction
from monitoring.gateway_metrics import MOST_NAMES, GatewayMetrics
from service.gateway.recording import InteractionRecorder, MetricsRecorder
from service.gateway.upstreams import ReplicaState


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_stream_is_counted_with_its_times_tokens_and_cost(registry: CollectorRegistry) -> None:
    MetricsRecorder(GatewayMetrics(registry)).record(made_outcome(attempts=3))
    names = {"model": "small", "tag": "live"}
    calls = {**names, "upstream": "gpu", "status": "200"}
    assert registry.get_sample_value("ragstone_model_calls_total", calls) == 1
    assert registry.get_sample_value("ragstone_model_retries_total", {"model": "small"}) == 2
    assert registry.get_sample_value("ragstone_model_call_duration_seconds_sum", names) == 1.25
    first = "ragstone_model_time_to_first_byte_seconds_sum"
    assert registry.get_sample_value(first, names) == 0.25
    between = "ragstone_model_inter_token_latency_seconds_sum"
    assert registry.get_sample_value(between, names) == pytest.approx(0.1)
    tokens = {
        kind: registry.get_sample_value("ragstone_model_tokens_total", {**names, "type": kind})
        for kind in ("input", "cached", "output")
    }
    assert tokens == {"input": 20, "cached": 8, "output": 10}
    assert registry.get_sample_value("ragstone_model_cost_total", names) == pytest.approx(0.003)


def test_a_failure_is_counted_and_does_not_blur_the_latencies(registry: CollectorRegistry) -> None:
    MetricsRecorder(GatewayMetrics(registry)).record(
        made_outcome(status=502, error="engine_failed")
    )
    names = {"model": "small", "tag": "live"}
    assert registry.get_sample_value("ragstone_model_call_duration_seconds_count", names) is None
    calls = {**names, "upstream": "gpu", "status": "502"}
    assert registry.get_sample_value("ragstone_model_calls_total", calls) == 1


def test_a_caller_who_left_is_charged_and_leaves_no_latency(registry: CollectorRegistry) -> None:
    MetricsRecorder(GatewayMetrics(registry)).record(made_outcome(status=499))
    names = {"model": "small", "tag": "live"}
    assert registry.get_sample_value("ragstone_model_call_duration_seconds_count", names) is None
    spent = {**names, "type": "output"}
    assert registry.get_sample_value("ragstone_model_tokens_total", spent) == 10


def test_models_beyond_a_bound_share_one_series(registry: CollectorRegistry) -> None:
    recorder = MetricsRecorder(GatewayMetrics(registry))
    for number in range(MOST_NAMES + 50):
        recorder.record(made_outcome(made_call(model=f"model-{number}")))
    models = {
        sample.labels["model"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "ragstone_model_calls_total"
    }
    assert len(models) == MOST_NAMES + 1
    other = {"model": "other", "upstream": "gpu", "tag": "live", "status": "200"}
    assert registry.get_sample_value("ragstone_model_calls_total", other) == 50


def test_replicas_are_asked_when_the_metrics_are_scraped(registry: CollectorRegistry) -> None:
    states = [ReplicaState("gpu", "10.0.0.1:8100", 3, 1, "open", is_up=False, failures=7)]
    GatewayMetrics(registry).watch_replicas(lambda: states)
    names = {"upstream": "gpu", "replica": "10.0.0.1:8100"}
    assert registry.get_sample_value("ragstone_replica_running", names) == 3
    assert registry.get_sample_value("ragstone_replica_breaker_state", names) == 2
    states[0] = ReplicaState("gpu", "10.0.0.1:8100", 0, 0, "closed", is_up=True, failures=7)
    assert registry.get_sample_value("ragstone_replica_breaker_state", names) == 0
    assert registry.get_sample_value("ragstone_replica_failures_total", names) == 7
    assert registry.get_sample_value("ragstone_upstream_waiting", {"upstream": "gpu"}) == 0


def test_a_call_becomes_an_interaction_without_its_text() -> None:
    kept: list[Interaction] = []
    recorder = InteractionRecorder(kept.append, has_content=False, clock=lambda: 0.0)
    recorder.record(made_outcome(text="Hello, Ada"))
    (item,) = kept
    assert (item.request_id, item.tenant, item.key_id) == ("req_1", "acme", "key_1")
    assert (item.outcome, item.cost_nano, item.first_byte_seconds) == ("answered", 3_000_000, 0.25)
    assert item.content is None


def test_the_text_is_kept_where_the_settings_ask_for_it() -> None:
    kept: list[Interaction] = []
    InteractionRecorder(kept.append, has_content=True).record(made_outcome(text="Hello, Ada"))
    assert kept[0].content is not None
    assert kept[0].content["answer"] == "Hello, Ada"


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "answered"), (499, "cancelled"), (429, "failed"), (502, "failed")]
)
def test_the_status_says_how_it_ended(status: int, outcome: str) -> None:
    kept: list[Interaction] = []
    InteractionRecorder(kept.append, has_content=False).record(made_outcome(status=status))
    assert kept[0].outcome == outcome


def test_calls_of_one_request_are_interactions_of_their_own() -> None:
    kept: list[Interaction] = []
    recorder = InteractionRecorder(kept.append, has_content=False)
    recorder.record(made_outcome())
    recorder.record(made_outcome())
    assert len({item.id for item in kept}) == 2
    assert {item.request_id for item in kept} == {"req_1"}
