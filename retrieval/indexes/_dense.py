"""Vectors in FAISS: immutable pieces of falling size, with tombstones for what is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from infra.errors import CorruptIndex
from retrieval.indexes import Hits
from retrieval.indexes._ranking import best, inner_products, nothing

FAISS_TYPE = "exact scan, float16, inner product"
_GROWTH = 4
"""A piece is more than this many times the next one, so there are few and each row moves seldom."""
_SPARE = 16
"""Rows fetched beyond the limit: those that tie with the last one are ordered by chunk id."""
_ROUNDING = 1e-5
"""FAISS sums in another order than `inner_products`; unit vectors differ by less than this."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some chunks' vectors, in rising order of chunk id."""

    index: Any
    """A FAISS `IndexScalarQuantizer`; nothing is added to it after it was built."""
    chunk_ids: NDArray[np.int64]
    document_ids: NDArray[np.int64]
    alive: NDArray[np.bool_]
    """False for chunks that were deleted or replaced since."""
    count: int
    """How many are alive."""

    @property
    def vectors(self) -> NDArray[np.float16]:
        """`(rows, dimension)`: FAISS's own memory, valid while the piece is."""
        rows, width = len(self.chunk_ids), self.index.d
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self.index.codes.data(), rows * width * 2)
        return codes.view(np.float16).reshape(rows, width)

    def rows_of(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows that hold any of the distinct `chunk_ids` and are alive."""
        rows = np.searchsorted(self.chunk_ids, chunk_ids)
        inside = rows < len(self.chunk_ids)
        rows, chunk_ids = rows[inside], chunk_ids[inside]
        rows = rows[self.chunk_ids[rows] == chunk_ids].astype(np.int64)
        alive: NDArray[np.int64] = rows[self.alive[rows]]
        return alive

    def search(
        self, query: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None
    ) -> Hits:
        """Return every chunk that can be among the best `limit`, in no order."""
        allowed, count = self.alive, self.count
        if documents is not None:
            allowed = self.alive & np.isin(self.document_ids, documents)
            count = int(np.count_nonzero(allowed))
        if not count:
            return nothing()
        parameters = _only(allowed) if count < len(allowed) else None
        asked = min(limit + _SPARE, count)
        while True:
            scores, found = self.index.search(query[np.newaxis], asked, params=parameters)
            if asked == count or scores[0, -1] < scores[0, limit - 1] - 2 * _ROUNDING:
                break
            asked = min(asked * 4, count)
        rows = np.sort(found[0][found[0] >= 0])
        return Hits(self.chunk_ids[rows], inner_products(self.vectors[rows], query))


@dataclass(frozen=True, slots=True)
class Dense:
    """All vectors of an index at one point of its change log; changing it makes another."""

    dimension: int
    pieces: tuple[Piece, ...] = ()
    """No chunk is alive in two of them."""

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
                alive = piece.alive.copy()
                alive[rows] = False
                piece = replace(piece, alive=alive, count=piece.count - len(rows))
            if piece.count * 2 < len(piece.alive):
                pieces += self._merged([piece])
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
        last = [self._piece(chunk_ids, document_ids, vectors)]
        earlier = list(self.pieces)
        while earlier and earlier[-1].count <= _GROWTH * sum(piece.count for piece in last):
            last.append(earlier.pop())
        return replace(self, pieces=(*earlier, *self._merged(last)))

    def compacted(self) -> Dense:
        """Return the same chunks as at most one piece without tombstones."""
        return replace(self, pieces=tuple(self._merged(self.pieces)))

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

    def save(self, folder: Path) -> None:
        """Write `dense.faiss` and `positions.npy`."""
        pieces = self.compacted().pieces
        piece = pieces[0] if pieces else self._piece(*_no_rows(self.dimension))
        faiss.write_index(piece.index, str(folder / "dense.faiss"))
        np.save(folder / "positions.npy", np.stack([piece.chunk_ids, piece.document_ids]))

    @classmethod
    def load(cls, folder: Path, *, dimension: int) -> Dense:
        """Map what `save` wrote; the files may be removed afterwards.

        Raises:
            CorruptIndex: the files are not what `save` writes.
        """
        try:
            index = faiss.read_index(str(folder / "dense.faiss"), faiss.IO_FLAG_MMAP_IFC)
            chunk_ids, document_ids = np.load(folder / "positions.npy", allow_pickle=False)
        except (RuntimeError, OSError, ValueError) as error:
            raise CorruptIndex(f"Cannot read the vectors in {str(folder)!r}: {error}") from error
        if index.d != dimension or index.ntotal != len(chunk_ids):
            raise CorruptIndex(
                f"{str(folder)!r} holds {index.ntotal!r} vectors of {index.d!r} numbers for"
                f" {len(chunk_ids)!r} chunks of {dimension!r} numbers"
            )
        alive = np.ones(len(chunk_ids), dtype=np.bool_)
        piece = Piece(index, chunk_ids, document_ids, alive, len(chunk_ids))
        return cls(dimension, (piece,) if piece.count else ())

    def _merged(self, pieces: Sequence[Piece]) -> list[Piece]:
        if not pieces or (len(pieces) == 1 and pieces[0].alive.all()):
            return list(pieces)
        chunk_ids = np.concatenate([piece.chunk_ids[piece.alive] for piece in pieces])
        if not len(chunk_ids):
            return []
        document_ids = np.concatenate([piece.document_ids[piece.alive] for piece in pieces])
        vectors = np.concatenate([piece.vectors[piece.alive] for piece in pieces])
        order = np.argsort(chunk_ids)
        return [self._piece(chunk_ids[order], document_ids[order], vectors[order])]

    def _piece(
        self,
        chunk_ids: NDArray[np.int64],
        document_ids: NDArray[np.int64],
        vectors: NDArray[np.float16],
    ) -> Piece:
        index = faiss.IndexScalarQuantizer(
            self.dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        if len(chunk_ids):
            index.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))
        alive = np.ones(len(chunk_ids), dtype=np.bool_)
        return Piece(index, chunk_ids, document_ids, alive, len(chunk_ids))


def _only(allowed: NDArray[np.bool_]) -> Any:
    # Its type stubs describe the C++ constructors, not those that Python code calls.
    package: Any = faiss
    bitmap = np.packbits(allowed, bitorder="little")
    return package.SearchParameters(sel=package.IDSelectorBitmap(bitmap))


def _no_rows(
    dimension: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    nothing_held = np.empty(0, dtype=np.int64)
    return nothing_held, nothing_held, np.empty((0, dimension), dtype=np.float16)
