"""Excel workbooks: each visible sheet is a page, each row a line with its columns' names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lxml import etree

from infra.contracts import Document
from infra.errors import Damaged, ExceedsLimit
from infra.plugins import require
from retrieval.loaders._archive import Archive
from retrieval.loaders._composer import Composer
from retrieval.loaders._properties import core_properties
from retrieval.loaders._rows import MAX_CELLS, add_tables
from retrieval.media_types import SHEETS

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({SHEETS})

# What openpyxl lets through when a part is missing, malformed or not what its name says.
_FAILURES = (
    BadZipFile,
    zlib.error,
    etree.XMLSyntaxError,
    SyntaxError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    AssertionError,
    NotImplementedError,
)


def load(path: Path, limits: Loading) -> Document:
    """Read the values that the workbook shows; formulas count by their stored results."""
    with Archive(path, limits) as archive:
        archive.check("xl/")
        properties = core_properties(archive)
    composer = Composer(SHEETS, limits)
    try:
        _add_sheets(composer, path)
    except _FAILURES as error:
        raise Damaged(f"Its workbook is malformed: {error}") from error
    return composer.document(title=properties.pop("title", ""), metadata=properties)


def _add_sheets(composer: Composer, path: Path) -> None:
    import warnings

    openpyxl = require("openpyxl", extra="retrieval")
    # Opened here because openpyxl judges a path by its suffix, and stored bytes have none.
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and extensions, which carry no text
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        try:
            if len(book.worksheets) > composer.limits.max_pages:
                raise ExceedsLimit(f"It has {len(book.worksheets)} sheets; split it")
            cells = MAX_CELLS
            for number, sheet in enumerate(book.worksheets, start=1):
                if sheet.sheet_state != "visible":
                    composer.warn(f"Hidden sheet {sheet.title!r} was left out")
                    continue
                cells = _add_sheet(composer, sheet, number, cells)
        finally:
            book.close()


def _add_sheet(composer: Composer, sheet: Any, number: int, cells: int) -> int:
    """Add one sheet, and return how many cells may still be read."""
    sheet.reset_dimensions()  # what the file claims may be a million empty columns
    rows = list(_rows(sheet, cells))
    if any(any(row) for row in rows):
        composer.add("heading", sheet.title, level=1, page=number)
        add_tables(composer, rows, page=number)
    return cells - sum(len(row) + 1 for row in rows)


def _rows(sheet: Any, cells: int) -> Iterator[list[str]]:
    for row in sheet.iter_rows(values_only=True):
        cells -= len(row) + 1
        if cells < 0:
            raise ExceedsLimit(f"It holds more than {MAX_CELLS:,} cells; split it")
        yield [_shown(value) for value in row]


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        midnight = value.time() == time()
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
