"""chrF: how many sequences of characters the answer shares with the best reference."""

from __future__ import annotations

from typing import ClassVar, Literal

from anyio import to_thread

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output
from infra.plugins import require


class Chrf(Parameters):
    """Popović 2015, by sacrebleu for each case by itself, from 0 to 1 instead of 100.

    It suits languages with many word forms, and those without spaces.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("sacrebleu",)

    word_order: Literal[0, 2] = 0
    """2 counts sequences of up to two words too: chrF++."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = settled(case, output)
        if known is not None:
            return known
        return Score.of(await to_thread.run_sync(self._best, said(output), case.references))

    def _best(self, answer: str, references: tuple[str, ...]) -> float:
        library = require("sacrebleu.metrics", extra="evals")
        found = library.CHRF(word_order=self.word_order).sentence_score(answer, list(references))
        return min(1.0, float(found.score) / 100)


build = Chrf.model_validate
