"""hnswlib: a graph over float32 vectors in memory, saved and read whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hnswlib  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np

from benchmarks.peers.nearest import serve

LINKS = 16
BUILD_EFFORT = 100
BLOCK = 20_000


class Hnswlib:
    """As its README shows, with the links and the build effort of our own graph."""

    def __init__(self) -> None:
        self._index: Any = None

    def build(self, vectors: Any, folder: Path) -> dict[str, Any]:
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=BUILD_EFFORT)
        threads = int(os.environ["OMP_NUM_THREADS"])
        for start in range(0, len(vectors), BLOCK):
            rows = np.asarray(vectors[start : start + BLOCK], dtype=np.float32)
            index.add_items(rows, np.arange(start, start + len(rows)), num_threads=threads)
        index.save_index(str(folder / "index"))
        (folder / "dimension").write_text(str(vectors.shape[1]), encoding="ascii")
        return {}

    def open(self, folder: Path) -> None:
        dimension = int((folder / "dimension").read_text(encoding="ascii"))
        self._index = hnswlib.Index(space="ip", dim=dimension)
        self._index.load_index(str(folder / "index"))

    def ask(self, question: Any, limit: int, effort: int) -> Any:
        self._index.set_ef(max(effort, limit))
        labels, _ = self._index.knn_query(question, k=limit, num_threads=1)
        return labels[0]


if __name__ == "__main__":
    serve(Hnswlib)
