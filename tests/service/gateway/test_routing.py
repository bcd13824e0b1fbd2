"""Which target answers: weights, users that stay, tags, shadows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import model_server
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from relayed import answer, call, gateway, opened, run, until
from service.gateway.reloading import Tables
from service.gateway.routing import Route

Serve = Callable[..., Misbehaving]
CANARY = [
    {"upstream": "u", "model": "old", "weight": 9},
    {"upstream": "u", "model": "new", "weight": 1, "tag": "canary"},
    {"upstream": "u", "model": "next", "weight": 0, "tag": "next"},
]


def settings(targets: list[dict[str, Any]], **more: Any) -> Gateway:
    content = gateway().model_dump()
    content["upstreams"]["u"]["urls"] = ["http://127.0.0.1:1"]
    content["routes"]["m"] = {"targets": targets, **more}
    return Gateway.model_validate(content)


def route(targets: list[dict[str, Any]]) -> Route:
    return Tables(settings(targets)).current.find("m")


def test_users_are_spread_by_weight_and_each_stays() -> None:
    found = route(CANARY)
    tags = Counter(found.order(f"user-{number}")[0].tag for number in range(20_000))
    assert tags.keys() == {"live", "canary"}
    assert 0.09 < tags["canary"] / 20_000 < 0.11
    assert all(found.order("me")[0] is found.order("me")[0] for _ in range(100))


def test_a_larger_canary_keeps_the_users_it_had() -> None:
    small, large = route(CANARY), route([CANARY[0] | {"weight": 5}, CANARY[1] | {"weight": 5}])
    users = [f"user-{number}" for number in range(2_000)]
    before = {user for user in users if small.order(user)[0].tag == "canary"}
    after = {user for user in users if large.order(user)[0].tag == "canary"}
    assert before < after


def test_those_that_are_tried_next_have_weight() -> None:
    assert {target.tag for target in route(CANARY).order("me")} == {"live", "canary"}


def test_a_tag_names_its_target_alone() -> None:
    assert [target.model for target in route(CANARY).order("me", tag="next")] == ["next"]
    with pytest.raises(InvalidRequest, match="'nowhere'.*canary, live, next"):
        route(CANARY).order("me", tag="nowhere")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": [{"upstream": "w"}]}, "upstream 'w'"),
        ({"targets": [{"upstream": "u", "weight": 0}]}, "weight above 0"),
        ({"targets": [{"upstream": "u"}], "fallback": ["z"]}, "falls back to 'z'"),
        ({"targets": [{"upstream": "u"}], "fallback": ["e"]}, "something else"),
        ({"targets": [{"upstream": "u"}], "shadow": [{"upstream": "w"}]}, "upstream 'w'"),
    ],
)
def test_routes_that_lead_nowhere_are_refused(change: dict[str, Any], words: str) -> None:
    content = settings([{"upstream": "u"}]).model_dump()
    content["routes"]["e"] = {"targets": [{"upstream": "u"}], "kind": "embeddings"}
    content["routes"]["m"] = change
    with pytest.raises(InvalidConfiguration, match=words):
        Tables(Gateway.model_validate(content))


def test_an_unknown_plug_in_or_address_is_refused() -> None:
    for change, words in (
        ({"plugin": "nowhere"}, "no.*'nowhere'|No plug-in 'nowhere'"),
        ({"plugin": "echo"}, "has no 'build_server'"),
        ({"urls": ["127.0.0.1:1"]}, "no address"),
        ({"engine": "x", "urls": []}, "No engine 'x'"),
        ({"options": {"speed": 1}}, "Unknown option 'speed'"),
    ):
        content = settings([{"upstream": "u"}]).model_dump()
        content["upstreams"]["u"] |= change
        with pytest.raises(InvalidConfiguration, match=words):
            Tables(Gateway.model_validate(content))


def test_an_unknown_model_is_not_found(serve: Serve) -> None:
    async def ask() -> None:
        async with opened(gateway(serve())) as gate:
            with pytest.raises(NotFound):
                await answer(gate.relay, call("n"))

    run(ask())


def test_a_canary_that_is_down_costs_no_answer(serve: Serve) -> None:
    down, well = serve(model_server.die), serve(name="old")
    content = gateway(well).model_dump()
    content["upstreams"]["d"] = {"urls": [down.url]}
    content["routes"]["m"]["targets"] = [
        {"upstream": "u"},
        {"upstream": "d", "weight": 1.0, "tag": "canary"},
    ]

    async def ask() -> None:
        async with opened(Gateway.model_validate(content)) as gate:
            for number in range(20):
                assert b"old" in await answer(gate.relay, call(user=f"user-{number}"))

    run(ask())
    assert down.asked


def test_copies_are_recorded_and_delay_nothing(serve: Serve) -> None:
    live, slow = serve(name="live"), serve(model_server.paced(0.1), name="slow")
    content = gateway(live).model_dump()
    content["upstreams"]["s"] = {"urls": [slow.url], "max_running": 2, "silence_seconds": 5}
    content["routes"]["m"]["shadow"] = [{"upstream": "s", "model": "other", "tag": "shadow"}]

    async def ask() -> None:
        async with opened(Gateway.model_validate(content)) as gate:
            for stream in (False, True, True):
                assert b"live" in await answer(gate.relay, call(stream=stream))
            assert [outcome.tag for outcome in gate.outcomes][:2].count("live") == 2
            await until(lambda: len(gate.outcomes) == 6)
            copies = [outcome for outcome in gate.outcomes if outcome.tag == "shadow"]
            # Two had a place; the third found none and did not wait for one.
            assert sorted(outcome.status for outcome in copies) == [200, 200, 503]
            assert {o.usage.completion_tokens for o in copies if o.status == 200} == {5}
            assert slow.asked[0].body["model"] == "other"
            assert gate.is_idle

    run(ask())


def test_the_server_gets_its_own_name_of_the_model_and_is_asked_for_usage(serve: Serve) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            options = {"include_usage": False, "continuous_usage_stats": False}
            more = {"top_k": 4, "priority": 3, "stream_options": options}
            body = await answer(gate.relay, call(stream=True, **more))
            assert b"usage" not in body
            assert body.endswith(b"data: [DONE]\n\n")
            wanted = {"include_usage": True}
            body = await answer(gate.relay, call(stream=True, stream_options=wanted))
            assert b'"completion_tokens":5' in body

    run(ask())
    first = server.asked[0].body
    assert first["model"] == "tiny"
    assert (first["top_k"], first["priority"]) == (4, 3)
    assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": False}


def test_a_variant_is_the_target_that_a_call_would_meet() -> None:
    found = route(CANARY)
    tagged = found.variant("me", tag="canary")
    assert tagged is not None
    assert tagged != found.variant("me", tag="next")
    assert found.variant("me") == found.variant("me")
    assert found.variant(None) is None  # chance decides
    uncached = Tables(settings(CANARY, cache=False)).current.find("m")
    assert uncached.variant("me") is None


def test_concurrent_calls_all_end(serve: Serve) -> None:
    servers = [serve(name=f"s{number}") for number in range(3)]

    async def ask() -> None:
        async with opened(gateway(*servers, max_running=4)) as gate:
            calls = (
                answer(gate.relay, call(stream=bool(number % 2), seconds=30))
                for number in range(200)
            )
            assert len(await asyncio.gather(*calls)) == 200
            assert gate.is_idle

    run(ask())
