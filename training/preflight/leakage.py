"""Rows of `eval` that are trained on: the same, nearly so by MinHash, or the same question."""

from __future__ import annotations

from collections.abc import Iterable

from infra.near_texts import NearTexts
from training.preflight import Batch, Check, Derived, Facts, Read
from training.problems import Problem
from training.row_text import asked, digest

MIN_WORDS = 5
"""Of a question that tells a row; `And then?` may stand in both."""
SHOWN = 20


class _Leakage:
    """Knows the rows of `eval`, which are read first, and looks for each row of training there."""

    def __init__(self, facts: Facts) -> None:
        self._whole: dict[bytes, int] = {}
        self._questions: dict[bytes, int] = {}
        self._texts: list[str] = []
        self._numbers: list[int] = []
        self._near = NearTexts(self._texts, facts.spec.data.limits.near_duplicate)
        self._found: list[tuple[str, int, int, str]] = []
        self._count = 0

    def take(self, batch: Batch) -> None:
        if not batch.is_trained:
            for row in batch.rows:
                self._learn(row)
        elif self._whole:
            for row in batch.rows:
                self._look(batch.key, row)

    def problems(self, _: Derived) -> Iterable[Problem]:
        for key, number, twin, how in self._found:
            yield Problem("leakage", f"{key} row {number}", f"{how} as data.eval row {twin}")
        if self._count > SHOWN:
            more = self._count - SHOWN
            yield Problem("leakage", "data.eval", f"{more:,} more rows of training are in it")

    def _learn(self, row: Read) -> None:
        self._whole.setdefault(row.said_digest, row.number)
        question = asked(row.sequences[0])
        if len(question.split()) >= MIN_WORDS:
            self._questions.setdefault(digest(question), row.number)
        self._texts.append(row.said)
        self._numbers.append(row.number)
        self._near.add(len(self._texts) - 1)

    def _look(self, key: str, row: Read) -> None:
        twin = self._whole.get(row.said_digest)
        how = "says the same"
        if twin is None:
            twin, how = self._questions.get(digest(asked(row.sequences[0]))), "asks the same"
        if twin is None:
            near = next(self._near.near(row.said), None)
            twin, how = near and self._numbers[near[0]], "says nearly the same"
        if twin is not None:
            self._count += 1
            if len(self._found) < SHOWN:
                self._found.append((key, row.number, twin, how))


def build(facts: Facts) -> Check:
    return _Leakage(facts)
