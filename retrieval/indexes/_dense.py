"""All vectors of an index: immutable pieces of falling size, with tombstones for what is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.indexes import Hits
from retrieval.indexes._piece import Piece
from retrieval.indexes._ranking import best, nothing

GROWTH = 4
"""A piece is more than this many times the next one, so there are few and each row moves seldom."""


@dataclass(frozen=True, slots=True)
class Dense:
    """The vectors at one point of the change log; changing them makes another."""

    dimension: int
    pieces: tuple[Piece, ...] = ()
    """No chunk is alive in two of them; those with a structure come first."""

    def __len__(self) -> int:
        return sum(piece.count for piece in self.pieces)

    def held(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `chunk_ids` that are in the index."""
        rows = [piece.chunk_ids[piece.rows_of(chunk_ids)] for piece in self.pieces]
        return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)

    def without(self, chunk_ids: NDArray[np.int64]) -> Dense:
        pieces = []
        for piece in self.pieces:
            rows = piece.rows_of(chunk_ids)
            if len(rows):
                piece = piece.without(rows)
            # One with a structure is left to the next checkpoint: writers do not wait for builds.
            if piece.candidates is None and piece.count * 2 < len(piece.alive):
                pieces += merged([piece])
            else:
                pieces.append(piece)
        return replace(self, pieces=tuple(pieces))

    def with_rows(
        self,
        chunk_ids: NDArray[np.int64],
        document_ids: NDArray[np.int64],
        vectors: NDArray[np.float16],
    ) -> Dense:
        """Add chunks that are not held; `chunk_ids` rise, `vectors` is `(rows, dimension)`."""
        if not len(chunk_ids):
            return self
        last = [Piece.of(chunk_ids, document_ids, vectors)]
        earlier = list(self.pieces)
        while (
            earlier
            and earlier[-1].candidates is None
            and earlier[-1].count <= GROWTH * sum(piece.count for piece in last)
        ):
            last.append(earlier.pop())
        return replace(self, pieces=(*earlier, *merged(last)))

    def with_changes_of(self, other: Dense, chunk_ids: NDArray[np.int64]) -> Dense:
        """Return these vectors, but `chunk_ids` as they are in `other`: changed, new or gone."""
        return self.without(self.held(chunk_ids)).with_rows(*other._rows(chunk_ids))

    def search(
        self, query: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        if limit < 1 or not self.pieces:
            return nothing()
        # A team of OpenMP threads costs more than it brings to a single question; the setting
        # belongs to the calling thread.
        faiss.omp_set_num_threads(1)
        found = [piece.search(query, limit, documents=documents) for piece in self.pieces]
        return best(
            np.concatenate([hits.chunk_ids for hits in found]),
            np.concatenate([hits.scores for hits in found]),
            limit,
        )

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return `(len(chunk_ids), dimension)` in the order asked; zeros for chunks not held."""
        found = np.zeros((len(chunk_ids), self.dimension), dtype=np.float16)
        order = np.argsort(chunk_ids)
        wanted = chunk_ids[order]
        for piece in self.pieces:
            rows = piece.rows_of(wanted)
            found[order[np.searchsorted(wanted, piece.chunk_ids[rows])]] = piece.vectors[rows]
        return found

    def _rows(
        self, chunk_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
        """Those of `chunk_ids` that are held, rising, with their documents and vectors."""
        held = np.sort(self.held(chunk_ids))
        documents = np.zeros(len(held), dtype=np.int64)
        for piece in self.pieces:
            rows = piece.rows_of(held)
            documents[np.searchsorted(held, piece.chunk_ids[rows])] = piece.document_ids[rows]
        return held, documents, self.vectors(held)


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the rows of some pieces as at most one, without tombstones or a structure."""
    if not pieces or (len(pieces) == 1 and pieces[0].alive.all() and pieces[0].candidates is None):
        return list(pieces)
    chunk_ids = np.concatenate([piece.chunk_ids[piece.alive] for piece in pieces])
    if not len(chunk_ids):
        return []
    document_ids = np.concatenate([piece.document_ids[piece.alive] for piece in pieces])
    vectors = np.concatenate([piece.vectors[piece.alive] for piece in pieces])
    order = np.argsort(chunk_ids)
    return [Piece.of(chunk_ids[order], document_ids[order], vectors[order])]
