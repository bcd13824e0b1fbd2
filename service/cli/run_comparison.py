"""Prints runs side by side for a person to read."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from service.cli.output import console, printable, say
from service.cli.run_tables import cell

if TYPE_CHECKING:
    from infra.tracking.comparison import Comparison, Row

DIFFERS = "*"
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


def print_comparison(comparison: Comparison, *, only_differences: bool) -> None:
    """Print runs side by side; a row that differs is marked, and bright where there is colour."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("", "", *(f"{each.name}\n{each.id}" for each in comparison.runs)):
        table.add_column(Text(printable(title)), overflow="fold")
    shown = [row for row in comparison.rows if row.differs or not only_differences]
    for section, rows in groupby(shown, key=lambda row: row.section):
        table.add_row("", Text(section, style="bold underline"))
        for row in rows:
            style = "yellow" if row.differs else "dim"
            cells = (DIFFERS if row.differs else "", row.name, *map(_short, row.values))
            table.add_row(*(Text(printable(text), style=style) for text in cells))
    console().print(table)
    say(_summary(comparison.rows))


def _short(value: object) -> str:
    """Return a value for a narrow column: of a digest its beginning."""
    return _DIGEST.sub(r"\1", cell(value))


def _summary(rows: tuple[Row, ...]) -> str:
    differing = [row for row in rows if row.differs]
    if not differing:
        return "Nothing differs"
    by_section = [
        f"{sum(1 for _ in group)} of {section}"
        for section, group in groupby(differing, key=lambda row: row.section)
    ]
    return f"{DIFFERS} differs: {', '.join(by_section)}"
