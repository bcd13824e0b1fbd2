"""A challenger beside the version in use: asked aside, or answering a share of the callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from classical_models import COLUMNS, ROW, classifier, put, regressor, rows
from infra.artifacts.store import open_store
from infra.contracts import Interaction
from infra.errors import EngineFailed, InvalidConfiguration
from infra.model_settings import Models as Options
from infra.settings import load_settings
from migrated import open_migrated, put_schema
from monitoring.challenger_metrics import ChallengerMetrics
from monitoring.feedback import Statement
from monitoring.interactions import Query
from monitoring.prediction_pairs import copy_of
from service.app import create_app
from service.callers import Caller
from service.models import comparing
from service.prediction import loading
from service.prediction.loading import Loaded
from service.prediction.recording import LIVE, Origin, Predicted
from service.prediction.shadowing import Copy, Shadows
from service.wiring import Components
from surroundings import no_settings_from_outside

CHANGES: dict[str, dict[str, Any]] = {
    "risky": {"inputs": (COLUMNS[0].model_copy(update={"nullable": False}), *COLUMNS[1:])},
    "weak": {"classes": ("yes", "no")},
}
"""Of challengers: one refuses rows that the version in use answers, one says the contrary."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("challengers")
    put_schema(folder / "data" / "ragstone.db")
    half = {"weight": 0.5}
    challengers = {"churn": {}, "split": half, "risky": {"weight": 1}, "plain": {}, "weak": half}
    challengers["odd"] = {"weight": 1}
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, folder)
        settings = load_settings(
            data_folder=folder / "data",
            retrieval={"embedder": "hashing"},
            generation={"engine": "echo"},
            models={"keep": "inputs", "challengers": challengers},
        )
        app = create_app(Components(settings))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        store = app.state.components.artifacts
        for name in challengers:
            put(store, classifier(0), folder / f"{name}1", name=name)
            if name != "plain":
                two = folder / f"{name}2"
                changes = CHANGES.get(name, {})
                made = regressor() if name == "odd" else classifier(1)
                put(store, made, two, name=name, alias="challenger", **changes)
        assert client.portal is not None
        client.portal.call(app.state.components.models.refresh)
        yield client


def parts_of(client: TestClient) -> Components:
    return client.app.state.components  # type: ignore[attr-defined,no-any-return]


