"""Hard negatives: what a question finds now, near the passage that answers it, and does not."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from training.retrieval_models.corpus import Corpus, Piece
from training.retrieval_models.pairs import Pair
from training.retrieval_models.specification import Negatives
from training.row_text import digest


@dataclass(frozen=True, slots=True)
class Example:
    """What one row of training becomes."""

    question: str
    positive: str
    negatives: tuple[str, ...]
    """Hardest first; of every example as many."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Examples, and where their negatives came from."""

    examples: tuple[Example, ...]
    given: int
    """By the rows."""
    mined: int
    drawn: int
    """Passages of other questions, where too few were found within the window."""


@dataclass(slots=True)
class _Known:
    """What is known to answer a question, by all rows that ask it."""

    documents: set[str] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)

    def answers(self, piece: Piece) -> bool:
        return piece.document in self.documents or digest(piece.text) in self.texts


def mine(
    pairs: Sequence[Pair],
    corpus: Corpus,
    rules: Negatives,
    *,
    seed: int,
    told: Callable[[int, int], None] = lambda *_: None,
) -> Mined:
    """Return an example for each passage that answers a question.

    A passage is no negative if its document answers the question by any row, if it says the same
    as a passage that does, or if it is nearly as like the question as the positive.

    Args:
        pairs: of training.
        corpus: that is searched.
        rules: of the specification.
        seed: of what is drawn where too few are found.
        told: is told how many questions are done, and of how many.
    """
    known: defaultdict[bytes, _Known] = defaultdict(_Known)
    for pair in pairs:
        known[pair.asked].documents |= pair.documents
        known[pair.asked].texts |= {digest(piece.text) for piece in pair.positives}
    others = [piece for pair in pairs for piece in pair.positives]
    random.Random(seed).shuffle(others)
    examples: list[Example] = []
    counts = [0, 0, 0]
    for number, pair in enumerate(pairs, 1):
        answers = known[pair.asked].answers
        given = list(dict.fromkeys(pair.negatives))[: rules.per_question]
        near: list[Piece] = []
        if len(given) < rules.per_question:
            found = corpus.near(pair.question, rules.last_rank)[rules.first_rank - 1 :]
            near = [piece for piece in found if not answers(piece)]
        drawn = [piece.text for piece in _from(others, number, rules) if not answers(piece)]
        likeness = corpus.likeness(pair.question, [piece.key for piece in pair.positives])
        for piece, like in zip(pair.positives, likeness, strict=True):
            margin = math.inf if rules.margin is None else -rules.margin * abs(like)
            mined = [each.text for each in near if each.score <= like + margin]
            chosen = _chosen(given, mined, drawn, rules.per_question)
            for place, part in enumerate(chosen):
                counts[place] += len(part)
            negatives = tuple(text for part in chosen for text in part)
            examples.append(Example(pair.question, piece.text, negatives))
        told(number, len(pairs))
    return Mined(tuple(_even(examples)), *counts)


def _chosen(
    given: list[str], mined: list[str], drawn: list[str], wanted: int
) -> tuple[list[str], list[str], list[str]]:
    """Return so many different texts, those of the rows first, drawn ones last."""
    first = given[:wanted]
    second = [text for text in dict.fromkeys(mined) if text not in first][: wanted - len(first)]
    taken = {*first, *second}
    third = [text for text in dict.fromkeys(drawn) if text not in taken]
    return first, second, third[: wanted - len(taken)]


def _from(others: list[Piece], start: int, rules: Negatives) -> list[Piece]:
    """Return some passages of other questions, from another place for every question."""
    count = min(len(others), 4 * rules.per_question)
    return [others[(start + step) % len(others)] for step in range(count)]


def _even(examples: list[Example]) -> list[Example]:
    """Give every example as many negatives: losses compare columns."""
    width = max((len(each.negatives) for each in examples), default=0)
    return [
        Example(
            each.question,
            each.positive,
            tuple(each.negatives[place % len(each.negatives)] for place in range(width)),
        )
        for each in examples
        if each.negatives or not width
    ]
