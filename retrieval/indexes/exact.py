"""The reference index: brute force over all vectors and a plain BM25, in memory."""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.indexes import Change, Hits
from retrieval.indexes._analysis import MAX_TERMS, analyzer, body, query_terms, rarest
from retrieval.indexes._batch import query_vector, reduce
from retrieval.indexes._ranking import (
    LEXICAL_DECIMALS,
    best,
    inner_products,
    nothing,
    rows_or_zeros,
)

_K1 = 1.2
_B = 0.75


def build(folder: Path, *, dimension: int) -> ExactIndex:  # noqa: ARG001
    """Return an empty index; it keeps no files, so the change log is replayed at every start."""
    return ExactIndex(dimension=dimension)


@dataclass(frozen=True, slots=True)
class _Row:
    document_id: int
    vector: NDArray[np.float16]
    counts: Counter[str]
    length: int
    """Terms, repeated ones included."""


class ExactIndex:
    """Right by construction and simple to read; for tests and for collections of a few thousand."""

    def __init__(self, *, dimension: int) -> None:
        self._dimension = dimension
        self._analyzer = analyzer()
        # One lock for reading and writing: no search sees half a batch, and it need not be fast.
        self._lock = threading.Lock()
        self._watermark = 0
        self._rows: dict[int, _Row] = {}
        self._postings: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._total_length = 0

    @property
    def watermark(self) -> int:
        return self._watermark

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, changes: Sequence[Change]) -> None:
        with self._lock:
            batch = reduce(changes, after=self._watermark, dimension=self._dimension)
            if batch is None:
                return
            for chunk_id in batch.touched.tolist():
                self._remove(chunk_id)
            for change, vector in zip(batch.upserts, batch.vectors, strict=True):
                self._add(change, vector)
            self._watermark = batch.watermark

    def dense(
        self, vector: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        query = query_vector(vector, dimension=self._dimension)
        with self._lock:
            found = self._allowed(documents)
            if not found:
                return nothing()
            vectors = np.stack([self._rows[chunk_id].vector for chunk_id in found])
        return best(np.array(found, dtype=np.int64), inner_products(vectors, query), limit)

    def lexical(
        self, query: str, limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        """Rank by BM25: the sum over the question's terms of idf * tf (k1 + 1) / (tf + norm).

        idf = ln(1 + (N - n + 0.5) / (n + 0.5)), norm = k1 (1 - b + b length / mean length).
        """
        terms = query_terms(query, self._analyzer.analyze)
        with self._lock:
            if len(terms) > MAX_TERMS:
                terms = rarest(terms, lambda term: len(self._postings.get(term, ())))
            allowed = set(self._allowed(documents))
            scores: defaultdict[int, float] = defaultdict(float)
            for term in terms:
                for chunk_id, score in self._scores(term).items():
                    if chunk_id in allowed:
                        scores[chunk_id] += score
        ids = np.fromiter(scores.keys(), dtype=np.int64, count=len(scores))
        values = np.fromiter(scores.values(), dtype=np.float32, count=len(scores))
        return best(ids, np.round(values, LEXICAL_DECIMALS), limit)

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        with self._lock:
            wanted = chunk_ids.tolist()
            held = {number: self._rows[number].vector for number in wanted if number in self._rows}
        return rows_or_zeros(held, chunk_ids, dimension=self._dimension)

    def is_due(self) -> bool:
        return False

    def checkpoint(self) -> None:
        """Do nothing: there are no files."""

    def close(self) -> None:
        """Do nothing: there are no files."""

    def _allowed(self, documents: NDArray[np.int64] | None) -> list[int]:
        if documents is None:
            return list(self._rows)
        wanted = set(documents.tolist())
        return [chunk_id for chunk_id, row in self._rows.items() if row.document_id in wanted]

    def _scores(self, term: str) -> dict[int, float]:
        postings = self._postings.get(term, {})
        total = len(self._rows)
        idf = math.log(1 + (total - len(postings) + 0.5) / (len(postings) + 0.5))
        mean = self._total_length / max(total, 1)
        return {
            chunk_id: idf
            * count
            * (_K1 + 1)
            / (count + _K1 * (1 - _B + _B * self._rows[chunk_id].length / mean))
            for chunk_id, count in postings.items()
        }

    def _add(self, change: Change, vector: NDArray[np.float16]) -> None:
        terms = self._analyzer.analyze(body(change.heading, change.text))
        row = _Row(change.document_id, vector, Counter(terms), len(terms))
        self._rows[change.chunk_id] = row
        self._total_length += row.length
        for term, count in row.counts.items():
            self._postings[term][change.chunk_id] = count

    def _remove(self, chunk_id: int) -> None:
        row = self._rows.pop(chunk_id, None)
        if row is None:
            return
        self._total_length -= row.length
        for term in row.counts:
            del self._postings[term][chunk_id]
            if not self._postings[term]:
                del self._postings[term]
