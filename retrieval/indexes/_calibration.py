"""How much a structure has to look at: measured against an exact scan over a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.indexes._candidates import RECALL_AT, Candidates, blocks
from retrieval.indexes._ranking import inner_products

QUESTIONS = 300
_FIRST_EFFORT = {"hnsw": 32, "ivf": 8}
_LARGEST_EFFORT = {"hnsw": 1_024, "ivf": 1 << 30}
_REFINE = (4, 16, 64)
_PLATEAU = 0.002
"""Twice the effort that finds no more than this: exact scores of more candidates are missing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Questions, and the best possible sums of their hits."""

    vectors: NDArray[np.float16]
    """Those that are searched."""
    alive: NDArray[np.bool_]
    questions: NDArray[np.float32]
    worst: NDArray[np.float32]
    """By question: the score of the last of the exact nearest."""
    wanted: int
    asked: int = 0
    """How many of the questions somebody asked."""

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float16],
        alive: NDArray[np.bool_],
        asked: NDArray[np.float32] | None = None,
    ) -> Sample:
        """Take questions that were asked, or else mix stored vectors, and scan for their nearest.

        Real questions are about as far from all texts, and as hard to answer, as sums of two or
        three of them; a stored vector, or one close to it, is far easier. Where many texts are
        nearly the same, sums are too easy as well: only real questions tell.
        """
        questions = _mixed(vectors, alive) if asked is None else asked
        wanted = min(RECALL_AT, int(np.count_nonzero(alive)))
        worst = _worst(vectors, alive, questions, wanted)
        return cls(vectors, alive, questions, worst, wanted, 0 if asked is None else len(asked))

    def recall(self, candidates: Candidates) -> float:
        """Return the share of the exact nearest that is found; a tie with the last counts."""
        faiss.omp_set_num_threads(1)
        found = 0
        allowed = None if self.alive.all() else self.alive
        share = float(self.alive.mean())
        for question, worst in zip(self.questions, self.worst, strict=True):
            rows = candidates.rows(question, self.wanted, allowed=allowed, share=share)
            scores = inner_products(self.vectors[rows], question)
            # Summed in another order than the scan's, hence the last digits.
            found += min(int(np.count_nonzero(scores >= worst - 1e-5)), self.wanted)
        return found / (len(self.questions) * self.wanted)


def measured(candidates: Candidates, sample: Sample) -> Candidates:
    """Return the same structure with its recall as of now."""
    gone = len(sample.alive) - int(np.count_nonzero(sample.alive))
    return replace(
        candidates,
        recall=sample.recall(candidates),
        gone_when_measured=gone,
        questions_asked=sample.asked,
    )


def calibrated(candidates: Candidates, sample: Sample, *, target: float) -> Candidates | None:
    """Return the structure with about the least effort that reaches `target`; None if none does."""
    refines = _REFINE if candidates.kind == "ivf" else _REFINE[:1]
    for refine in refines:
        tried = _reached(
            replace(candidates, refine=refine),
            sample,
            target=target,
            is_last=refine == refines[-1],
        )
        if tried is not None:
            return tried
    return None


def _reached(
    candidates: Candidates, sample: Sample, *, target: float, is_last: bool
) -> Candidates | None:
    """Raise the effort until it reaches `target`, or, unless it is the last way, brings no more."""
    largest = _LARGEST_EFFORT[candidates.kind]
    if candidates.kind == "ivf":
        largest = candidates.index.nlist
    effort, lower, before = min(_FIRST_EFFORT[candidates.kind], largest), 0, -1.0
    while True:
        tried = measured(replace(candidates, effort=effort), sample)
        if tried.recall >= target:
            return _cheaper(tried, sample, lower=lower, target=target)
        if effort == largest or (not is_last and tried.recall - before < _PLATEAU):
            return None
        lower, before, effort = effort, tried.recall, min(2 * effort, largest)


def _cheaper(
    reached: Candidates, sample: Sample, *, lower: int, target: float, halvings: int = 2
) -> Candidates:
    for _ in range(halvings):
        middle = (lower + reached.effort) // 2
        if middle in {lower, reached.effort}:
            break
        tried = measured(replace(reached, effort=middle), sample)
        if tried.recall >= target:
            reached = tried
        else:
            lower = middle
    return reached


def _mixed(vectors: NDArray[np.float16], alive: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return sums of two and of three stored vectors, of unit length."""
    chance = np.random.default_rng(len(vectors))
    present = np.flatnonzero(alive)
    count = min(QUESTIONS, len(present))
    first, second, third = (
        vectors[chance.choice(present, count, replace=False)].astype(np.float32) for _ in range(3)
    )
    questions: NDArray[np.float32] = first + second
    questions[::2] += third[::2]
    lengths = np.linalg.norm(questions, axis=1, keepdims=True)
    questions /= np.where(lengths == 0, 1, lengths)
    return questions


def _worst(
    vectors: NDArray[np.float16],
    alive: NDArray[np.bool_],
    questions: NDArray[np.float32],
    wanted: int,
) -> NDArray[np.float32]:
    best = np.full((len(questions), wanted), -np.inf, dtype=np.float32)
    start = 0
    for block in blocks(vectors):
        scores = questions @ block.T
        scores[:, ~alive[start : start + len(block)]] = -np.inf
        start += len(block)
        every = np.concatenate([best, scores], axis=1)
        best = np.partition(every, -wanted, axis=1)[:, -wanted:]
    worst: NDArray[np.float32] = best.min(axis=1)
    return worst
