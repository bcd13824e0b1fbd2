"""Scores: four states, no NaN, counted."""

from __future__ import annotations

import math

import pytest

from evals.scores import Counts, Score


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_score_is_never_nan_nor_infinite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Score.of(value)
    with pytest.raises(ValueError, match="finite"):
        Score("scored", value)


def test_score_without_a_number_has_a_reason_and_none_has_both() -> None:
    with pytest.raises(ValueError, match="reason"):
        Score("unscored")
    with pytest.raises(ValueError, match="no value"):
        Score("error", 0.0, "down")
    assert Score.error("").reason
    assert len(Score.refused("no " * 9_999).reason) < 600


def test_score_survives_being_written() -> None:
    for score in (Score.of(0.5, "half", parts=[1, 2]), Score.unscored("none"), Score.of(0)):
        assert Score.from_dict(score.as_dict()) == score


def test_coverage_is_the_share_that_has_a_number() -> None:
    scores = [Score.of(1), Score.of(0), Score.error("x"), Score.refused("y"), Score.unscored("z")]
    counts = Counts.of(scores)
    assert (counts.scored, counts.unscored, counts.refused, counts.error) == (2, 1, 1, 1)
    assert counts.coverage == 0.4
    assert Counts.of([]).coverage == 0
