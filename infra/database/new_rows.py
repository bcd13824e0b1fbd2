"""Rows inserted where they are new: on SQLite many to a statement, for threads that wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

LARGEST = 128
"""Rows of a statement; smaller ones are powers of two, so that SQLite keeps all of them parsed."""


def insert_new(
    connection: Connection, into: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Insert rows; one that the table has already, by any unique key, stays as it is.

    The driver gives the interpreter away for every statement that it runs, waits for it
    afterwards, and interrupts the thread that has it then. So a row is no statement of its own.

    Args:
        connection: in a write transaction, which is to be undone if this raises.
        into: the table.
        names: of columns, those of the values of each row.
        rows: their values.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        _insert(connection, into, names, rows)
    else:
        named = [dict(zip(names, row, strict=True)) for row in rows]
        connection.execute(postgresql.insert(into).on_conflict_do_nothing(), named)


def _insert(
    connection: Connection, into: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    bound = dict(_bound(connection, into, names, rows))
    values = list(zip(*bound.values(), strict=True))
    written = connection.dialect.identifier_preparer
    columns = ", ".join(map(written.quote, bound))
    one = f"({', '.join('?' * len(bound))})"
    start = 0
    for size in _sizes(len(rows)):
        connection.exec_driver_sql(
            # Failing as it stands, a statement keeps no copy of the pages that it changes.
            f"INSERT OR FAIL INTO {written.format_table(into)} ({columns}) "
            f"VALUES {', '.join([one] * size)} ON CONFLICT DO NOTHING",
            tuple(chain.from_iterable(values[start : start + size])),
        )
        start += size


def _bound(
    connection: Connection, into: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield each column with the driver's values of ours; one that is empty is left out.

    A third of a table may be empty: to bind and to write that takes a third of the time.
    """
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        if values.count(None) == len(values):
            continue
        kind = into.c[name].type.dialect_impl(connection.dialect)
        bind = kind.bind_processor(connection.dialect)
        yield name, values if bind is None else list(map(bind, values))


def _sizes(count: int) -> Iterator[int]:
    size = LARGEST
    while count:
        if size <= count:
            count -= size
            yield size
        else:
            size //= 2
