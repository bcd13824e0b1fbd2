"""Rubrics: read strictly, the same digest for the same rubric, and the shipped ones hold."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from evals.judges import rubric
from evals.judges.rubric import Rubric, parse
from infra.errors import InvalidRequest, NotFound, TooLarge

TEXT = """
name: manners
version: 2
instructions: Judge manners.
scale: {1: Rude., 2: Plain., 5: Charming.}
"""


def changed(**values: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(TEXT), **values})


def test_shipped_rubrics_can_be_read_and_are_named_as_their_files() -> None:
    names = rubric.shipped()
    assert names == ["correctness", "groundedness", "helpfulness", "preference"]
    for name in names:
        found = rubric.read_shipped(name)
        assert found.name == name
        assert found.kind == ("preference" if name == "preference" else "score")


def test_same_rubric_has_the_same_digest_however_it_is_written() -> None:
    flat = '{"scale": {"5": "Charming.", "1": "Rude.", "2": "Plain."}, "version": 2, '
    flat += '"instructions": "Judge manners.", "name": "manners", "shows": ["question"]}'
    assert parse(TEXT).digest == parse(flat).digest
    assert parse(TEXT).title == f"manners version 2 {parse(TEXT).digest}"


@pytest.mark.parametrize(
    "change",
    [
        {"instructions": "Judge manners!"},
        {"version": 3},
        {"scale": {1: "Rude.", 2: "Plain.", 5: "Nice."}},
        {"shows": ["question", "reference"]},
    ],
)
def test_whatever_a_judge_is_told_is_part_of_the_digest(change: dict[str, Any]) -> None:
    assert parse(changed(**change)).digest != parse(TEXT).digest


def test_answer_has_reasons_first_and_only_levels_of_the_scale() -> None:
    schema = parse(TEXT).output_schema
    assert list(schema["properties"]) == ["reasoning", "score"]
    assert schema["properties"]["score"] == {"type": "integer", "enum": [1, 2, 5]}
    assert schema["required"] == ["reasoning", "score"]
    assert schema["additionalProperties"] is False
    preference = rubric.read_shipped("preference").output_schema
    assert preference["properties"]["better"]["enum"] == ["first", "second", "neither"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed(scale={1: "Bad."}), "two levels or more"),
        (changed(kind="preference"), "a preference has none"),
        (changed(scale={"one": "Bad.", "two": "Good."}), "scale"),
        (changed(anchors=1), "unknown key 'anchors'"),
        (changed(shows=["question", "question"]), "twice"),
        (changed(shows=["answer"]), "shows"),
        (changed(version=0), "version"),
        (changed(instructions=""), "instructions"),
        (changed(name="a/b"), "name"),
        ("[1, 2]", "no rubric"),
        ("name: [", "mine.yaml"),
    ],
)
def test_what_is_no_rubric_is_told_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse(text, source="mine.yaml")


def test_rubric_of_megabytes_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge, match="a page of text"):
        parse("x" * (rubric.MAX_BYTES + 1))


def test_unknown_rubric_is_told_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="did you mean 'correctness'"):
        rubric.read_shipped("corectness")


def test_rubric_survives_json() -> None:
    found = parse(TEXT)
    assert Rubric.model_validate_json(found.model_dump_json()).digest == found.digest
