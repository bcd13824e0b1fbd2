"""Specifications of fine-tunings: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from infra.errors import InvalidRequest, NotFound
from infra.expectations import yaml_text
from training import spec
from training.spec import InvalidSpecification

SMALLEST: dict[str, Any] = {
    "name": "support",
    "base": {"model": "models/tiny"},
    "data": {"train": {"rows": "train.jsonl"}},
    "schedule": {"rows_per_step": 8, "epochs": 1},
}


def changed(**keys: Any) -> dict[str, Any]:
    return {**SMALLEST, **keys}


def refused(values: Any) -> list[str]:
    with pytest.raises(InvalidSpecification) as caught:
        spec.parse(values)
    assert "\n" not in caught.value.message
    return caught.value.problems


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    read = spec.parse(changed(register={"name": "support"}, serve={"max_rank": 64}))
    (tmp_path / "spec.yaml").write_text(yaml_text.write(spec.as_json(read)))
    assert spec.read(tmp_path / "spec.yaml") == read
    assert spec.as_json(read)["register"] == {"name": "support", "alias": "candidate"}


def test_digest_depends_on_what_is_said_and_not_on_how() -> None:
    backwards = dict(reversed(SMALLEST.items()))
    assert spec.parse(SMALLEST).digest == spec.parse(backwards).digest
    assert spec.parse(SMALLEST).digest == spec.parse(changed(version=1, seed=17)).digest
    assert spec.parse(SMALLEST).digest != spec.parse(changed(seed=18)).digest


def test_how_it_is_compressed_changes_nothing_that_is_learned() -> None:
    plain, small = (spec.parse(changed(**each)) for each in ({}, {"compress": {}}))
    assert plain.digest != small.digest
    assert plain.learning_digest == small.learning_digest


def test_every_wrong_key_is_named_at_once() -> None:
    wrong = changed(
        schedule={"rows_per_step": 0, "epochs": 1, "lr": 1e-4},
        method={"adapter": {"type": "lora", "r": -1}},
        colour="red",
    )
    del wrong["base"]
    assert refused(wrong) == [
        "base: missing",
        "method.adapter.r: Input should be greater than or equal to 1, not -1",
        "schedule.rows_per_step: Input should be greater than or equal to 1, not 0",
        "schedule.lr: there is no such key",
        "colour: there is no such key",
    ]


def test_a_specification_of_a_later_release_is_refused_by_its_version() -> None:
    later = changed(version=2, newfangled=True)
    assert refused(later) == ["version: 2 is of a later release; this one reads up to 1"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"data": {"train": {"rows": "a"}, "eval": {"rows": "a"}}}, "eval and train are both 'a'"),
        ({"schedule": {"rows_per_step": 1, "tokens_per_step": 1, "epochs": 1}}, "not both"),
        ({"schedule": {"epochs": 1}}, "give tokens_per_step"),
        ({"schedule": {"rows_per_step": 1}}, "give either epochs or steps"),
        ({"serve": {}}, "serve needs register"),
        ({"compress": {"scheme": "w8a8", "group_size": 32}}, "group_size is of w4a16"),
        ({"method": {"adapter": {"type": "peft", "config": {}}}}, "no 'peft_type'"),
        ({"method": {"adapter": {"type": "lara"}}}, "'lora', 'osf', 'peft'"),
        ({"sweep": {"parameters": {"seed": {"low": 2, "high": 1}}}}, "must be below high"),
        ({"sweep": {"parameters": {"seed": {"low": 0, "high": 1, "log": True}}}}, "no logarithm"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(keys: dict[str, Any], words: str) -> None:
    (problem,) = refused(changed(**keys))
    assert problem.startswith((f"{next(iter(keys))}", "the whole"))
    assert words in problem


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "../elsewhere"},
        {"name": "run\n"},
        {"name": "a" * 65},
        {"base": {"model": "base", "digest": "sha256:" + "0" * 65}},
        {"register": {"name": "a/b"}},
    ],
)
def test_names_and_digests_are_matched_whole(keys: dict[str, Any]) -> None:
    assert refused(changed(**keys))


@pytest.mark.parametrize("values", [None, [], "text", {}])
def test_what_is_no_specification_is_refused(values: Any) -> None:
    assert refused(values)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No specification"):
        spec.read(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="not text in UTF-8"):
        spec.read(tmp_path / "spec.yaml")


def test_the_schema_takes_what_is_read_and_describes_its_keys() -> None:
    schema = spec.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid(spec.as_json(spec.parse(changed(register={"name": "support"}))))
    assert not check.is_valid(changed(colour="red"))
    assert not check.is_valid(changed(version=2))
    assert "hub" in schema["$defs"]["Base"]["properties"]["model"]["description"]
    json.dumps(schema, allow_nan=False)
