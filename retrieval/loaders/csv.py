"""Separated values: one line per row, each value beside its column's name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infra.contracts import Document
from infra.errors import Damaged
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders._rows import add_tables

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"text/csv", "text/tab-separated-values"})

_DELIMITERS = ",\t;|"
_SAMPLE_LINES = 50
_MAX_FIELD_CHARACTERS = 10_000_000


def load(path: Path, limits: Loading) -> Document:
    """Read a table of any delimiter and encoding."""
    decoded = decode(path.read_bytes())
    composer = Composer("text/csv", limits)
    for warning in decoded.warnings:
        composer.warn(warning)
    text = decoded.text.removeprefix("\ufeff").replace("\0", "")
    add_tables(composer, _rows(text))
    return composer.document(metadata={"encoding": decoded.encoding})


def _rows(text: str) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        yield from reader
    except csv.Error as error:
        raise Damaged(f"Line {reader.line_num} is not readable as a table: {error}") from error


def _delimiter(text: str) -> str:
    """The one that splits the first lines into the same number of fields most often."""
    lines = [line for line in text[:200_000].splitlines()[:_SAMPLE_LINES] if line.strip()]
    if text.lower().startswith("sep=") and len(lines[0]) == 5:
        return lines[0][4]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(counts), key=counts.count, default=1)
        agreement = counts.count(usual) / max(1, len(counts))
        score = agreement + min(usual, 50) / 100 if usual > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best
