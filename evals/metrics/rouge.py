"""ROUGE: how many words or word sequences the answer shares with the best reference."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from anyio import to_thread

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output
from infra.plugins import require
from infra.words import spaced

# The library's own tokenizer knows ASCII only, and would find no word in most of the world's texts.
_WORD = re.compile(r"[^\W_]+")


class Rouge(Parameters):
    """The F-measure of Lin 2004, by Google's rouge-score without stemming."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("rouge-score",)

    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Words, pairs of words, or the longest common subsequence."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = settled(case, output)
        if known is not None:
            return known
        return Score.of(await to_thread.run_sync(self._best, said(output), case.references))

    def _best(self, answer: str, references: tuple[str, ...]) -> float:
        library = require("rouge_score.rouge_scorer", extra="evals")
        scorer = library.RougeScorer([self.variant], tokenizer=Words())
        found: dict[str, Any] = scorer.score_multi(references, answer)
        return float(found[self.variant].fmeasure)


class Words:
    """Words in lower case; a character of an unspaced script is one."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words.

        >>> Words().tokenize("Die Brücke (1890) 長い橋")
        ['die', 'brücke', '1890', '長', 'い', '橋']
        """
        return _WORD.findall(spaced(text.lower()))


build = Rouge.model_validate
