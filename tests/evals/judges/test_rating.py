"""Ratings are read strictly: whatever is not what was asked for is told as what it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.judges.asking import JudgeRefused, Unusable
from evals.judges.rating import MAX_CHARACTERS, Rating, read
from evals.judges.rubric import read_shipped

SCORE, PREFERENCE = read_shipped("correctness"), read_shipped("preference")
GOOD = {"reasoning": "It says so.", "score": 4}


def test_rating_is_read() -> None:
    assert read(f" {json.dumps(GOOD)}\n", SCORE) == Rating(4, "It says so.")
    said = '{"reasoning": "", "better": "second"}'
    assert read(said, PREFERENCE) == Rating("second", "")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "not the JSON"),
        ("Sure! It is 4 of 5.", "not the JSON"),
        (f"Here you are: {json.dumps(GOOD)}", "not the JSON"),
        (f"```json\n{json.dumps(GOOD)}\n```", "not the JSON"),
        (json.dumps(GOOD)[:-4], "not the JSON"),
        (json.dumps([GOOD]), "not the JSON"),
        (json.dumps({"score": 4}), "reasoning: Field required"),
        (json.dumps({**GOOD, "confidence": 1}), "confidence: Extra inputs"),
        (json.dumps({"reasoning": "", "rating": 4}), "not the JSON"),
        (json.dumps({**GOOD, "score": "4"}), "score: "),
        (json.dumps({**GOOD, "score": 4.5}), "score: "),
        (json.dumps({**GOOD, "score": True}), "score: "),
        (json.dumps({**GOOD, "score": None}), "score: "),
        (json.dumps({**GOOD, "score": float("nan")}), "score: "),
        (json.dumps({**GOOD, "score": float("inf")}), "score: "),
        ('{"reasoning": "", "score": 1e400}', "not the JSON"),
        (json.dumps({**GOOD, "score": 0}), "gave 0, which is not on the scale 1, 2, 3, 4, 5"),
        (json.dumps({**GOOD, "score": 10**30}), "not the JSON|not on the scale"),
        ("[" * 10_000, "not the JSON"),
        ("5" * (MAX_CHARACTERS + 1), f"{MAX_CHARACTERS + 1:,} characters"),
    ],
)
def test_what_was_not_asked_for_is_unusable(said: str, why: str) -> None:
    with pytest.raises(Unusable, match=why) as found:
        read(said, SCORE)
    assert len(found.value.message) < 400


@pytest.mark.parametrize("better", ["answer", "First", "", 1, None])
def test_choice_that_there_is_not_is_unusable(better: object) -> None:
    with pytest.raises(Unusable, match="better"):
        read(json.dumps({"reasoning": "", "better": better}), PREFERENCE)


def test_judge_that_declines_in_words_has_refused() -> None:
    with pytest.raises(JudgeRefused, match="can't assist"):
        read("I'm sorry, but I can't assist with that.", SCORE)


@given(st.text(max_size=200) | st.from_regex(r'\{"reasoning": "", "score": .{0,9}\}'))
def test_whatever_comes_is_a_rating_on_the_scale_or_a_named_error(said: str) -> None:
    try:
        found = read(said, SCORE).value
    except (Unusable, JudgeRefused):
        return
    assert found in SCORE.levels
