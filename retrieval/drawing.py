"""The chunks of a collection in an order that a seed draws, for whoever wants some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import select

from infra.contracts import Passage
from infra.database.engine import Database
from infra.database.schema import chunk, document
from retrieval.collections import Collection
from retrieval.fusion import Fused
from retrieval.passages import fetch

BATCH = 200


def drawn(database: Database, collection: Collection, *, seed: int = 0) -> Iterator[Passage]:
    """Yield every chunk once, as a passage without a score.

    The order depends on the seed, the documents' sources and where in them a chunk stands; so it
    is the same in another database, and a new document leaves the others' order as it was.
    """
    with database.read() as connection:
        rows = connection.execute(
            select(chunk.c.id, chunk.c.ordinal, document.c.source)
            .join(document, document.c.id == chunk.c.document_id)
            .where(chunk.c.build_id == collection.build_id, document.c.status == "completed")
        ).all()
    places = {row.id: f"{seed}/{row.ordinal}/{row.source}" for row in rows}
    order = sorted(places, key=lambda number: _hash(places[number]))
    for start in range(0, len(order), BATCH):
        wanted = [Fused(number, 0.0) for number in order[start : start + BATCH]]
        for found in fetch(database, collection, wanted, count=BATCH):
            yield found.passage


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
