"""Interactions as rows of the database, each value brought within what its column takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Integer, String

from infra.contracts import Interaction, Usage
from infra.database.interaction_tables import interaction as table

LARGEST = 2**31 - 1
"""Of a column of whole numbers; a server that reports more tokens than this is mistaken."""
LARGEST_COST = 2**63 - 1
DOCUMENT_ID = "document_id"
"""Some of these look like a card's or a telephone's number."""
PLAIN = tuple(
    column.name
    for column in table.columns
    if column.name not in {"number", "prompt_tokens", "completion_tokens"}
)
"""Columns that are fields of `Interaction`, by the same name."""
_plain = attrgetter(*PLAIN)
_PLAIN_TYPES = frozenset({float, int, bool, type(None)})
_WIDTHS: dict[str, int] = {
    column.name: column.type.length
    for column in table.columns
    if isinstance(column.type, String)
    and column.type.length is not None
    and column.name != "id"  # half an id may be another's
}
_COUNTS = tuple(
    column.name
    for column in table.columns
    if type(column.type) is Integer and column.name != "number"
)


@dataclass(frozen=True, slots=True)
class Row:
    """What is written of an interaction."""

    values: dict[str, Any]
    """By column."""
    documents: tuple[str, ...]
    """That its content may quote."""

    @property
    def id(self) -> str:
        return str(self.values["id"])

    def encoded(self) -> bytes:
        """Return it as one line of JSON, for the disk."""
        plain = {**self.values, "at": self.values["at"].isoformat()}
        return json.dumps({"values": plain, "documents": self.documents}).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Row:
        """Read what `encoded` returned."""
        kept = json.loads(data)
        # Another release may have written it.
        known = {name: value for name, value in kept["values"].items() if name in table.c}
        known["at"] = datetime.fromisoformat(known["at"])
        return cls(known, tuple(kept["documents"]))


def as_row(item: Interaction, *, mask: Callable[[str], str]) -> Row:
    """Return an interaction as a row: too long texts cut, too large numbers made the largest.

    Every text of its content is masked, but for the ids of documents.
    """
    row: dict[str, Any] = dict(zip(PLAIN, _plain(item), strict=True))
    row["prompt_tokens"] = item.usage.prompt_tokens
    row["completion_tokens"] = item.usage.completion_tokens
    row["content"] = None if item.content is None else _masked(item.content, mask)
    _fit(row)
    return Row(row, item.documents)


def as_interaction(row: Any, documents: Sequence[str]) -> Interaction:
    """Return a row with its documents as an interaction."""
    values = {name: getattr(row, name) for name in PLAIN}
    usage = Usage(row.prompt_tokens, row.completion_tokens)
    return Interaction(**values, usage=usage, documents=tuple(documents))


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


def _fit(row: dict[str, Any]) -> None:
    for name, width in _WIDTHS.items():
        text = row[name]
        if text is not None and (len(text) > width or "\x00" in text):
            row[name] = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:width]
    for name in _COUNTS:
        if row[name] > LARGEST:
            row[name] = LARGEST
    row["cost_nano"] = min(row["cost_nano"], LARGEST_COST)
