"""Served targets of evaluations: any OpenAI-compatible URL, and routes of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import classical_models
from chat_server import ChatServer, serving
from classical_models import classifier, put, regressor
from evals.context import Context
from evals.metric import open_metric
from evals.trial import Case, Output
from infra.contracts import Usage
from infra.errors import EngineFailed, InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import available
from infra.settings import Settings
from scripted_evals import suite
from service.evaluation import evaluating
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
    assert available(evaluating.SERVED) == ["classical", "collection", "model", "url"]


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


@pytest.fixture
def stored(components: Components, tmp_path: Path) -> Components:
    store = components.artifacts
    lenient = {"thresholds": {"no": 0.9, "yes": 0.1}}
    put(store, classifier(0), tmp_path / "one")
    put(store, classifier(0), tmp_path / "two", alias="candidate", **lenient)
    put(store, regressor(), tmp_path / "price", name="price")
    return components


def rows(count: int) -> tuple[list[Case], Any]:
    given = classical_models.rows(count, seed=8)
    frame = classical_models.frame_of(classical_models.columns_of(given))
    return [Case(str(at), row, "yes") for at, row in enumerate(given)], frame


def test_classical_model_predicts_with_the_thresholds_it_is_served_with(stored: Components) -> None:
    cases, frame = rows(30)
    wanted = classifier(0).pipeline.predict_proba(frame)
    target = {"kind": "classical", "model": "churn"}
    found = [ask(stored, target, case) for case in cases]
    shares = np.array([[each.prediction["no"], each.prediction["yes"]] for each in found])
    assert shares == pytest.approx(wanted, abs=1e-5)
    assert [each.label for each in found] == list(classifier(0).pipeline.predict(frame))
    lenient = [ask(stored, {**target, "version": "candidate"}, case) for case in cases]
    assert [each.prediction for each in lenient] == [each.prediction for each in found]
    assert [each.label for each in lenient] == ["yes" if row[1] >= 0.1 else "no" for row in wanted]
    accuracy: Any = open_metric("accuracy", {})
    scores = [
        asyncio.run(accuracy.score(case, output, Context())).value
        for case, output in zip(cases, lenient, strict=True)
    ]
    assert scores == [float(row[1] >= 0.1) for row in wanted]
    assert sum(scores) > sum(each.label == "yes" for each in found)


def test_values_of_a_regression_are_numbers(stored: Components) -> None:
    cases, frame = rows(3)
    target = {"kind": "classical", "model": "price"}
    found = [ask(stored, target, case).prediction for case in cases]
    assert found == pytest.approx(list(regressor().pipeline.predict(frame)), rel=1e-4)


def test_identity_of_a_classical_model_is_its_content_and_not_its_alias(
    stored: Components,
) -> None:
    def opened(**more: str) -> Any:
        target = suite(target={"kind": "classical", "model": "churn", **more})
        return evaluating.open_target(stored, target, Path())

    before = opened()
    assert opened().identity == before.identity
    assert [role for role, _ in before.parents] == ["model"]
    stored.artifacts.tag("model/churn@v2", "production")
    assert opened().identity != before.identity
    assert opened(version="v1").identity["digest"] == before.identity["digest"]


def test_rows_that_are_not_the_models_and_unknown_models_say_what_is_wrong(
    stored: Components,
) -> None:
    target = {"kind": "classical", "model": "churn"}
    with pytest.raises(InvalidRequest, match="no mapping of features"):
        ask(stored, target)
    with pytest.raises(InvalidRequest, match="Row 0.*'visits'"):
        ask(stored, target, Case("1", {**classical_models.ROW, "visits": "many"}))
    with pytest.raises(NotFound, match="price|churn"):
        ask(stored, {**target, "model": "chrun"}, Case("1", classical_models.ROW))
    with pytest.raises(NotFound):
        ask(stored, {**target, "version": "nosuch"}, Case("1", classical_models.ROW))
