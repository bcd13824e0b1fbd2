"""Token F1: how many words the answer shares with the best reference, as SQuAD counts them."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled, squad
from evals.scores import Score
from evals.trial import Case, Output
from infra.words import spaced


class TokenF1(Parameters):
    """Rajpurkar et al. 2016: the harmonic mean of precision and recall over the bag of words.

    A character of an unspaced script is a word, as the data sets in Chinese have it.
    """

    version: ClassVar[int] = 2

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = settled(case, output)
        if known is not None:
            return known
        answer = squad(said(output))
        return Score.of(max(f1(answer, squad(each)) for each in case.references))


def f1(answer: str, reference: str) -> float:
    """Return F1 over white-spaced words, and over characters where no spaces are written.

    >>> f1("built in 1890", "1890"), f1("1890年に", "1890年")
    (0.5, 0.8)
    """
    given, wanted = spaced(answer).split(), spaced(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


build = TokenF1.model_validate
