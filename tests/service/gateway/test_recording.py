"""A call that ended is counted, and kept as an interaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import orjson
import pytest
from prometheus_client import CollectorRegistry

from gateway_outcomes import made_call, made_outcome
from infra.contracts import Interaction, Usage
from infra.database.engine import Database
from infra.errors import Overloaded
from infra.gateway_settings import Gateway
from model_server import Misbehaving, die, failing, hang_midway
from monitoring.gateway_metrics import MOST_NAMES, GatewayMetrics
from monitoring.interaction_queue import Taken
from monitoring.interactions import Interactions, Query
from relayed import answer, call, gateway, opened, outcome_of, run, until
from service.callers import Caller
from service.gateway.calls import Call, Outcome
from service.gateway.opening import Origin, open_call
from service.gateway.outgoing import TIMEOUT_HEADER
from service.gateway.recording import InteractionRecorder, MetricsRecorder
from service.gateway.routing import share_of
from service.gateway.transcripts import MAX_CHARACTERS, Transcript
from service.gateway.upstreams import ReplicaState
from service.gateway.within import CHAT


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
    (item,) = all_kept_of(made_outcome())
    assert (item.request_id, item.tenant, item.key_id) == ("req_1", "acme", "key_1")
    assert (item.outcome, item.cost_nano, item.first_byte_seconds) == ("answered", 3_000_000, 0.25)
    assert item.content is None


def test_calls_written_together_are_what_they_are_one_by_one(database: Database) -> None:
    ada, bob = made_call(), made_call(model="large")
    ada.user = "ada"
    bob.caller, bob.target = Caller(key_id="key_2", name="bob"), "canary"
    outcomes = [
        made_outcome(ada, served="small-7b", cost=0.1 + 0.2),
        made_outcome(bob, status=499, first_byte=None, ended=100.0),
        made_outcome(status=502, error="engine_failed", usage=Usage(), cached_tokens=0),
        made_outcome(source="cache", upstream="", tag="", cost=0.0),
    ]
    kept: list[Taken] = []
    recorder = InteractionRecorder(kept.append, has_content=False)
    for outcome in outcomes:
        recorder.record(outcome)
    log = Interactions(database)
    for item in kept:
        log.add(item)
    log.flush()
    expected = [each.interaction() for each in kept if not isinstance(each, Interaction)]
    assert len(expected) == len(outcomes)
    assert log.find(Query()) == expected[::-1]
    assert [each.outcome for each in expected] == ["answered", "cancelled", "failed", "answered"]
    assert [each.terms for each in expected] == [None, "pinned", None, None]
    assert [each.draw is None for each in expected] == [False, True, True, True]


def test_of_a_share_of_the_requests_the_texts_are_kept_the_same_wherever_they_are_drawn() -> None:
    def kept(share: float) -> set[str | None]:
        items: list[Taken] = []
        recorder = InteractionRecorder(items.append, has_content=True, content_share=share)
        for number in range(200):
            call = made_call()
            call.request_id = f"req_{number}"
            recorder.record(made_outcome(call))
        assert len(items) == 200
        return {each.request_id for each in items if isinstance(each, Interaction) and each.content}

    assert (len(kept(0)), len(kept(1))) == (0, 200)
    assert 20 < len(kept(0.25)) < 80
    assert kept(0.25) == kept(0.25) < kept(0.5)


def kept_of(outcome: Outcome, *, has_content: bool = True) -> Interaction:
    return all_kept_of(outcome, has_content=has_content)[0]


def all_kept_of(*outcomes: Outcome, has_content: bool = False) -> list[Interaction]:
    kept: list[Taken] = []
    recorder = InteractionRecorder(kept.append, has_content=has_content, clock=lambda: 0.0)
    for outcome in outcomes:
        recorder.record(outcome)
    return [each if isinstance(each, Interaction) else each.interaction() for each in kept]


@pytest.mark.parametrize(
    ("is_stream", "told"), [(False, "I am tiny."), (True, "tiny0 tiny1 tiny2 tiny3 tiny4 ")]
)
def test_what_the_model_said_is_kept_where_the_settings_ask_for_it(
    serve: Callable[..., Misbehaving], is_stream: bool, told: str
) -> None:
    asked = call(stream=is_stream)
    content = kept_of(outcome_of(gateway(serve()), asked)).content
    assert content == {"request": asked.body, "answer": told}


def test_what_the_model_said_is_not_collected_where_nobody_asks_for_it(
    serve: Callable[..., Misbehaving],
) -> None:
    outcome = outcome_of(gateway(serve()), call(stream=True), keeps_text=False)
    assert outcome.text is None


def test_what_a_caller_who_left_was_told_is_kept(serve: Callable[..., Misbehaving]) -> None:
    async def leave() -> Outcome:
        async with opened(gateway(serve(hang_midway)), keeps_text=True) as found:
            reply = await found.relay.run(call(stream=True))
            await anext(aiter(reply.pieces))
            await reply.pieces.aclose()
            return found.outcomes[0]

    item = kept_of(run(leave()))
    assert item.outcome == "cancelled"
    assert item.content is not None
    assert item.content["answer"] == "tiny0 "


def test_what_a_shadow_said_is_kept_too(serve: Callable[..., Misbehaving]) -> None:
    settings = gateway(serve()).model_dump()
    settings["upstreams"]["s"] = {"urls": [serve(name="copy").url]}
    settings["routes"]["m"]["shadow"] = [{"upstream": "s", "tag": "shadow", "model": "copy"}]

    async def ask() -> list[Outcome]:
        async with opened(Gateway.model_validate(settings), keeps_text=True) as found:
            await answer(found.relay, call(stream=True))
            await until(lambda: len(found.outcomes) == 2)
            return found.outcomes

    outcomes = run(ask())
    told = {outcome.tag: outcome.text for outcome in outcomes}
    assert told["shadow"] == "copy0 copy1 copy2 copy3 copy4 "
    kept = [kept_of(outcome) for outcome in outcomes]
    copies = [item.tag for item in kept if item.id.endswith("-shadow")]
    assert copies == ["shadow"], "feedback by the request, and monitors, are of what was told"


def test_a_canary_that_fails_is_kept_as_a_failure_of_its_own(
    serve: Callable[..., Misbehaving],
) -> None:
    settings = gateway(serve()).model_dump()
    settings["upstreams"]["new"] = {"urls": [serve(die).url]}
    canary = {"upstream": "new", "model": "m", "tag": "canary", "weight": 1e9}
    settings["routes"]["m"]["targets"] = [*settings["routes"]["m"]["targets"], canary]
    outcome = outcome_of(Gateway.model_validate(settings), call())
    kept = all_kept_of(outcome)
    told = [(each.tag, each.upstream, each.served, each.outcome, each.status) for each in kept]
    assert told[0] == ("canary", "new", "m", "failed", 502)
    assert told[1][0::3] == ("live", "answered")
    assert len({each.request_id for each in kept}) == 1


@pytest.mark.parametrize(
    ("has_other", "told"), [(True, [("live", "tiny")]), (False, [("new", None)])]
)
def test_a_version_whose_server_has_too_much_to_do_did_not_fail(
    serve: Callable[..., Misbehaving], has_other: bool, told: list[tuple[str, str | None]]
) -> None:
    settings = gateway(serve()).model_dump()
    busy = failing(503, **{"retry-after": "1"})
    settings["upstreams"]["new"] = {"urls": [serve(busy).url]}
    canary = {"upstream": "new", "model": "m", "tag": "new", "weight": 1e9}
    others = settings["routes"]["m"]["targets"] if has_other else []
    settings["routes"]["m"]["targets"] = [*others, canary]

    async def ask() -> list[Outcome]:
        async with opened(Gateway.model_validate(settings)) as found:
            with suppress(Overloaded):
                await answer(found.relay, call())
            return found.outcomes

    kept = all_kept_of(*run(ask()))
    assert [(each.tag, each.served) for each in kept] == told


@pytest.mark.parametrize(
    ("header", "target", "terms"),
    [(None, None, None), ("5", None, "hurried"), ("1e9", None, None), ("5", "live", "pinned")],
)
def test_the_terms_of_a_call_are_kept(
    serve: Callable[..., Misbehaving], header: str | None, target: str | None, terms: str | None
) -> None:
    headers = {} if header is None else {TIMEOUT_HEADER: header}

    async def ask() -> Call:
        async with opened(gateway(serve())) as found:
            table, caller = found.tables.current, Caller()
            origin = Origin("req_1", headers)
            return open_call(table, CHAT, call().body, caller=caller, origin=origin)

    asked = replace(run(ask()), target=target)
    assert kept_of(made_outcome(asked)).terms == terms


def test_users_are_told_apart_by_their_draws_alone() -> None:
    ada, bob = (kept_of(made_outcome(replace(made_call(), user=user))) for user in ("ada", "bob"))
    assert ada.draw == round(share_of("small", "ada"), 5) != bob.draw
    assert kept_of(made_outcome()).draw is None


def test_a_prompt_made_of_documents_is_not_kept(serve: Callable[..., Misbehaving]) -> None:
    inner = replace(call(), keeps_content=False, documents=("file-a",))
    item = kept_of(outcome_of(gateway(serve()), inner))
    assert (item.content, item.documents) == (None, ())
    quoting = replace(call(), documents=("file-a",))
    assert kept_of(outcome_of(gateway(serve()), quoting)).documents == ("file-a",)


def test_what_is_kept_is_bounded() -> None:
    item = kept_of(made_outcome(made_call(image="x" * 10**6)))
    assert item.content is not None
    assert len(item.content["request"]["image"]) == MAX_CHARACTERS + 3
    transcript = Transcript()
    for _ in range(30):
        piece = {"choices": [{"index": 0, "delta": {"content": "x" * 5_000}}]}
        transcript.add_events(b"data: " + orjson.dumps(piece) + b"\n\n")
    assert len(transcript.text) == MAX_CHARACTERS


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "answered"), (499, "cancelled"), (429, "failed"), (502, "failed")]
)
def test_the_status_says_how_it_ended(status: int, outcome: str) -> None:
    assert kept_of(made_outcome(status=status), has_content=False).outcome == outcome


def test_a_call_of_which_no_interaction_can_be_made_costs_itself_alone(database: Database) -> None:
    dropped: list[str] = []
    log = Interactions(database, count_dropped=dropped.append)
    recorder = InteractionRecorder(log.add, has_content=False)
    for cost in (0.003, float("nan"), 0.004):
        recorder.record(made_outcome(cost=cost))
    log.flush()
    assert [each.cost_nano for each in log.find(Query())] == [4_000_000, 3_000_000]
    assert dropped == ["refused"]


def test_calls_of_one_request_are_interactions_of_their_own() -> None:
    kept = all_kept_of(made_outcome(), made_outcome())
    assert len({item.id for item in kept}) == 2
    assert {item.request_id for item in kept} == {"req_1"}
