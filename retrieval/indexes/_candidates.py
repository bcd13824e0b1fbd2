"""Structures that find candidates fast, a graph or inverted lists; their scores are made exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from infra.errors import CorruptIndex

Step = Callable[[], None]
"""Called between the parts of a long build; may raise to end it."""

RECALL_AT = 10
_BLOCK_ROWS = 16_384
_LINKS = 16
"""Neighbours of a node of the graph; twice as many at the bottom: 140 bytes a vector."""
_LINK_EFFORT = 100
"""Nodes looked at to choose them."""
_ROWS_PER_CENTROID = 40
_CLUSTERING_ROUNDS = 8
_QUERY_BITS = 8
"""A question is rounded to 8 bits a number, so that codes are compared by counting bits."""
_FEW = 60
"""Candidates beyond `refine` times the limit."""
_EFFORT_GROWTH = 0.3
"""Effort rises with this power of the limit: ten times the hits, twice the lists."""
_AROUND = 256
"""Rows nearest to a question that tell whether a filter lets its surroundings through."""
_ROWS_A_NODE = 16
"""Vectors that are scanned in the time of one node in view of the graph, measured 16 to 25."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """A search structure over the rows of a piece, with what was measured of it."""

    kind: str
    """`hnsw` or `ivf`; `exact` where no structure found enough."""
    asked_for: str
    """The type in the settings that it was built under."""
    effort: int
    """Lists looked into (nprobe) or nodes kept in view (ef), for 10 hits."""
    refine: int
    """Candidates of lists whose exact score is computed, per hit."""
    recall: float
    """Share of the exact nearest 10 that it found, over a sample, when last measured."""
    gone_when_measured: int = 0
    """Rows that were deleted when the recall was measured."""
    questions_asked: int = 0
    """Questions it was measured with that somebody asked; 0 where all were made."""
    index: Any = None
    """A FAISS `IndexHNSW` over the piece's own vectors, or an `IndexIVFRaBitQ`."""

    def rows(
        self,
        query: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.bool_] | None,
        share: float = 1.0,
    ) -> NDArray[np.int64]:
        """Return rows that the best `limit` are likely among, in rising order.

        Args:
            query: `(dimension,)`.
            limit: how many are wanted; more are returned.
            allowed: of each row whether it may be returned; None for all.
            share: of the rows around the question, those that are allowed, above 0.
        """
        effort = round(self._effort(limit, share=share))
        return np.sort(self._found(query, self.asked(limit), effort=effort, allowed=allowed))

    def share_around(self, query: NDArray[np.float32], allowed: NDArray[np.bool_]) -> float:
        """Return which share of the rows about nearest to a question is allowed."""
        effort = _AROUND
        if self.kind == "ivf":
            effort = math.ceil(4 * _AROUND * self.index.nlist / len(allowed))
        nearest = self._found(query, _AROUND, effort=effort, allowed=None)
        return float(allowed[nearest].mean()) if len(nearest) else 0.0

    def asked(self, limit: int) -> int:
        """Candidates that are fetched for `limit` hits."""
        return limit + _FEW // 4 if self.kind == "hnsw" else _FEW + self.refine * limit

    def scanned_meanwhile(self, limit: int, *, share: float) -> float:
        """Rows that a scan gets through in the time that the structure takes under a filter."""
        if self.kind == "hnsw":
            return max(self.asked(limit), self._effort(limit, share=share)) * _ROWS_A_NODE
        return self.asked(limit)  # what its codes cost does not show beside their exact scores

    def save(self, path: Path) -> None:
        """Write the structure without the vectors, which lie in a file of their own."""
        package: Any = faiss
        package.write_index(self.index, str(path), package.IO_FLAG_SKIP_STORAGE)

    def _effort(self, limit: int, *, share: float) -> float:
        """More for more hits, and more where a filter lets but a share of the rows through."""
        times: float = max(1.0, limit / RECALL_AT) ** _EFFORT_GROWTH
        return self.effort * times / share

    def _found(
        self,
        query: NDArray[np.float32],
        count: int,
        *,
        effort: int,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.int64]:
        package: Any = faiss
        if self.kind == "hnsw":
            parameters = package.SearchParametersHNSW(efSearch=max(count, effort))
        else:
            parameters = package.IVFRaBitQSearchParameters(
                nprobe=min(effort, self.index.nlist), qb=_QUERY_BITS
            )
        chosen = None if allowed is None else selector(allowed)
        if chosen is not None:
            parameters.sel = chosen
        _, found = self.index.search(query[np.newaxis], count, params=parameters)
        rows: NDArray[np.int64] = found[0][found[0] >= 0]
        return rows


