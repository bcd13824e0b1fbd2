"""Served targets of evaluations: any OpenAI-compatible URL, and routes of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_server import ChatServer, serving
from evals.trial import Case, Output
from infra.contracts import Usage
from infra.errors import EngineFailed, InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import available
from infra.settings import Settings
from scripted_evals import suite
from service import evaluating
from service.wiring import Components

CASE = Case("1", "How long is the bridge?")


def ask(parts: Components, target: Any, case: Case = CASE, seed: int = 7) -> Output:
    async def once() -> Output:
        opened = evaluating.open_target(parts, suite(target=target), Path())
        try:
            return await opened(case, seed=seed)
        finally:
            await opened.close()

    return asyncio.run(once())


@pytest.fixture
def served() -> Any:
    with serving("It is 48 metres long.") as server:
        yield server


@pytest.fixture
def parts(fast_settings: Callable[..., Settings], open_components: Any, served: ChatServer) -> Any:
    gateway = {
        "upstreams": {"main": {"urls": [served.url]}, "candidate": {"urls": [served.url]}},
        "routes": {
            "bridges": {
                "targets": [
                    {"upstream": "main", "model": "m", "tag": "live"},
                    {"upstream": "candidate", "model": "c", "tag": "canary", "weight": 0},
                ]
            }
        },
        "prices": {"bridges": {"input_per_million": 1000.0, "output_per_million": 0.0}},
    }
    return open_components(fast_settings(gateway=gateway))


def test_folder_holds_the_served_targets_we_ship() -> None:
    assert available(evaluating.SERVED) == ["collection", "model", "url"]


def test_url_is_asked_as_openai_clients_ask(parts: Components, served: ChatServer) -> None:
    target = {"kind": "url", "url": served.url, "model": "m", "system": "Be short."}
    output = ask(parts, target)
    assert output.text == "It is 48 metres long."
    assert output.answerable
    assert output.usage == Usage(321, 5)
    asked = served.asked[0]
    assert asked["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "How long is the bridge?"},
    ]
    assert (asked["seed"], asked["temperature"], asked["max_tokens"]) == (7, 0.0, 512)


def test_conversation_is_asked_as_it_is_and_features_are_not(
    parts: Components, served: ChatServer
) -> None:
    target = {"kind": "url", "url": served.url, "model": "m"}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi!"}]
    ask(parts, target, Case("1", [*turns, {"role": "user", "content": "Who?"}]))
    assert len(served.asked[0]["messages"]) == 3
    with pytest.raises(InvalidRequest, match="Case '1'"):
        ask(parts, target, Case("1", {"length": 3}))


def test_answer_that_begins_like_a_refusal_is_one(parts: Components, served: ChatServer) -> None:
    target = {"kind": "url", "url": served.url, "model": "m"}
    for reply in (
        "i don’t know, sorry.",
        "I'm sorry, but I can't find that.",
        "The documents do not say.",
    ):
        served.reply = reply
        assert not ask(parts, target).answerable
    for reply in ("I don't know exactly, but it is 1998.", "Weiß ich nicht.", ""):
        served.reply = reply
        assert ask(parts, target).answerable
    served.reply = "Weiß ich nicht."
    assert not ask(parts, {**target, "refusals": ["weiß ich nicht"]}).answerable


def test_server_that_fails_is_told_apart_from_an_answer(
    parts: Components, served: ChatServer
) -> None:
    target = {"kind": "url", "url": served.url, "model": "m"}
    served.status = 500
    with pytest.raises(EngineFailed, match="out of memory"):
        ask(parts, target)
    with pytest.raises(EngineFailed, match="cannot be asked"):
        ask(parts, {**target, "url": "http://127.0.0.1:9"})


def test_key_comes_from_the_environment(parts: Components, monkeypatch: Any) -> None:
    target = {"kind": "url", "url": "http://127.0.0.1:9", "model": "m", "key_variable": "MY_KEY"}
    with pytest.raises(InvalidConfiguration, match="'MY_KEY' is not set"):
        ask(parts, target)


def test_route_is_asked_through_the_gateway_at_its_price(
    parts: Components, served: ChatServer
) -> None:
    output = ask(parts, {"kind": "model", "model": "bridges"})
    assert output.text == "It is 48 metres long."
    assert output.cost == pytest.approx(0.321)
    assert served.asked[0]["model"] == "m"


def test_candidate_of_a_route_can_be_evaluated_before_it_serves_anyone(
    parts: Components, served: ChatServer
) -> None:
    ask(parts, {"kind": "model", "model": "bridges", "tag": "canary"})
    assert served.asked[0]["model"] == "c"


def test_unknown_route_and_collection_are_named(parts: Components) -> None:
    for target in (
        {"kind": "model", "model": "bridge"},
        {"kind": "collection", "collection": "nosuch"},
    ):
        with pytest.raises(NotFound):
            ask(parts, target)
