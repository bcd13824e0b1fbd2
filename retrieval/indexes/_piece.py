"""Some chunks' vectors that never change: scanned, or searched through a structure over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from infra.errors import CorruptIndex
from retrieval.indexes import Hits
from retrieval.indexes._candidates import Candidates, mapped, selector
from retrieval.indexes._folder import link
from retrieval.indexes._ranking import inner_products, nothing

FAISS_TYPE = "float16, inner product; HNSW, IVF with RaBitQ codes of 1 bit"
_SPARE = 16
"""Rows fetched beyond the limit: those that tie with the last one are ordered by chunk id."""
_ROUNDING = 1e-5
"""FAISS sums in another order than `inner_products`; unit vectors differ by less than this."""
_FEW_ROWS = 20_000
"""A filter that leaves so few, or less than the share below, is answered by a scan of them."""
_SMALL_SHARE = 0.1
_THIN = 0.5
"""Where a filter lets less than this part of its share through around a question, the structure
would look in the wrong place: answered by a scan, too."""
_LARGE_SHARE = 0.25
"""Who wants more than this share of the rows as candidates gets a scan."""
_SPARSE = 16
"""A table of more entries than this for each row and chosen document is not made."""
_VECTORS = "vectors.faiss"
_POSITIONS = "positions.npy"
_ALIVE = "alive.npy"
_CANDIDATES = "candidates.faiss"


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows in rising order of chunk id."""

    index: Any
    """A FAISS `IndexScalarQuantizer`; nothing is added to it after it was built."""
    chunk_ids: NDArray[np.int64]
    document_ids: NDArray[np.int64]
    alive: NDArray[np.bool_]
    """False for chunks that were deleted or replaced since."""
    count: int
    """How many are alive."""
    candidates: Candidates | None = None
    """What finds rows without looking at all; None where there are few."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Where its files were read from; a checkpoint may have removed them since."""

    @classmethod
    def of(
        cls,
        chunk_ids: NDArray[np.int64],
        document_ids: NDArray[np.int64],
        vectors: NDArray[np.float16],
    ) -> Piece:
        """Take rows in rising order of chunk id; `vectors` is `(rows, dimension)`."""
        index = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        if len(chunk_ids):
            index.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))
        alive = np.ones(len(chunk_ids), dtype=np.bool_)
        return cls(index, chunk_ids, document_ids, alive, len(chunk_ids))

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

    def without(self, rows: NDArray[np.int64]) -> Piece:
        """Return the piece with some rows, that are alive, deleted."""
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive, count=self.count - len(rows))

    def search(
        self, query: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None
    ) -> Hits:
        """Return chunks that the best `limit` are among, in no order.

        They are when all rows are scanned, and likely so when a structure chooses candidates.
        """
        allowed, count = self.alive, self.count
        if documents is not None:
            allowed = self.alive & _among(self.document_ids, documents)
            count = int(np.count_nonzero(allowed))
        if not count:
            return nothing()
        narrowed = allowed if count < len(allowed) else None
        rows = self._likely(query, limit, allowed=narrowed, count=count)
        if rows is None:
            rows = self._scanned(query, limit, allowed=narrowed, count=count)
        return Hits(self.chunk_ids[rows], inner_products(self.vectors[rows], query))

    def save(self, folder: Path) -> None:
        """Write the files, or link those that it was read from."""
        writers: dict[str, Callable[[Path], None]] = {
            _VECTORS: self._write_vectors,
            _POSITIONS: self._write_positions,
        }
        if self.candidates is not None and self.candidates.index is not None:
            writers[_CANDIDATES] = self.candidates.save
        for name, write in writers.items():
            if not _is_linked(self.files.get(name), folder / name):
                write(folder / name)
        if self.count < len(self.alive):
            np.save(folder / _ALIVE, np.packbits(self.alive))

    @classmethod
    def load(cls, folder: Path, *, dimension: int, candidates: Candidates | None) -> Piece:
        """Map what `save` wrote; the files may be removed afterwards.

        Raises:
            CorruptIndex: the files are not what `save` writes.
        """
        try:
            index = faiss.read_index(str(folder / _VECTORS), faiss.IO_FLAG_MMAP_IFC)
            chunk_ids, document_ids = np.load(folder / _POSITIONS, allow_pickle=False)
            alive = np.ones(len(chunk_ids), dtype=np.bool_)
            if (folder / _ALIVE).exists():
                bits = np.load(folder / _ALIVE, allow_pickle=False)
                alive = np.unpackbits(bits, count=len(chunk_ids)).astype(np.bool_)
        except (RuntimeError, OSError, ValueError) as error:
            raise CorruptIndex(f"Cannot read the vectors in {str(folder)!r}: {error}") from error
        if index.d != dimension or index.ntotal != len(chunk_ids):
            raise CorruptIndex(
                f"{str(folder)!r} holds {index.ntotal!r} vectors of {index.d!r} numbers for"
                f" {len(chunk_ids)!r} chunks of {dimension!r} numbers"
            )
        if candidates is not None and candidates.kind != "exact":
            structure = mapped(candidates.kind, folder / _CANDIDATES, storage=index)
            candidates = replace(candidates, index=structure)
        files = {name: folder / name for name in (_VECTORS, _POSITIONS, _CANDIDATES)}
        count = int(np.count_nonzero(alive))
        return cls(index, chunk_ids, document_ids, alive, count, candidates, files)

    def _write_vectors(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    def _write_positions(self, path: Path) -> None:
        np.save(path, np.stack([self.chunk_ids, self.document_ids]))

    def _likely(
        self,
        query: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.bool_] | None,
        count: int,
    ) -> NDArray[np.int64] | None:
        """Rows that a structure finds; None where a scan is cheaper, or the only way."""
        candidates = self.candidates
        if candidates is None or candidates.index is None:
            return None
        if candidates.asked(limit) > _LARGE_SHARE * count:
            return None
        share = 1.0
        if allowed is not None:
            share = count / len(allowed)
            if count < _FEW_ROWS or share < _SMALL_SHARE:
                return None
            if candidates.scanned_meanwhile(limit, share=share) > count:
                return None
            around = candidates.share_around(query, allowed)
            if around < _THIN * share:
                return None
            share = min(share, around)
        rows = candidates.rows(query, limit, allowed=allowed, share=share)
        return rows if len(rows) >= limit else None

    def _scanned(
        self,
        query: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.bool_] | None,
        count: int,
    ) -> NDArray[np.int64]:
        package: Any = faiss
        parameters = (
            package.SearchParameters(sel=selector(allowed)) if allowed is not None else None
        )
        asked = min(limit + _SPARE, count)
        while True:
            scores, found = self.index.search(query[np.newaxis], asked, params=parameters)
            if asked == count or scores[0, -1] < scores[0, limit - 1] - 2 * _ROUNDING:
                break
            asked = min(asked * 4, count)
        rows: NDArray[np.int64] = np.sort(found[0][found[0] >= 0])
        return rows


def _among(numbers: NDArray[np.int64], documents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which numbers are in the sorted `documents`; a tenth of the time of `np.isin`."""
    if not len(documents):
        return np.zeros(len(numbers), dtype=np.bool_)
    below, above = int(documents[0]) - 1, int(documents[-1]) + 1
    if above - below > _SPARSE * (len(numbers) + len(documents)):
        return np.isin(numbers, documents)
    table = np.zeros(above - below + 1, dtype=np.bool_)
    table[documents - below] = True
    found: NDArray[np.bool_] = table[np.clip(numbers, below, above) - below]
    return found


def _is_linked(source: Path | None, target: Path) -> bool:
    if source is None:
        return False
    try:
        link(source, target)
    except FileNotFoundError:  # another process wrote a checkpoint, or it had no such file
        return False
    return True