def predict(client: TestClient, model: str, row: Mapping[str, Any], **headers: str) -> Any:
    answer = client.post("/v1/predict", json={"model": model, "rows": [row]}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def kept(client: TestClient, told: Any) -> tuple[Interaction, Interaction]:
    """Return what is kept of a prediction, and of what the other version predicted."""
    parts = parts_of(client)
    assert client.portal is not None
    client.portal.call(parts.canaries.shadows.settle)
    parts.interactions.flush()
    id_ = told.json()["predictions"][0]["id"]
    return parts.interactions.get(id_), parts.interactions.get(copy_of(id_))


def series(client: TestClient, words: str) -> float:
    found = [each for each in client.get("/metrics").text.splitlines() if each.startswith(words)]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_challenger_is_asked_aside_and_never_answers(client: TestClient) -> None:
    told = predict(client, "churn", ROW, **{"x-request-id": "asked-once"})
    assert told.json()["model"] == "model/churn@v1"
    assert told.headers["x-ragstone-target"] == "live"
    first, copy = kept(client, told)
    assert (first.tag, first.upstream) == ("live", "churn@v1")
    assert (copy.tag, copy.upstream, copy.outcome) == ("shadow", "churn@v2", "answered")
    assert first.content is not None
    assert copy.content is not None
    assert copy.content["probabilities"] != first.content["probabilities"]
    assert "features" not in copy.content
    words = 'ragstone_challenger_requests_total{model="churn",outcome="answered",role="shadow"'
    assert series(client, words) == 1.0
    assert series(client, 'ragstone_challenger_rows_total{agrees="yes",model="churn"}') == 1.0


def test_copies_are_no_predictions_to_label_by_request_or_to_watch(client: TestClient) -> None:
    told = predict(client, "churn", ROW, **{"x-request-id": "asked-again"})
    first, copy = kept(client, told)
    said = {"interaction_id": "asked-again", "kind": "label", "value": "yes"}
    answer = client.post("/v1/feedback", json=said)
    assert answer.json()["interaction_id"] == first.id
    found = parts_of(client).interactions.find(Query(model="model/churn", copies=False))
    ids = {each.id for each in found}
    assert first.id in ids
    assert copy.id not in ids


def test_version_asked_for_and_one_without_a_challenger_of_its_kind_answer_alone(
    client: TestClient,
) -> None:
    for model in ("churn@v1", "split@production", "plain", "odd"):
        told = predict(client, model, ROW)
        assert "x-ragstone-target" not in told.headers
        assert told.json()["model"].endswith("@v1")


def test_canary_answers_the_same_users_and_the_version_in_use_is_asked_aside(
    client: TestClient,
) -> None:
    def version(user: str) -> Any:
        return predict(client, "split", ROW, **{"x-ragstone-user": user})

    told = {user: version(user) for user in map(str, range(30))}
    versions = {user: each.json()["model"] for user, each in told.items()}
    assert 8 <= list(versions.values()).count("model/split@v2") <= 22
    assert all(version(user).json()["model"] == versions[user] for user in versions)
    user = next(each for each in versions if versions[each] == "model/split@v2")
    assert told[user].headers["x-ragstone-target"] == "canary"
    first, copy = kept(client, told[user])
    assert (first.tag, first.upstream) == ("canary", "split@v2")
    assert (copy.tag, copy.upstream) == ("shadow", "split@v1")


def test_version_in_use_answers_where_the_canary_cannot(client: TestClient) -> None:
    told = predict(client, "risky", {**ROW, "age": None})
    assert told.json()["model"] == "model/risky@v1"
    first, copy = kept(client, told)
    assert (first.tag, first.outcome) == ("live", "answered")
    assert (copy.tag, copy.upstream, copy.outcome) == ("canary", "risky@v2", "failed")
    assert (copy.status, copy.error) == (400, "invalid_value")
    words = 'ragstone_challenger_requests_total{model="risky",outcome="refused",role="canary"'
    assert series(client, words) == 1.0
    assert predict(client, "risky", ROW).json()["model"] == "model/risky@v2"


def test_request_in_more_haste_than_the_settings_is_answered_by_the_version_in_use(
    client: TestClient,
) -> None:
    for seconds, version in (("9.5", 1), ("10", 2), ("60", 2)):
        told = predict(client, "risky", ROW, **{"x-ragstone-timeout-seconds": seconds})
        assert told.json()["model"] == f"model/risky@v{version}"
        copy = kept(client, told)[1]
        assert (copy.upstream, copy.tag) == (f"risky@v{3 - version}", "shadow")


def test_weak_canary_is_found_by_labels_and_answers_nobody_any_more(client: TestClient) -> None:
    parts, live = parts_of(client), {"no": "yes", "yes": "no"}
    assert client.portal is not None
    for number, row in enumerate(rows(40, seed=4)):
        told = predict(client, "weak", row, **{"x-ragstone-user": str(number)})
        said, id_ = told.json()["predictions"][0]["prediction"], told.json()["id"]
        right = said if told.headers["x-ragstone-target"] == "live" else live[said]
        parts.feedback.add(Statement(f"{id_}-0", "label", right))
    client.portal.call(parts.canaries.shadows.settle)
    found = comparing.decide(parts, "weak")
    assert (found.done, found.requests, found.labelled) == ("rolled_back", 40, 40)
    assert found.live.loss is not None
    assert found.challenger.loss is not None
    assert found.live.loss < 0.2 < 0.8 < found.challenger.loss
    assert 0 < found.challenger.told.requests < 40
    client.portal.call(parts.models.refresh)
    for number in range(5):
        told = predict(client, "weak", ROW, **{"x-ragstone-user": str(number)})
        assert told.json()["model"] == "model/weak@v1"
        assert "x-ragstone-target" not in told.headers


def test_nothing_kept_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="keeps none"):
        Options.model_validate({"challengers": {"churn": {}}, "keep": "nothing"})


def test_challenger_without_interactions_is_refused_at_start() -> None:
    with pytest.raises(InvalidConfiguration, match=r"models: .*telemetry\.interactions = false"):
        load_settings(telemetry={"interactions": False}, models={"challengers": {"churn": {}}})
    load_settings(telemetry={"interactions": False})


class Blocked:
    """A runtime that answers once it is let go, or fails."""

    size_bytes = 1

    def __init__(self, *, fails: bool = False) -> None:
        self.free = threading.Event()
        self._fails = fails
        self.asked = 0

    def run(self, columns: Mapping[str, Any]) -> Any:
        self.asked += 1
        self.free.wait(60)
        if self._fails:
            raise EngineFailed("It is broken")
        return np.tile([0.25, 0.75], (len(columns["age"]), 1))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp("loaded")
    database = open_migrated(folder / "ragstone.db")
    store = open_store(folder / "artifacts", database)
    reference = put(store, classifier(0), folder / "1")
    yield loading.read(store, str(reference), Options())
    database.close()


