"""Adapters retrained on corrections: what takes over, and what is stopped for what it forgot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import InvalidRequest
from infra.settings import load_settings
from service.models import adapter_retraining, tuning
from service.wiring import Components
from trained import ANSWER, WORSE, only_third_parties_warn, write_task
from training import continual
from training.finetune import finetune
from training.retrained import Result
from training.spec import InvalidSpecification, read
from training.specification.data import Source
from tuning import chat, write_rows

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
SUITE = {"rows": "suite.jsonl"}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=tmp_path / "data"))
    yield components
    components.close()


def retrain(parts: Components, folder: Path, said: list[dict[str, Any]], **asked: Any) -> Result:
    write_rows(folder / "said.jsonl", said)
    file = folder / "retraining.yaml"
    values = {"name": "zs", "spec": "spec.yaml", "log": {"rows": {"rows": "said.jsonl"}}, **asked}
    file.write_text(yaml.safe_dump(values))
    return adapter_retraining.run(parts, file, cause={"reason": "a test"}, smokes=False)


def version(parts: Components, alias: str) -> str:
    return str(parts.artifacts.find(f"adapter/zs@{alias}"))


def test_one_that_forgets_is_stopped_and_a_better_one_takes_over(
    parts: Components, tmp_path: Path
) -> None:
    spec = write_task(tmp_path, {"register": {"name": "zs", "alias": "production"}})
    write_rows(tmp_path / "suite.jsonl", [chat(f"Question {n}?", ANSWER) for n in range(64, 104)])
    around = replace(tuning.around(parts, tmp_path, note=lambda _: None), smokes=False)
    assert finetune(read(spec), tmp_path / "run", around).adapter == "adapter/zs@v1"
    said = [chat(f"Order {n}?", WORSE) for n in range(100)]

    guarded: dict[str, Any] = {"suites": [SUITE], "promotion": {"max_loss": 0.3}}
    forgetful = retrain(parts, tmp_path, said, **guarded)
    assert forgetful.decision == "refused"
    latest, suite = forgetful.answers
    assert (latest.name, latest.passed) == ("latest rows", True)
    assert (suite.name, suite.passed) == ("suite.jsonl", False)
    assert suite.numbers["champion"] < 0.5 < 0.9 < suite.numbers["challenger"]
    assert (version(parts, "production"), version(parts, "candidate")) == (
        "adapter/zs@v1",
        "adapter/zs@v2",
    )

    replay = [{"rows": "train.jsonl", "ratio": 0.8}]
    better = retrain(parts, tmp_path, said, replay=replay, **guarded)
    assert better.decision == "promoted", better.reasons
    assert [each.passed for each in better.answers] == [True, True], "as replay kept it"
    assert (better.rows["train"], better.rows["replayed"], better.rows["compared"]) == (80, 64, 20)
    assert version(parts, "production") == "adapter/zs@v3"
    [moved, *_] = parts.artifacts.history("adapter/zs", "production")
    assert moved.actor == better.run
    with parts.artifacts.open(better.evidence, "evidence.json") as file:
        told = json.load(file)
    assert told["cause"] == {"reason": "a test"}
    assert told["data"]["train"].startswith("dataset/zs-retraining@")

    back = [chat(f"Order {n}!", ANSWER) for n in range(100)]
    again = retrain(parts, tmp_path, back)
    assert again.decision == "refused"
    assert [(each.name, each.passed) for each in again.answers] == [
        ("latest rows", True),
        (f"compared by {better.evidence}", False),
    ]
    assert version(parts, "production") == "adapter/zs@v3"


def test_rows_that_are_asked_again_are_never_trained_on(parts: Components, tmp_path: Path) -> None:
    write_task(tmp_path)
    old = [chat(f"Question {n}?", ANSWER) for n in range(64)]
    write_rows(tmp_path / "suite.jsonl", old[:10])
    said = [chat(f"Question {n}?", WORSE) for n in range(5, 35)]
    with pytest.raises(InvalidRequest, match="1 rows were said .* 0 are left to train on"):
        retrain(parts, tmp_path, said[:1], suites=[SUITE])
    asked = continual.parse(
        {
            "name": "zs",
            "spec": "spec.yaml",
            "log": {"model": "zs"},
            "replay": [{"rows": "train.jsonl", "ratio": 10}],
            "suites": [SUITE],
        }
    )
    around = tuning.around(parts, tmp_path, note=lambda _: None)
    standing = continual._standing(parts.artifacts, asked, around)
    formed = continual._form(asked, said, standing, around, seed=1)
    rows = list(around.places.datasets.rows(formed.train))  # type: ignore[union-attr]
    trained = [row["messages"][0]["content"] for row in rows]
    compared = [row["messages"][0]["content"] for row in formed.compared]
    suite = [row["messages"][0]["content"] for row in old[:10]]
    assert len(trained) == len(set(trained)) == 64 - len(compared) - len(suite)
    assert not {*compared, *suite} & {*trained}
    assert compared == [f"Question {n}?" for n in range(29, 35)], "the latest"


def test_a_retraining_is_of_a_model_or_of_rows_and_goes_elsewhere() -> None:
    for changes, said in (
        ({"log": {}}, "name a model or rows"),
        ({"promotion": {"to": "production"}}, "'production' is taken"),
    ):
        values = {"name": "zs", "spec": "spec.yaml", "log": {"model": "zs"}, **changes}
        with pytest.raises(InvalidSpecification, match=said):
            continual.parse(values)


def test_a_specification_of_several_processes_is_refused_before_anything_is_stored(
    parts: Components, tmp_path: Path
) -> None:
    write_task(tmp_path, {"register": {"name": "zs"}, "parallelism.devices_per_node": 2})
    with pytest.raises(InvalidRequest, match="is of 2 processes, and a retraining is one"):
        retrain(parts, tmp_path, [chat("Order?", WORSE)])
    assert not list(parts.artifacts.names("dataset"))


def test_rows_that_are_no_messages_are_left_out_and_tools_are_kept(
    parts: Components, tmp_path: Path
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    kept = [{**chat(f"Order {n}?", WORSE), "tools": tools} for n in range(20)]
    write_rows(tmp_path / "said.jsonl", [{"messages": ["a"]}, {"messages": None}, *kept])
    around = tuning.around(parts, tmp_path, note=lambda _: None)
    found = continual._read(Source(rows="said.jsonl"), around)
    assert [row["messages"] for row in found] == [row["messages"] for row in kept]
    assert all(row["tools"][0]["function"]["name"] == "f" for row in found)
