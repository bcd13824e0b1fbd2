"""Neighbour expansion: passages with the text around them, their spans still exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, func, select

from infra.contracts import Passage
from infra.database.engine import Database
from infra.database.schema import chunk, document_text
from retrieval.commit import PIECE_CHARACTERS


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A span of one document, and the best passage in it."""

    document: int
    start: int
    end: int
    rank: int


def expand(database: Database, passages: Sequence[Passage], *, neighbours: int) -> list[Passage]:
    """Widen each passage by the `neighbours` chunks before and after it in its document.

    Passages that come to overlap become one, in the place and with the score of the best. One whose
    document was changed meanwhile stays as it is. The text is what is stored at the new span.
    """
    if neighbours < 1 or not passages:
        return list(passages)
    with database.read() as connection:
        widened = _widened(connection, passages, neighbours)
        stretches = _merged(widened)
        texts = {stretch: _text(connection, stretch) for stretch in stretches}
    known = {stretch.rank for stretch in widened}
    found = {
        rank: passage for rank, passage in enumerate(passages) if rank not in known
    }  # deleted or replaced since
    for stretch, text in texts.items():
        passage = passages[stretch.rank]
        offset = passage.start_char - stretch.start
        if text[offset : offset + len(passage.text)] == passage.text:
            passage = replace(
                passage, text=text, start_char=stretch.start, end_char=stretch.start + len(text)
            )
        found[stretch.rank] = passage
    return [found[rank] for rank in sorted(found)]


def _widened(
    connection: Connection, passages: Sequence[Passage], neighbours: int
) -> list[_Stretch]:
    near = chunk.alias("near")
    ranks: Mapping[int, int] = {
        passage.chunk_id: rank for rank, passage in reversed(list(enumerate(passages)))
    }
    rows = connection.execute(
        select(
            chunk.c.id,
            chunk.c.document_id,
            func.min(near.c.start_char).label("start"),
            func.max(near.c.end_char).label("end"),
        )
        .join(
            near,
            and_(
                near.c.document_id == chunk.c.document_id,
                near.c.build_id == chunk.c.build_id,
                near.c.ordinal.between(chunk.c.ordinal - neighbours, chunk.c.ordinal + neighbours),
            ),
        )
        .where(chunk.c.id.in_(list(ranks)))
        .group_by(chunk.c.id, chunk.c.document_id)
    )
    return [_Stretch(row.document_id, row.start, row.end, ranks[row.id]) for row in rows]


def _merged(stretches: Sequence[_Stretch]) -> list[_Stretch]:
    merged: list[_Stretch] = []
    for stretch in sorted(stretches, key=lambda one: (one.document, one.start, one.end)):
        last = merged[-1] if merged else None
        if last and last.document == stretch.document and stretch.start < last.end:
            merged[-1] = _Stretch(
                last.document,
                last.start,
                max(last.end, stretch.end),
                min(last.rank, stretch.rank),
            )
        else:
            merged.append(stretch)
    return merged


def _text(connection: Connection, stretch: _Stretch) -> str:
    first, last = stretch.start // PIECE_CHARACTERS, (stretch.end - 1) // PIECE_CHARACTERS
    pieces = connection.execute(
        select(document_text.c.text)
        .where(
            document_text.c.document_id == stretch.document,
            document_text.c.piece.between(first, last),
        )
        .order_by(document_text.c.piece)
    ).scalars()
    offset = first * PIECE_CHARACTERS
    return "".join(pieces)[stretch.start - offset : stretch.end - offset]
