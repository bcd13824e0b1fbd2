"""How much a structure has to look at: measured against an exact scan over a sample."""

from __future__ import annotations

from collections.abc import Iterator
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

    @classmethod
    def of(cls, vectors: NDArray[np.float16], alive: NDArray[np.bool_]) -> Sample:
        """Mix stored vectors into questions and scan for their nearest.

        Real questions are about as far from all texts, and as hard to answer, as sums of two or
        three of them; a stored vector, or one close to it, is far easier.
        """
        chance = np.random.default_rng(len(vectors))
        present = np.flatnonzero(alive)
        count = min(QUESTIONS, len(present))
        first, second, third = (
            vectors[chance.choice(present, count, replace=False)].astype(np.float32)
            for _ in range(3)
        )
        questions = first + second
        questions[::2] += third[::2]
        lengths = np.linalg.norm(questions, axis=1, keepdims=True)
        questions /= np.where(lengths == 0, 1, lengths)
        wanted = min(RECALL_AT, len(present))
        return cls(vectors, alive, questions, _worst(vectors, alive, questions, wanted), wanted)

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
    return replace(candidates, recall=sample.recall(candidates), gone_when_measured=gone)


def calibrated(candidates: Candidates, sample: Sample, *, target: float) -> Candidates | None:
    """Return the structure with about the least effort that reaches `target`; None if none does."""
    lower = 0
    for tried in _attempts(candidates):
        tried = measured(tried, sample)
        if tried.recall >= target:
            return _cheaper(tried, sample, lower=lower, target=target)
        lower = tried.effort
    return None


def _attempts(candidates: Candidates) -> Iterator[Candidates]:
    largest = _LARGEST_EFFORT[candidates.kind]
    if candidates.kind == "ivf":
        largest = candidates.index.nlist
    effort = min(_FIRST_EFFORT[candidates.kind], largest)
    while effort < largest:
        yield replace(candidates, effort=effort, refine=_REFINE[0])
        effort *= 2
    for refine in _REFINE if candidates.kind == "ivf" else _REFINE[:1]:
        yield replace(candidates, effort=largest, refine=refine)


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