def selector(allowed: NDArray[np.bool_]) -> Any:
    # Its type stubs describe the C++ constructors, not those that Python code calls.
    package: Any = faiss
    return package.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def built(
    kind: str, vectors: NDArray[np.float16], *, storage: Any, threads: int, step: Step
) -> Any:
    """Build the structure of a kind over `vectors`, `(rows, dimension)`, which `storage` holds."""
    faiss.omp_set_num_threads(threads)
    return _graph(vectors, storage, step) if kind == "hnsw" else _lists(vectors, step)


def mapped(kind: str, path: Path, *, storage: Any) -> Any:
    """Map a structure that `Candidates.save` wrote; the file may be removed afterwards.

    Raises:
        CorruptIndex: it is not what `save` writes.
    """
    flags = faiss.IO_FLAG_MMAP_IFC
    if kind == "ivf":
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise CorruptIndex(f"Cannot read {str(path)!r}: {error}") from error
    if index.ntotal != storage.ntotal or index.d != storage.d:
        raise CorruptIndex(f"{str(path)!r} does not belong to the vectors beside it")
    if kind == "hnsw":
        _attach(index, storage)
    return index


def blocks(vectors: NDArray[np.float16]) -> Iterator[NDArray[np.float32]]:
    """Yield rows as float32, some at a time, for what would not fit into memory at once."""
    for start in range(0, len(vectors), _BLOCK_ROWS):
        yield vectors[start : start + _BLOCK_ROWS].astype(np.float32)


def _graph(vectors: NDArray[np.float16], storage: Any, step: Step) -> Any:
    own = faiss.IndexScalarQuantizer(
        storage.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    package: Any = faiss
    graph = package.IndexHNSW(own, _LINKS)
    graph.metric_type, graph.is_trained = faiss.METRIC_INNER_PRODUCT, True
    graph.hnsw.efConstruction = _LINK_EFFORT
    for block in blocks(vectors):
        step()
        graph.add(block)
    _attach(graph, storage)
    return graph


def _attach(graph: Any, storage: Any) -> None:
    # It does not keep the vectors alive; the piece that has both does.
    graph.storage, graph.own_fields = storage, False


def _lists(vectors: NDArray[np.float16], step: Step) -> Any:
    rows, width = vectors.shape
    count = max(1, min(round(2 * math.sqrt(rows)), rows // _ROWS_PER_CENTROID))
    quantizer: Any = faiss.IndexFlatIP(width)
    quantizer.add(_centroids(vectors, count, step))
    lists = faiss.IndexIVFRaBitQ(quantizer, width, count, faiss.METRIC_INNER_PRODUCT)
    quantizer.this.disown()
    lists.own_fields = True
    for block in blocks(vectors):
        step()
        if not lists.is_trained:
            lists.train(block)
        lists.add(block)
    return lists


def _centroids(vectors: NDArray[np.float16], count: int, step: Step) -> NDArray[np.float32]:
    """Cluster a sample by direction, a round at a time so that it can be ended."""
    chance = np.random.default_rng(0)
    size = min(len(vectors), count * _ROWS_PER_CENTROID)
    sample = vectors[np.sort(chance.choice(len(vectors), size, replace=False))].astype(np.float32)
    centroids: Any = sample[chance.choice(size, count, replace=False)]
    for round_ in range(_CLUSTERING_ROUNDS):
        step()
        clustering = faiss.Kmeans(
            sample.shape[1], count, niter=1, spherical=True, seed=round_ + 1, verbose=False
        )
        clustering.cp.min_points_per_centroid = 1
        clustering.train(sample, init_centroids=centroids)
        centroids = clustering.centroids
    found: NDArray[np.float32] = centroids
    return found
