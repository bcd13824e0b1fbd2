"""Turns rows of cells into lines that can be read alone: each value beside its column's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from retrieval.loaders._composer import Composer

MAX_CELLS = 5_000_000
_HEADER_WITHIN_ROWS = 5
_MAX_HEADER_CHARACTERS = 100
_NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d.,\s]*%?\)?$")
_YEAR = re.compile(r"(?:FY\s?)?(?:19|20)\d\d$")


def add_tables(
    composer: Composer, rows: Iterable[Sequence[str]], *, page: int | None = None
) -> None:
    """Add one table for each stretch of rows between empty ones."""
    table: list[list[str]] = []
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if any(cells):
            table.append(cells)
        elif table:
            _add_table(composer, table, page)
            table = []
    _add_table(composer, table, page)


def row_line(cells: Sequence[str]) -> str:
    """`a | b | c`, without the empty cells at the end."""
    return " | ".join(cells).rstrip(" |")


def _add_table(composer: Composer, rows: list[list[str]], page: int | None) -> None:
    rows = _without_empty_columns(rows)
    header_at = _header_index(rows)
    if header_at is None:
        lines = [row_line(row) for row in rows]
    else:
        names = rows[header_at]
        lines = [row_line(row) for row in rows[: header_at + 1]]
        lines += [_named_line(names, row) for row in rows[header_at + 1 :]]
    composer.add("table", "\n".join(lines), page=page)


def _without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    used = sorted({index for row in rows for index, cell in enumerate(row) if cell})
    if not used or used[-1] == len(used) - 1:
        return rows
    return [[row[index] for index in used if index < len(row)] for row in rows]


def _header_index(rows: list[list[str]]) -> int | None:
    width = max((len(row) for row in rows[:1000]), default=0)
    for index, row in enumerate(rows[:_HEADER_WITHIN_ROWS]):
        if index + 1 < len(rows) and _is_header(row, width):
            return index
    return None


def _is_header(row: list[str], width: int) -> bool:
    cells = [cell for cell in row if cell]
    if len(cells) < 2 or len(cells) < width * 0.6 or len(set(cells)) < len(cells):
        return False
    if any(len(cell) > _MAX_HEADER_CHARACTERS for cell in cells):
        return False
    return all(not _NUMBER.match(cell) or _YEAR.match(cell) for cell in cells) and not (
        _NUMBER.match(cells[0])
    )


def _named_line(names: list[str], row: list[str]) -> str:
    parts = []
    for index, cell in enumerate(row):
        if not cell:
            continue
        name = names[index] if index < len(names) else ""
        parts.append(f"{name}: {cell}" if name else cell)
    return " | ".join(parts)