def copy(loaded: Loaded, runtime: Any, id_: str) -> Copy:
    table = loaded.reader.of_rows(rows(2))
    values = loaded.runtime.run(table.columns)
    first = Predicted(id_, loaded, table, values, values.argmax(axis=1), LIVE)
    origin = Origin(Caller(), datetime(2026, 1, 1, tzinfo=UTC), "request")
    return Copy(first, replace(loaded, runtime=runtime), lambda _: table, origin)


def counted(registry: CollectorRegistry, outcome: str) -> float:
    labels = {"model": "churn", "version": "1", "role": "shadow", "outcome": outcome}
    return registry.get_sample_value("ragstone_challenger_requests_total", labels) or 0.0


@pytest.mark.parametrize(("fails", "ends"), [(False, "answered"), (True, "failed")])
def test_slow_shadow_holds_up_nobody_and_what_exceeds_the_queue_is_counted(
    loaded: Loaded, *, fails: bool, ends: str
) -> None:
    registry, added = CollectorRegistry(), list[Interaction]()
    blocked = Blocked(fails=fails)

    async def scenario() -> None:
        metrics = ChallengerMetrics(registry)
        shadows = Shadows(most=2, most_rows=9, seconds=60, metrics=metrics, add=added.append)
        for number in range(4):
            shadows.offer(copy(loaded, blocked, f"pred-{number}"))
        assert added == []
        blocked.free.set()
        await shadows.settle()
        await shadows.close()

    asyncio.run(scenario())
    assert (counted(registry, "dropped"), counted(registry, ends)) == (2.0, 2.0)
    assert {each.outcome for each in added} == {ends}
    assert added[0].id == "pred-0-0-shadow"
    assert len(added) == (2 if fails else 4)


def test_copies_of_too_many_rows_wait_alone(loaded: Loaded) -> None:
    registry = CollectorRegistry()
    blocked = Blocked()
    blocked.free.set()

    async def scenario() -> None:
        metrics = ChallengerMetrics(registry)
        shadows = Shadows(most=9, most_rows=1, seconds=60, metrics=metrics, add=None)
        for number in range(3):
            shadows.offer(copy(loaded, blocked, f"pred-{number}"))
        await shadows.settle()
        await shadows.close()

    asyncio.run(scenario())
    assert (counted(registry, "dropped"), counted(registry, "answered")) == (2.0, 1.0)


def test_late_shadow_fails_alone_and_the_next_is_asked_once_it_has_ended(loaded: Loaded) -> None:
    registry, added = CollectorRegistry(), list[Interaction]()
    blocked, quick, meanwhile = Blocked(), Blocked(), list[int]()
    quick.free.set()

    async def scenario() -> None:
        def add(item: Interaction) -> None:
            added.append(item)
            if item.outcome == "failed":
                shadows._seconds = 60.0
                asyncio.get_running_loop().call_soon(asked_meanwhile)

        def asked_meanwhile() -> None:
            meanwhile.append(quick.asked)
            blocked.free.set()

        metrics = ChallengerMetrics(registry)
        shadows = Shadows(most=2, most_rows=9, seconds=1e-9, metrics=metrics, add=add)
        shadows.offer(copy(loaded, blocked, "pred-0"))
        shadows.offer(copy(loaded, quick, "pred-1"))
        await shadows.settle()
        await shadows.close()

    asyncio.run(scenario())
    assert meanwhile == [0]
    assert (counted(registry, "late"), counted(registry, "answered")) == (1.0, 1.0)
    assert [(each.outcome, each.status) for each in added] == [("failed", 504)] + [
        ("answered", 200)
    ] * 2


def test_seconds_of_a_shadow_are_those_of_its_call(loaded: Loaded) -> None:
    added, ticks = list[Interaction](), iter([1.0, 1.5, 9.0])
    quick = Blocked()
    quick.free.set()

    async def scenario() -> None:
        shadows = Shadows(
            most=2,
            most_rows=9,
            seconds=60,
            metrics=ChallengerMetrics(CollectorRegistry()),
            add=added.append,
            clock=lambda: next(ticks),
        )
        shadows.offer(copy(loaded, quick, "pred-0"))
        await shadows.settle()
        await shadows.close()

    asyncio.run(scenario())
    assert {each.seconds for each in added} == {0.5}
