"""Tells whoever writes words of a document whether it is there, until the transaction ends."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from infra.database.engine import Database
from infra.database.schema import document

LOCK = 0x7261_6771
AT_ONCE = 1_000


def missing(database: Database, connection: Connection, file_ids: Collection[str]) -> set[str]:
    """Return which documents, given by public id, are gone; what quotes them must not be written.

    The answer holds until the transaction ends: an erasure that removes a document meanwhile looks
    for its quotes only after that, see `await_writers`. Ask before the transaction locks any row,
    so that no two of them wait for each other.

    Args:
        database: the one of the connection.
        connection: the write transaction that is to hold the quotes.
        file_ids: what is to be quoted.
    """
    if not file_ids:
        return set()
    database.lock(connection, LOCK, shared=True)
    return _gone(connection, file_ids)


def removed(database: Database, file_ids: Collection[str]) -> set[str]:
    """Return which documents, given by public id, are gone at this moment; it makes none wait."""
    if not file_ids:
        return set()
    with database.read() as connection:
        return _gone(connection, file_ids)


def await_writers(database: Database) -> None:
    """Return once every quote is committed whose writer may have seen documents now removed.

    Whoever has removed documents calls this before it looks for what quotes them. Writers that
    begin later find the documents gone.
    """
    with database.write(lock=LOCK, durable=False):
        pass


def _gone(connection: Connection, file_ids: Collection[str]) -> set[str]:
    wanted = sorted(file_ids)
    gone = set(wanted)
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        standing = select(document.c.file_id).where(document.c.file_id.in_(some))
        gone.difference_update(connection.execute(standing).scalars())
    return gone
