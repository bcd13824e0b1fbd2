"""What it takes to get from one dataset to another: columns, rows, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.datasets.drift import Drift
from infra.datasets.schema import Field


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A column that is not in both, or not of the same type."""

    name: str
    change: Literal["added", "removed", "type"]
    before: str | None
    """Arrow's name of the type."""
    after: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A row that both have, by its key."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """The first rows of each sort, in the order of their dataset."""

    added: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Mapping[str, Any], ...] = ()
    changed: tuple[Changed, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows differ, in columns that both have with types that go together."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    """Of the same key with another value; always 0 without a key."""
    unchanged: int = 0
    changed_columns: Mapping[str, int] = field(default_factory=dict)
    """In how many of the changed rows a column differs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What it takes to get from one dataset to another."""

    before: str
    """Reference with digest."""
    after: str
    rows_before: int
    rows_after: int
    key: tuple[str, ...]
    """Columns that tell which rows are the same; none: rows are equal or not."""
    schema: tuple[FieldChange, ...]
    rows: Rows
    examples: Examples
    drift: tuple[Drift, ...]

    @property
    def is_empty(self) -> bool:
        rows = self.rows
        return not (self.schema or rows.added or rows.removed or rows.changed)


def compare_fields(before: Sequence[Field], after: Sequence[Field]) -> tuple[FieldChange, ...]:
    """Return the columns that are not in both, or not of the same type."""
    old, new = ({column.name: column.type for column in side} for side in (before, after))
    gone = [
        FieldChange(name, "removed", kind, None) for name, kind in old.items() if name not in new
    ]
    come = [FieldChange(name, "added", None, kind) for name, kind in new.items() if name not in old]
    other = [
        FieldChange(name, "type", kind, new[name])
        for name, kind in old.items()
        if name in new and new[name] != kind
    ]
    return (*come, *gone, *other)
