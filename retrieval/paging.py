"""Cursor paging, the same for every list: after and before name rows, order is by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Select, select

from infra.errors import NotFound

Item = TypeVar("Item")
Other = TypeVar("Other")
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    has_more: bool

    def map(self, convert: Callable[[Item], Other]) -> Page[Other]:
        return Page(tuple(convert(item) for item in self.items), self.has_more)


def fetch_page(  # noqa: PLR0913  a page is what these say
    connection: Connection,
    statement: Select[Any],
    *,
    key: Column[Any],
    cursor: Column[Any],
    limit: int,
    after: str | None,
    before: str | None,
    descending: bool,
    within: ColumnElement[bool] | None = None,
) -> Page[Any]:
    """Run `statement` for one page.

    Args:
        connection: where to run it.
        statement: selects the rows, without order or limit.
        key: unique and rising with time; the order.
        cursor: the public id that `after` and `before` name.
        limit: rows at most, cut to 1..1000.
        after: the row before the page.
        before: the row behind the page.
        descending: newest first.
        within: where a cursor's row stands, if its public id is not unique in the whole table.

    Raises:
        NotFound: the cursor names no row.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    # Walking back from `before` reads in the opposite order and is turned round at the end.
    backwards = before is not None and after is None
    if after is not None:
        position = _position(connection, key, cursor, name=after, within=within)
        statement = statement.where(key < position if descending else key > position)
    if before is not None:
        position = _position(connection, key, cursor, name=before, within=within)
        statement = statement.where(key > position if descending else key < position)
    falling = descending != backwards
    rows: Sequence[Any] = connection.execute(
        statement.order_by(key.desc() if falling else key.asc()).limit(limit + 1)
    ).all()
    kept = rows[:limit]
    return Page(tuple(reversed(kept) if backwards else kept), has_more=len(rows) > limit)


def _position(
    connection: Connection,
    key: Column[Any],
    cursor: Column[Any],
    *,
    name: str,
    within: ColumnElement[bool] | None,
) -> Any:
    statement = select(key).where(cursor == name)
    if within is not None:
        statement = statement.where(within)
    position = connection.execute(statement.limit(1)).scalar()
    if position is None:
        raise NotFound("cursor", name)
    return position
