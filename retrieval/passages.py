"""Passages: what the database holds of the chunks that were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from infra.contracts import Access, Passage
from infra.database.engine import Database
from infra.database.schema import chunk, document, file
from retrieval.access import readable
from retrieval.collections import Collection
from retrieval.fusion import Fused


@dataclass(frozen=True, slots=True)
class Found:
    """A passage with its vector."""

    passage: Passage
    vector: NDArray[np.float16]
    """`(dimension,)`, unit length."""

    def scored(self, stage: str, score: float) -> Found:
        """Return the same passage with another score, noted under the name of its stage."""
        scores = {**self.passage.scores, stage: score}
        return replace(self, passage=replace(self.passage, score=score, scores=scores))

    def at_most(self, score: float) -> Found:
        """Return the same passage with no more than a score, behind one that has it."""
        return replace(self, passage=replace(self.passage, score=min(self.passage.score, score)))


def fetch(
    database: Database,
    collection: Collection,
    fused: Sequence[Fused],
    *,
    count: int,
    access: Access | None = None,
) -> list[Found]:
    """Read the best `count` chunks, in order; those deleted meanwhile make room for the next.

    So do those that were taken from the caller since the index was asked.
    """
    found: list[Found] = []
    for start in range(0, len(fused), count):
        wanted = {item.chunk_id: item for item in fused[start : start + count]}
        rows = {row.id: row for row in _rows(database, list(wanted), access)}
        for number, item in wanted.items():
            if number in rows:
                vector = np.frombuffer(rows[number].vector, dtype="<f2")
                found.append(Found(_passage(collection, rows[number], item), vector))
        if len(found) >= count:
            break
    return found[:count]


def _rows(database: Database, numbers: list[int], access: Access | None) -> Sequence[Any]:
    # Numbers are unique over all builds; naming the build too would make SQLite scan it.
    with database.read() as connection:
        return connection.execute(
            select(
                chunk.c.id,
                chunk.c.start_char,
                chunk.c.end_char,
                chunk.c.text,
                chunk.c.heading,
                chunk.c.page,
                chunk.c.vector,
                document.c.file_id,
                document.c.version,
                document.c.source,
                document.c.title,
                document.c.metadata,
                file.c.filename,
            )
            .join(document, document.c.id == chunk.c.document_id)
            .join(file, file.c.id == document.c.file_id)
            .where(chunk.c.id.in_(numbers), readable(access))
        ).all()


def _passage(collection: Collection, row: Any, item: Fused) -> Passage:
    return Passage(
        chunk_id=row.id,
        document_id=row.file_id,
        document_version=row.version,
        collection=collection.name,
        source=row.source,
        title=row.title or row.filename,
        start_char=row.start_char,
        end_char=row.end_char,
        text=row.text,
        score=item.score,
        scores=item.scores,
        heading=row.heading,
        page=row.page,
        metadata={"filename": row.filename, **row.metadata},
    )
