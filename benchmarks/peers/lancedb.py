"""LanceDB: a table with its default inverted lists, candidates re-ranked from the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb  # type: ignore[import-not-found]
import numpy as np
import pyarrow as pa

from benchmarks.peers.nearest import serve

BLOCK = 20_000
REFINE = 10


class LanceDB:
    """Embedded LanceDB, `create_index` as it chooses, `dot` as the metric."""

    def __init__(self) -> None:
        self._table: Any = None

    def build(self, vectors: Any, folder: Path) -> dict[str, Any]:
        width = vectors.shape[1]
        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float16(), width))])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(vectors), BLOCK):
                rows = np.ascontiguousarray(vectors[start : start + BLOCK])
                column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
                ids = pa.array(np.arange(start, start + len(rows)))
                yield pa.RecordBatch.from_arrays([ids, column], schema=schema)

        table = lancedb.connect(str(folder)).create_table("vectors", batches(), schema=schema)
        table.create_index(metric="dot", vector_column_name="vector")
        return {}

    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(str(folder)).open_table("vectors")

    def ask(self, question: Any, limit: int, effort: int) -> Any:
        search = self._table.search(question.astype(np.float16)).distance_type("dot")
        rows = search.nprobes(effort).refine_factor(REFINE).limit(limit).select(["id"])
        return rows.to_arrow()["id"].to_numpy()


if __name__ == "__main__":
    serve(LanceDB)
