"""Rows inserted where they are new: on SQLite many to a statement, for threads that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

LARGEST = 64
"""Rows of a statement; smaller ones are powers of two, so that SQLite keeps all of them parsed."""


def insert_new(connection: Connection, into: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, by column; one that the table has already, by any unique key, stays as it is.

    The driver gives the interpreter away for every statement that it runs, waits for it
    afterwards, and interrupts the thread that has it then. So a row is no statement of its own.
    """
    for names, group in groupby(rows, key=tuple):  # another release may have written some of them
        if connection.dialect.name == "sqlite":
            _insert(connection, into, names, list(group))
        else:
            connection.execute(postgresql.insert(into).on_conflict_do_nothing(), list(group))


def _insert(
    connection: Connection, into: Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    bound = list(_bound(connection, into, names))
    values = [
        [row[name] if bind is None else bind(row[name]) for name, bind in bound] for row in rows
    ]
    written = connection.dialect.identifier_preparer
    columns = ", ".join(map(written.quote, names))
    one = f"({', '.join('?' * len(names))})"
    start = 0
    for size in _sizes(len(rows)):
        connection.exec_driver_sql(
            f"INSERT INTO {written.format_table(into)} ({columns}) "
            f"VALUES {', '.join([one] * size)} ON CONFLICT DO NOTHING",
            tuple(chain.from_iterable(values[start : start + size])),
        )
        start += size


def _bound(
    connection: Connection, into: Table, names: Sequence[str]
) -> Iterator[tuple[str, Callable[[Any], Any] | None]]:
    """Yield each column with what makes the driver's value of ours, if anything has to."""
    for name in names:
        kind = into.c[name].type.dialect_impl(connection.dialect)
        yield name, kind.bind_processor(connection.dialect)


def _sizes(count: int) -> Iterator[int]:
    size = LARGEST
    while count:
        if size <= count:
            count -= size
            yield size
        else:
            size //= 2
