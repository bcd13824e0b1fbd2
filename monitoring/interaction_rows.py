"""Interactions as rows of the database, each value brought within what its column takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import BigInteger, Integer, String

from infra.contracts import Interaction, Usage
from infra.database.interaction_tables import interaction as table
from monitoring.interaction_queue import Taken

LARGEST = 2**31 - 1
"""Of a column of whole numbers; a server that reports more tokens than this is mistaken."""
LARGEST_COST = 2**63 - 1
DOCUMENT_ID = "document_id"
"""Some of these look like a card's or a telephone's number."""
COLUMNS = tuple(column.name for column in table.columns if column.name != "number")
USED = ("prompt_tokens", "completion_tokens")
PLAIN = tuple(name for name in COLUMNS if name not in USED)
"""Columns that are fields of `Interaction`, by the same name."""
_ID, _CONTENT = COLUMNS.index("id"), COLUMNS.index("content")
_values = attrgetter(*(f"usage.{name}" if name in USED else name for name in COLUMNS))
_PLAIN_TYPES = frozenset({float, int, bool, type(None)})
_WIDTHS: dict[str, int] = {
    column.name: column.type.length
    for column in table.columns
    if isinstance(column.type, String)
    and column.type.length is not None
    and column.name != "id"  # half an id may be another's
}
_MOST = {
    column.name: LARGEST_COST if isinstance(column.type, BigInteger) else LARGEST
    for column in table.columns
    if isinstance(column.type, Integer) and column.name != "number"
}


@dataclass(frozen=True, slots=True)
class Row:
    """What is written of an interaction."""

    values: tuple[Any, ...]
    """Of `COLUMNS`."""
    documents: tuple[str, ...]
    """That its content may quote."""

    @property
    def id(self) -> str:
        return str(self.values[_ID])

    def without_content(self) -> Row:
        """Return it without what it quotes."""
        values = (*self.values[:_CONTENT], None, *self.values[_CONTENT + 1 :])
        return replace(self, values=values)

    def encoded(self) -> bytes:
        """Return it as one line of JSON, for the disk."""
        plain = dict(zip(COLUMNS, self.values, strict=True))
        plain["at"] = plain["at"].isoformat()
        return json.dumps({"values": plain, "documents": self.documents}).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Row:
        """Read what `encoded` returned."""
        kept = json.loads(data)
        named = kept["values"]
        named["at"] = datetime.fromisoformat(named["at"])
        # Another release may have written it, with other columns.
        return cls(tuple(map(named.get, COLUMNS)), tuple(kept["documents"]))


@dataclass(frozen=True, slots=True)
class Rows:
    """What is written of several interactions together, a column at a time."""

    columns: dict[str, Sequence[Any]]
    """By name; of those left out every value is null."""
    documents: Sequence[tuple[str, ...]]
    """That the content of each may quote."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Return rows of which each was made by itself."""
        columns = zip(*(row.values for row in rows), strict=True)
        return cls(dict(zip(COLUMNS, columns, strict=False)), [row.documents for row in rows])

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Row]:
        nothing = [None] * len(self)
        columns = (self.columns.get(name, nothing) for name in COLUMNS)
        return map(Row, zip(*columns, strict=True), self.documents)

    def after(self, number: int) -> Rows:
        """Return them without the first ones."""
        columns = {name: values[number:] for name, values in self.columns.items()}
        return Rows(columns, self.documents[number:])

    def without_quotes(self, gone: Collection[str]) -> Rows:
        """Return them without content that may quote one of these documents."""
        missing = frozenset(gone)
        return Rows.of(
            [row if missing.isdisjoint(row.documents) else row.without_content() for row in self]
        )


def as_rows(taken: Sequence[Taken], *, mask: Callable[[str], str] | None) -> Rows:
    """Return interactions as rows: too long texts cut, too large numbers made the largest.

    Every text of their content is masked, but for the ids of documents. What is looked at is a
    column at a time, of which most hold few different values.
    """
    once = None if mask is None else cache(mask)
    parts: list[tuple[Sequence[int], Mapping[str, Sequence[Any]]]] = []
    for kind in dict.fromkeys(map(type, taken)):
        places = [place for place, each in enumerate(taken) if type(each) is kind]
        parts.append((places, _columns(kind, [taken[place] for place in places], once)))
    columns = parts[0][1] if len(parts) == 1 else _merged(parts, len(taken))
    fitting = {name: _fit(name, column) for name, column in columns.items()}
    documents = [each.documents if isinstance(each, Interaction) else () for each in taken]
    return Rows(fitting, documents)


def as_interaction(row: Any, documents: Sequence[str]) -> Interaction:
    """Return a row with its documents as an interaction."""
    values = {name: getattr(row, name) for name in PLAIN}
    usage = Usage(row.prompt_tokens, row.completion_tokens)
    return Interaction(**values, usage=usage, documents=tuple(documents))


def _columns(
    kind: type[Taken], items: Sequence[Any], mask: Callable[[str], str] | None
) -> dict[str, Sequence[Any]]:
    """Return the columns of what is all of one kind."""
    columns: dict[str, Sequence[Any]]
    if issubclass(kind, Interaction):
        columns = dict(zip(COLUMNS, zip(*map(_values, items), strict=True), strict=True))
        mask = mask or str
    else:
        columns = kind.columns(items)
    if mask is not None and "content" in columns:
        columns["content"] = [_masked(value, mask) for value in columns["content"]]
    return columns


def _merged(
    parts: Sequence[tuple[Sequence[int], Mapping[str, Sequence[Any]]]], size: int
) -> Mapping[str, Sequence[Any]]:
    """Return the columns of all rows, of which each part has those at some places."""
    merged: dict[str, list[Any]] = {}
    for places, columns in parts:
        for name, values in columns.items():
            column = merged.setdefault(name, [None] * size)
            for place, value in zip(places, values, strict=True):
                column[place] = value
    return merged


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if type(value) in _PLAIN_TYPES:  # as most are; asking whether it is a mapping takes long
        return value
    if isinstance(value, str):
        return mask(value)
    if type(value) is dict or isinstance(value, Mapping):
        return {
            name: part if name == DOCUMENT_ID else _masked(part, mask)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(part, mask) for part in value]
    return value


def _fit(name: str, column: Sequence[Any]) -> Sequence[Any]:
    if (most := _MOST.get(name)) is not None and max(column) > most:
        return [min(number, most) for number in column]
    if (width := _WIDTHS.get(name)) is not None:
        texts = set(column) - {None}
        if any(len(text) > width or "\x00" in text for text in texts):
            return [None if text is None else _cut(text, width) for text in column]
    return column


def _cut(text: str, width: int) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:width]
