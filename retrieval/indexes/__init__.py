"""Search indexes: views over a build's chunks that replay its change log.

A plug-in is a file with `build(folder, *, dimension, **options) -> SearchIndex`. An index never
holds the only copy of anything: `retrieval/view.py` feeds it the changes after its watermark, and
after a crash or a corrupt checkpoint it is simply fed again. One that keeps data outside its folder
also has `remove(folder, **options)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from infra.plugins import load


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log, with what an index needs to apply it."""

    sequence: int
    chunk_id: int
    document_id: int
    """The number of the row, not the public id."""
    text: str = ""
    heading: str = ""
    vector: NDArray[np.float16] | None = None
    """`(dimension,)`, unit length; None means the chunk is gone."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Chunks in falling order of score; ties fall to the smaller chunk id."""

    chunk_ids: NDArray[np.int64]
    scores: NDArray[np.float32]


class SearchIndex(Protocol):
    """Dense and lexical search over one build.

    `apply` has one caller at a time; searches may run meanwhile, from any thread, and see the state
    before or after a batch, never half of it.
    """

    @property
    def watermark(self) -> int:
        """Sequence of the last change applied; 0 when empty."""
        ...

    def __len__(self) -> int:
        """Chunks that can be found."""
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply changes in rising order of sequence; those at or below the watermark are ignored.

        A chunk may be upserted again (its text or document metadata changed); the last one counts.
        `CorruptIndex` says that its files were removed: to take changes, it has to be opened anew.
        """
        ...

    def dense(
        self, vector: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        """The chunks with the largest inner product to `vector`.

        Args:
            vector: `(dimension,)`, unit length.
            limit: at most this many; fewer when fewer can be found.
            documents: sorted document numbers to search in; None for all. Enforced inside the
                search, so `limit` results come back whenever that many are allowed.
        """
        ...

    def lexical(
        self, query: str, limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        """The chunks with the largest BM25 score; any text will do, none is a syntax error."""
        ...

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """The vectors of distinct chunks, as they were applied: `(len(chunk_ids), dimension)`.

        A chunk that is not held, deleted meanwhile for one, has a row of zeros.
        """
        ...

    def is_due(self) -> bool:
        """Whether a checkpoint would do more than save changes: build what a new setting wants."""
        ...

    def checkpoint(self) -> None:
        """Make what was applied durable, if the index keeps files; atomic and checksummed."""
        ...

    def close(self) -> None:
        """Release files and memory; the index is not used afterwards."""
        ...


def open_index(name: str, folder: Path, *, dimension: int, **options: Any) -> SearchIndex:
    """Open the index at `folder` with plug-in `name`, from its last sound checkpoint."""
    build = load("retrieval.indexes", name)
    return cast("SearchIndex", build(folder, dimension=dimension, **options))


def remove_index(name: str, folder: Path, **options: Any) -> None:
    """Have a plug-in that keeps data outside `folder` remove them; it offers `remove` for that."""
    module = importlib.import_module(load("retrieval.indexes", name).__module__)
    if remove := getattr(module, "remove", None):
        remove(folder, **options)
