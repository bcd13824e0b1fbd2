"""One process per device, each with a copy of a sentence-transformers model."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from infra.contracts import Vectors

BATCHES_PER_CHUNK = 4
"""What a process is handed at once: enough to keep it busy, little enough to share evenly."""


class DevicePool:
    """Started at once; its processes end with it, or with this process."""

    def __init__(self, model: Any, devices: Sequence[str]) -> None:
        self._model = model
        self._pool = model.start_multi_process_pool(list(devices))
        self.close = weakref.finalize(self, model.stop_multi_process_pool, self._pool)

    def encode(
        self, texts: Sequence[str], *, kind: Literal["query", "document"], batch_texts: int
    ) -> Vectors:
        """Return a row per text; texts of like length should lie together.

        Raises:
            RuntimeError: a process died, or its device ran out of memory.
        """
        encode = self._model.encode_query if kind == "query" else self._model.encode_document
        rows = encode(
            list(texts),
            pool=self._pool,
            batch_size=batch_texts,
            chunk_size=batch_texts * BATCHES_PER_CHUNK,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(rows, dtype=np.float32)
