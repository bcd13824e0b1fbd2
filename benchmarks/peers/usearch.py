"""USearch: a graph over float16 vectors; the file is mapped, not read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index  # type: ignore[import-not-found]

from benchmarks.peers.nearest import serve

LINKS = 16
BUILD_EFFORT = 100
BLOCK = 20_000


class Usearch:
    """`Index` with half precision, opened as a view."""

    def __init__(self) -> None:
        self._index: Any = None

    def build(self, vectors: Any, folder: Path) -> dict[str, Any]:
        index = Index(
            ndim=vectors.shape[1],
            metric="ip",
            dtype="f16",
            connectivity=LINKS,
            expansion_add=BUILD_EFFORT,
        )
        threads = int(os.environ["OMP_NUM_THREADS"])
        for start in range(0, len(vectors), BLOCK):
            rows = np.asarray(vectors[start : start + BLOCK])
            index.add(np.arange(start, start + len(rows)), rows, threads=threads)
        index.save(str(folder / "index.usearch"))
        return {}

    def open(self, folder: Path) -> None:
        self._index = Index.restore(str(folder / "index.usearch"), view=True)

    def ask(self, question: Any, limit: int, effort: int) -> Any:
        self._index.expansion_search = effort
        return self._index.search(question.astype(np.float16), limit, threads=1).keys


if __name__ == "__main__":
    serve(Usearch)
