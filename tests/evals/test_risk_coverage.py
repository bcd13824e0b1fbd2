"""Risk and coverage: beside their definition, with ties, refusals and confidences that lack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metric import SetMetric, open_metric
from evals.scores import Score
from evals.statistics.risk_coverage import selective_risks
from evals.trial import Case, Output, Trial

pairs = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.5, 1.0])))


def aurc(trials: Sequence[Trial], **parameters: Any) -> Score:
    return cast("SetMetric", open_metric("aurc", parameters)).score_set(trials)


def answered(number: int, confidence: float | None, right: float | None, **output: Any) -> Trial:
    score = Score.unscored("no reference") if right is None else Score.of(right)
    said = Output("It is so.", confidence=confidence, **output)
    return Trial(Case(str(number), "?"), 0, said, {"contains": score})


def test_curve_is_the_mean_loss_of_the_surest() -> None:
    risks = selective_risks([0.2, 0.9, 0.5, 0.7], [1.0, 0.0, 0.5, 1.0])
    assert risks.tolist() == pytest.approx([0, 1 / 2, 1.5 / 3, 2.5 / 4])


@given(pairs.filter(lambda rows: 1 <= len(rows) <= 5))
def test_ties_count_as_the_mean_over_all_their_orders(rows: list[tuple[float, float]]) -> None:
    curves = []
    for order in permutations(rows):
        if [sure for sure, _ in order] == sorted((sure for sure, _ in rows), reverse=True):
            lost = np.array([loss for _, loss in order])
            curves.append(np.cumsum(lost) / np.arange(1, len(rows) + 1))
    risks = selective_risks(*zip(*rows, strict=True))
    assert risks == pytest.approx(np.mean(curves, axis=0))


def test_aurc_is_small_where_what_is_wrong_is_what_is_least_sure() -> None:
    sure = [0.9, 0.8, 0.4, 0.3]
    known = aurc([answered(n, c, float(c > 0.5)) for n, c in enumerate(sure)], of="contains")
    unknown = aurc([answered(n, c, float(c < 0.5)) for n, c in enumerate(sure)], of="contains")
    none = aurc([answered(n, 0.5, float(n < 2)) for n in range(4)], of="contains")
    assert known.value == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert unknown.value == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)
    assert none.value == pytest.approx(0.5)


def test_classifier_is_sure_by_its_probabilities_and_wrong_by_its_label() -> None:
    rows = [("spam", 0.9), ("ham", 0.6), ("spam", 0.4)]
    trials = [
        Trial(Case(str(n), {}, wanted), 0, Output(prediction={"spam": share, "ham": 1 - share}))
        for n, (wanted, share) in enumerate(rows)
    ]
    # Right at 0.9; wrong twice at 0.6.
    assert aurc(trials).value == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)


def test_refusal_is_covered_last_so_that_refusing_everything_gains_nothing() -> None:
    honest = [answered(1, 0.9, 1.0), answered(2, 0.2, 0.0)]
    refusing = [honest[0], answered(2, 0.99, 0.0, answerable=False)]
    assert aurc(refusing, of="contains").value == aurc(honest, of="contains").value
    mute = [answered(n, None, 0.0, answerable=False) for n in range(3)]
    assert aurc(mute, of="contains").value == 1


def test_confidence_that_lacks_is_told_and_not_made_up() -> None:
    none = [answered(n, None, 1.0) for n in range(3)]
    assert aurc(none, of="contains").state == "unscored"
    found = aurc([*none, answered(3, 0.5, 1.0)], of="contains")
    assert (found.state, found.value) == ("error", None)
    assert "3 of 4 answers have no `confidence`" in found.reason
    for wrong in (float("nan"), float("inf"), "much"):
        assert aurc([answered(1, cast("Any", wrong), 1.0)], of="contains").state == "error"


def test_score_that_lacks_is_left_out_where_there_is_no_reference_and_an_error_else() -> None:
    scored = [answered(1, 0.9, 1.0), answered(2, 0.5, 0.0)]
    whole = aurc(scored, of="contains")
    assert aurc([*scored, answered(3, 0.7, None)], of="contains") == whole
    failed = Trial(Case("3", "?"), 0, Output("x", confidence=1), {"contains": Score.error("down")})
    found = aurc([*scored, failed], of="contains")
    assert found.state == "error"
    assert "case '3' has no score of 'contains': down" in found.reason
    assert "no such metric" in aurc(scored, of="nosuch").reason
