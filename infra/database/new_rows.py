"""Rows inserted where they are new: on SQLite many to a statement, for threads that wait for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import JSON, Connection, Table
from sqlalchemy.dialects import postgresql

from infra.database.schema import Moment

SIZES = (8, 64, 256)
"""Rows that statements have room for: few sizes, so that SQLite keeps all of them parsed. Of the
largest one takes 0.4 MiB."""


def insert_new(connection: Connection, into: Table, columns: Mapping[str, Sequence[Any]]) -> None:
    """Insert rows; one that the table has already, by any unique key, stays as it is.

    The driver gives the interpreter away for every statement that it runs, waits for it
    afterwards, and interrupts the thread that has it then. So a row is no statement of its own.

    Args:
        connection: in a write transaction, which is to be undone if this raises.
        into: the table.
        columns: values of all rows, by the name of their column.
    """
    if not any(columns.values()):
        return
    if connection.dialect.name == "sqlite":
        _insert(connection, into, columns)
    else:
        rows = zip(*columns.values(), strict=True)
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        connection.execute(postgresql.insert(into).on_conflict_do_nothing(), named)


def _insert(connection: Connection, into: Table, columns: Mapping[str, Sequence[Any]]) -> None:
    """Insert rows by statements in which what is the same in all of them is said once."""
    written = connection.dialect.identifier_preparer
    same: list[Any] = []
    each: list[Sequence[Any]] = []
    selected = []
    for values in _bound(connection, into, columns):
        if each and values.count(values[0]) == len(values):
            same.append(values[0])
            selected.append("?")
        else:
            each.append(values)
            selected.append(f"column{len(each)}")
    rows = list(zip(*each, strict=True))
    names = ", ".join(map(written.quote, columns))
    one = f"({', '.join('?' * len(each))})"
    for start in range(0, len(rows), SIZES[-1]):
        some = rows[start : start + SIZES[-1]]
        size = next(size for size in SIZES if size >= len(some))
        room = [None] * (len(each) * (size - len(some)))
        connection.exec_driver_sql(
            # Failing as it stands, a statement keeps no copy of the pages that it changes.
            f"INSERT OR FAIL INTO {written.format_table(into)} ({names}) "
            f"SELECT {', '.join(selected)} FROM (VALUES {', '.join([one] * size)}) "
            "WHERE true LIMIT ? ON CONFLICT DO NOTHING",
            (*same, *chain.from_iterable(some), *room, len(some)),
        )


def _bound(
    connection: Connection, into: Table, columns: Mapping[str, Sequence[Any]]
) -> Iterator[Sequence[Any]]:
    """Yield each column with the driver's values of ours."""
    for name, values in columns.items():
        kind = into.c[name].type
        if isinstance(kind, Moment) and set(map(type, values)) == {datetime}:
            yield _texts(values)
            continue
        if isinstance(kind, JSON) and kind.none_as_null:
            yield [None if value is None else _json(value) for value in values]
            continue
        bind = kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        yield values if bind is None else list(map(bind, values))


def _texts(moments: Sequence[datetime]) -> list[str]:
    """Return moments as the column's own processor writes them, which takes ten times as long."""
    written = orjson.dumps(moments).decode()[2:-2].replace("T", " ").split('","')
    return [text[:26] if text[19:20] == "." else f"{text[:19]}.000000" for text in written]


def _json(value: Any) -> str:
    """Return JSON that reads as what the column's own processor writes, which takes far longer."""
    try:
        written = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # a number too large for it, half a surrogate pair, ...
        return json.dumps(value)
    # What is no number, or infinite, is null to orjson.
    return json.dumps(value) if "null" in written else written
