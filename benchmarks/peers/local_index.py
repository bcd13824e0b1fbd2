"""Our own index, in a process of its own like every peer; its texts are empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.nearest import serve
from retrieval.indexes import Change, SearchIndex, open_index

BATCH = 5_000


class Local:
    """`local`, fed by a change log as in use."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._index: SearchIndex | None = None

    def build(self, vectors: Any, folder: Path) -> dict[str, Any]:
        index = open_index("local", folder, dimension=vectors.shape[1], **self._options)
        for start in range(0, len(vectors), BATCH):
            rows = np.asarray(vectors[start : start + BATCH])
            index.apply(
                [Change(n + 1, n + 1, n // 100, vector=row) for n, row in enumerate(rows, start)]
            )
        index.checkpoint()
        index.close()
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return {"pieces": manifest["pieces"], "dimension": vectors.shape[1]}

    def open(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self._index = open_index("local", folder, dimension=manifest["dimension"], **self._options)

    def ask(self, question: Any, limit: int, effort: int) -> Any:  # noqa: ARG002
        assert self._index is not None
        return self._index.dense(question, limit).chunk_ids - 1


if __name__ == "__main__":
    serve(Local)
