"""What people said of outputs: rows of a case with its output and label, as a target to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.judges.rubric import Rubric
from evals.metrics._pairwise import OUTCOMES
from evals.scores import Score
from evals.trial import Case, Output
from infra.contracts import Passage
from infra.errors import InvalidRequest

OUTPUT, OTHER, PASSAGES, LABEL = "output", "other", "passages", "label"
"""Columns beside those of a case."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A target that gives the output that people have labelled."""

    identity: Mapping[str, Any] = field(default_factory=lambda: {"kind": "labels"})
    parents: Sequence[tuple[str, str]] = ()

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del seed
        return Output(_text(case, OUTPUT), passages=_passages(case))

    async def close(self) -> None:
        pass


def other(case: Case) -> Output:
    """Return what the labelled output is compared with.

    Raises:
        InvalidRequest: the row has none.
    """
    return Output(_text(case, OTHER))


def label(case: Case, rubric: Rubric) -> str:
    """Return what people said of a case: a level of the scale, or which answer is better.

    Raises:
        InvalidRequest: the row has no label, or one that the rubric has not.
    """
    given = case.metadata.get(LABEL)
    known = scale(rubric)
    said = str(int(given)) if isinstance(given, float) and given.is_integer() else str(given)
    if given is None or isinstance(given, bool) or said.strip() not in known:
        raise InvalidRequest(
            f"Case {case.id!r} has the label {given!r:.40}; the rubric {rubric.name!r} has "
            f"{', '.join(known)}"
        )
    return said.strip()


def said(score: Score, rubric: Rubric) -> str:
    """Return what a judge's score is called by people."""
    value = score.value or 0.0
    if rubric.kind == "preference":
        return OUTCOMES[round(value * (len(OUTCOMES) - 1))]
    low, high = rubric.levels[0], rubric.levels[-1]
    return str(round(low + value * (high - low)))


def require(case: Case, rubric: Rubric) -> None:
    """See that a row has all that a judge and its card need.

    Raises:
        InvalidRequest: it has not; names the column.
    """
    label(case, rubric)
    _text(case, OUTPUT)
    _passages(case)
    if rubric.kind == "preference":
        other(case)


def scale(rubric: Rubric) -> tuple[str, ...]:
    """Return all labels that there can be, worst first."""
    return OUTCOMES if rubric.kind == "preference" else tuple(map(str, rubric.levels))


def _text(case: Case, column: str) -> str:
    found = case.metadata.get(column)
    if not isinstance(found, str) or not found.strip():
        raise InvalidRequest(
            f"Case {case.id!r} has {found!r:.40} in the column {column!r}; give the text that was "
            "labelled"
        )
    return found


def _passages(case: Case) -> tuple[Passage, ...]:
    given = case.metadata.get(PASSAGES) or []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise InvalidRequest(f"Case {case.id!r}: {PASSAGES} is {given!r:.40}; give a list of texts")
    return tuple(
        Passage(n, f"passage-{n}", 1, PASSAGES, f"passage-{n}", "", 0, len(text), text, 0.0)
        for n, text in enumerate(texts, 1)
    )
