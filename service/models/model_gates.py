"""Holds a retrained model against the one in use by the gates that every change has to pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evals.score_tables import ScoreTable
    from training.retrained import Answer, Question

METRIC = "error"


def judge(questions: Sequence[Question]) -> list[Answer]:
    """Answer all questions of one challenger together, their p-values adjusted by Holm.

    Raises:
        InvalidRequest: losses that are no numbers.
    """
    from evals import gates
    from evals.declared import Gate
    from training.retrained import Answer

    claims = [
        gates.Claim(
            Gate(
                METRIC,
                each.kind,
                each.limit,
                slice=each.name,
                higher_is_better=False,
                bounds=(0.0, 1.0) if each.is_wrong_or_right else each.bounds,
                is_pass_or_fail=each.is_wrong_or_right,
            ),
            _table(each, each.challenger),
            _table(each, each.champion),
        )
        for each in questions
    ]
    decisions = gates.check(claims) if claims else ()
    return [
        Answer(
            question.name,
            decision.verdict is gates.Verdict.PASS,
            f"{decision.verdict}: {decision.reason}",
            {
                "kind": question.kind,
                "limit": question.limit,
                "champion": float(np.mean(question.champion)),
                "challenger": float(np.mean(question.challenger)),
                "difference": None if decision.interval is None else decision.interval.estimate,
                "low": None if decision.interval is None else decision.interval.low,
                "high": None if decision.interval is None else decision.interval.high,
                "p": decision.adjusted_met,
                "cases": decision.cases,
                "needed": decision.needed,
            },
        )
        for question, decision in zip(questions, decisions, strict=True)
    ]


def _table(question: Question, losses: NDArray[np.float64]) -> ScoreTable:
    from evals.score_tables import ScoreTable

    return ScoreTable(
        cases=np.array([str(place) for place in range(len(losses))]),
        values=losses,
        states=np.full(len(losses), "scored"),
        metric=METRIC,
        is_pass_or_fail=question.is_wrong_or_right,
    )
